#version 460
#extension GL_GOOGLE_include_directive : require
// Adds one to every 32-bit word.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) buffer Words { uint words[]; };

void main() {
    uint count = uint(words.length());
    FOR_EACH_ITEM(i, count) {
        words[i] += 1u;
    }
}
