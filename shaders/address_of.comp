#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// Where an array is on the device: seen[slot] = its address, and the sum of its first n words in steps of stride, modulo 2^32, so
// that the address is proved by what lies there.
#include "include/grid.glsl"

layout(buffer_reference, buffer_reference_align = 4, std430) readonly buffer Source { uint at[]; };
layout(set = 0, binding = 0, std430) buffer Seen { uvec4 seen[]; };
layout(push_constant, std430) uniform Push {
    uvec2 x;
    uint n;
    uint stride;
    uint slot;
};

void main() {
    Source from = Source(x);
    FOR_EACH_ITEM(i, 1u) {
        uint sum = 0u;
        for (uint word = 0u; word < n; word += stride) {
            sum += from.at[word];
        }
        seen[slot] = uvec4(x, sum, n);
    }
}
