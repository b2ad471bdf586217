#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// Element by element, for `n` words at device addresses. OP says what; `a` is a word or a float's bits. Nothing says how long the
// arrays are: vkhmm::kernels has checked it.
#include "include/grid.glsl"
#include "include/arrays.glsl"

layout(constant_id = 0) const uint OP = 0u;
const uint FILL = 0u;  // y = a
const uint COPY = 1u;  // y = x
const uint AXPY = 2u;  // y = y + a x
const uint SCALE = 3u; // y = a y
const uint EXP = 4u;   // y = exp(x - s)
const uint DIVIDE = 5u; // y = y / s

layout(push_constant, std430) uniform Push {
    uvec2 s; // one element
    uvec2 x;
    uvec2 y;
    uint a;
    uint n;
};

void main() {
    float factor = uintBitsToFloat(a);
    FOR_EACH_ITEM(i, n) {
        if (OP == FILL) {
            Uints(y).at[i] = a;
        } else if (OP == COPY) {
            Uints(y).at[i] = Uints(x).at[i];
        } else if (OP == AXPY) {
            Floats(y).at[i] += factor * Floats(x).at[i];
        } else if (OP == SCALE) {
            Floats(y).at[i] *= factor;
        } else if (OP == EXP) {
            Floats(y).at[i] = exp(Floats(x).at[i] - Floats(s).at[0]);
        } else {
            Floats(y).at[i] /= Floats(s).at[0];
        }
    }
}
