#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// y = a * x + y for n elements at two device addresses. Nothing says how long the arrays are: n is the caller's word.
#include "include/grid.glsl"

layout(buffer_reference, buffer_reference_align = 4, std430) readonly buffer Source { float at[]; };
layout(buffer_reference, buffer_reference_align = 4, std430) buffer Destination { float at[]; };
layout(push_constant, std430) uniform Push {
    uvec2 x;
    uvec2 y;
    float a;
    uint n;
};

void main() {
    Source from = Source(x);
    Destination to = Destination(y);
    FOR_EACH_ITEM(i, n) {
        to.at[i] = a * from.at[i] + to.at[i];
    }
}
