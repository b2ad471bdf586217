#version 460
#extension GL_GOOGLE_include_directive : require
// Adds to sum[0] the sum over all words of ((word ^ index * 0x9e3779b9) * 0x85ebca6b), modulo 2^32: any order gives the same.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Words { uint words[]; };
layout(set = 0, binding = 1, std430) buffer Sum { uint sum[]; };

void main() {
    uint count = sum.length() > 0 ? uint(words.length()) : 0u;
    uint part = 0u;
    FOR_EACH_ITEM(i, count) {
        part += (words[i] ^ (i * 0x9e3779b9u)) * 0x85ebca6bu;
    }
    if (part != 0u) {
        atomicAdd(sum[0], part);
    }
}
