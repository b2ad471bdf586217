#version 460
#extension GL_GOOGLE_include_directive : require
// Keeps the device busy: each of the first n words goes `rounds` times through 16 steps of a generator (each step needs the
// last), then back. Time grows with n times rounds; rounds stay below 60,000 (see grid.glsl).
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) buffer Words { uint words[]; };
layout(push_constant, std430) uniform Push {
    uint rounds;
    uint n;
};

#define STEP value = (value ^ (value >> 15)) * 0x2c1b3c6du + 0x9e3779b9u;
#define FOUR_STEPS STEP STEP STEP STEP

void main() {
    uint count = min(n, uint(words.length()));
    FOR_EACH_ITEM(i, count) {
        uint value = words[i];
        for (uint round = 0u; round < rounds; round++) {
            FOUR_STEPS FOUR_STEPS FOUR_STEPS FOUR_STEPS
        }
        words[i] = value;
    }
}
