#version 460
#extension GL_GOOGLE_include_directive : require
// x = a * x, for every element.
#include "include/grid.glsl"

layout(set = 0, binding = 0, std430) buffer X { float x[]; };
layout(push_constant, std430) uniform Push { float a; };

void main() {
    uint count = uint(x.length());
    FOR_EACH_ITEM(i, count) {
        x[i] = a * x[i];
    }
}
