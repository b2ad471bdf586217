#version 460
#extension GL_GOOGLE_include_directive : require
// y = a * x + y, for the first n elements that both have.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) buffer Y { float y[]; };
layout(push_constant, std430) uniform Push {
    float a;
    uint n;
};

void main() {
    uint count = min(n, min(uint(x.length()), uint(y.length())));
    FOR_EACH_ITEM(i, count) {
        y[i] = a * x[i] + y[i];
    }
}
