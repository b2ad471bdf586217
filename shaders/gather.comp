#version 460
#extension GL_GOOGLE_include_directive : require
// Each 32-bit word of `to` becomes a word of `from`, from a place that a hash of its own place and `seed` names.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) readonly buffer From { uint from[]; };
layout(set = 0, binding = 1, std430) writeonly buffer To { uint to[]; };
layout(push_constant, std430) uniform Push { uint seed; };

void main() {
    uint items = uint(from.length());
    uint count = items == 0u ? 0u : uint(to.length());
    FOR_EACH_ITEM(i, count) {
        uint place = (i ^ seed) * 0x9e3779b9u;
        place = (place ^ (place >> 16)) * 0x85ebca6bu;
        place = (place ^ (place >> 13)) * 0xc2b2ae35u;
        to[i] = from[(place ^ (place >> 16)) % items];
    }
}
