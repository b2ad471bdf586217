#version 460
#extension GL_GOOGLE_include_directive : require
// Sets every 32-bit word of `to` to `word`.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) writeonly buffer To { uint to[]; };
layout(push_constant, std430) uniform Push { uint word; };

void main() {
    uint count = uint(to.length());
    FOR_EACH_ITEM(i, count) {
        to[i] = word;
    }
}
