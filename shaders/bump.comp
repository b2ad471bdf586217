#version 460
#extension GL_GOOGLE_include_directive : require
// Adds one to every stride-th 32-bit word from `offset` on: a page then has words of the GPU's between words of the CPU's.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) buffer Words { uint words[]; };
layout(push_constant, std430) uniform Push {
    uint offset;
    uint stride;
};

void main() {
    uint length = uint(words.length());
    uint apart = max(stride, 1u);
    uint count = offset < length ? (length - 1u - offset) / apart + 1u : 0u;
    FOR_EACH_ITEM(i, count) {
        words[offset + i * apart] += 1u;
    }
}
