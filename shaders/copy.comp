#version 460
#extension GL_GOOGLE_include_directive : require
// Copies the 32-bit words of `from` to `to`, as many as both have.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) readonly buffer From { uint from[]; };
layout(set = 0, binding = 1, std430) writeonly buffer To { uint to[]; };

void main() {
    uint count = min(uint(from.length()), uint(to.length()));
    FOR_EACH_ITEM(i, count) {
        to[i] = from[i];
    }
}
