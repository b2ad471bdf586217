#version 460
#extension GL_GOOGLE_include_directive : require
// One step of a five-point stencil on a slab of whole rows: each element of the new slab is a quarter of the sum of its four
// neighbours in the old one. The row above the slab and the row below it are arguments of their own; where there is none, and left
// and right of the slab, neighbours are zero. Sizes that do not fit the buffers: nothing is written.
#include "include/grid.glsl"
#include "include/matrix.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Above { float above[]; };
layout(set = 0, binding = 1, std430) readonly buffer Old { float old[]; };
layout(set = 0, binding = 2, std430) readonly buffer Below { float below[]; };
layout(set = 0, binding = 3, std430) buffer New { float fresh[]; };
layout(push_constant, std430) uniform Push {
    uint rows;
    uint cols;
    uint edges;
};

const uint HAS_ABOVE = 1u;
const uint HAS_BELOW = 2u;

void main() {
    bool fit = matrix_fits(rows, cols, cols, uint(old.length())) && matrix_fits(rows, cols, cols, uint(fresh.length()))
        && ((edges & HAS_ABOVE) == 0u || cols <= uint(above.length()))
        && ((edges & HAS_BELOW) == 0u || cols <= uint(below.length()));
    uint count = fit ? saturating_product(rows, cols) : 0u;
    FOR_EACH_ITEM(i, count) {
        uint row = i / cols;
        uint col = i % cols;
        float sum = 0.0;
        if (row > 0u) {
            sum += old[i - cols];
        } else if ((edges & HAS_ABOVE) != 0u) {
            sum += above[col];
        }
        if (row + 1u < rows) {
            sum += old[i + cols];
        } else if ((edges & HAS_BELOW) != 0u) {
            sum += below[col];
        }
        sum += col > 0u ? old[i - 1u] : 0.0;
        sum += col + 1u < cols ? old[i + 1u] : 0.0;
        fresh[i] = 0.25 * sum;
    }
}
