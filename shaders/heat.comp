#version 460
#extension GL_GOOGLE_include_directive : require
// One explicit step of the heat equation on whole rows: to[j] = from[first + j] + rate * (its four neighbours - 4 of itself). What lies
// outside `from`, or left and right of it, is zero. Four elements at a time: `cols` is a multiple of four. Sizes that do not fit the
// buffers: nothing is written.
#include "include/grid.glsl"
#include "include/matrix.glsl"

layout(set = 0, binding = 0, std430) readonly buffer From { vec4 from[]; };
layout(set = 0, binding = 1, std430) writeonly buffer To { vec4 to[]; };
layout(push_constant, std430) uniform Push {
    uint cols;
    uint from_rows;
    uint first;
    uint to_rows;
    float rate;
};

void main() {
    uint width = cols / 4u;
    bool fit = cols % 4u == 0u && matrix_fits(from_rows, width, width, uint(from.length()))
        && matrix_fits(to_rows, width, width, uint(to.length())) && first <= from_rows && to_rows <= from_rows - first;
    uint count = fit ? saturating_product(to_rows, width) : 0u;
    FOR_EACH_ITEM(i, count) {
        uint row = first + i / width;
        uint col = i % width;
        uint at = row * width + col;
        vec4 here = from[at];
        vec4 around = vec4(0.0);
        if (row > 0u) {
            around += from[at - width];
        }
        if (row + 1u < from_rows) {
            around += from[at + width];
        }
        float left = col > 0u ? from[at - 1u].w : 0.0;
        float right = col + 1u < width ? from[at + 1u].x : 0.0;
        around += vec4(left, here.xyz) + vec4(here.yzw, right);
        to[i] = here + rate * (around - 4.0 * here);
    }
}
