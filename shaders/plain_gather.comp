#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// to[i] = source[index[i]] for n words at plain device addresses: what paged_gather is compared with.
#include "include/arrays.glsl"

layout(push_constant, std430) uniform Push {
    uvec2 to;
    uvec2 index;
    uvec2 source;
    uint n;
};

bool find(uint place, out uvec2 at) {
    at = address_of(source, place, 2u);
    return true;
}

#include "include/gather.glsl"
GATHER_WORD(gather_word, find)

void main() {
    uint tile = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    uint first = tile * TILE;
    if (tile <= n / TILE && first < n) {
        for (uint word = gl_LocalInvocationIndex; word < TILE / 32u; word += 64u) {
            gather_word(address_of(index, first, 2u), address_of(to, first, 2u), word, 0xffffffffu, min(TILE, n - first));
        }
    }
}
