#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// Softmax by rows: a group of 64 for each row, each invocation every 64th element. Sizes are checked by vkhmm::kernels: at most
// 262,144 columns (see grid.glsl).
#include "include/grid.glsl"
#include "include/arrays.glsl"

layout(push_constant, std430) uniform Push {
    uvec2 a;
    uvec2 to;
    uint rows;
    uint cols;
    uint lda;
    uint ldto;
};

shared float folded[GROUP_ITEMS];

// The sum, or the largest, of what the invocations of a group have, in a fixed order.
float fold(float mine, bool largest) {
    uint lane = gl_LocalInvocationIndex;
    barrier();
    folded[lane] = mine;
    for (uint width = GROUP_ITEMS / 2u; width > 0u; width /= 2u) {
        barrier();
        if (lane < width) {
            float other = folded[lane + width];
            folded[lane] = largest ? max(folded[lane], other) : folded[lane] + other;
        }
    }
    barrier();
    return folded[0];
}

void main() {
    uint lane = gl_LocalInvocationIndex;
    uint row = grid_start() / GROUP_ITEMS;
    if (row >= rows) {
        return; // the whole group
    }
    uint from = row * lda, into = row * ldto;
    float top = uintBitsToFloat(0xff800000u);
    for (uint j = lane; j < cols; j += GROUP_ITEMS) {
        top = max(top, Floats(a).at[from + j]);
    }
    top = fold(top, true);
    float sum = 0.0;
    for (uint j = lane; j < cols; j += GROUP_ITEMS) {
        float e = exp(Floats(a).at[from + j] - top);
        Floats(to).at[into + j] = e;
        sum += e;
    }
    sum = fold(sum, false);
    for (uint j = lane; j < cols; j += GROUP_ITEMS) {
        Floats(to).at[into + j] /= sum;
    }
}
