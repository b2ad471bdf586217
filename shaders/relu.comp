#version 460
#extension GL_GOOGLE_include_directive : require
// Where x is above zero: y = x, or, on the way back, y stays. Elsewhere y = 0. For the first n elements that both have.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) buffer Y { float y[]; };
layout(push_constant, std430) uniform Push {
    uint n;
    uint back;
};

void main() {
    uint count = min(n, min(uint(x.length()), uint(y.length())));
    FOR_EACH_ITEM(i, count) {
        bool on = x[i] > 0.0;
        y[i] = on ? (back != 0u ? y[i] : x[i]) : 0.0;
    }
}
