#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// B = A or its transpose, for windows of larger matrices: element (i, j) of B, whose rows are ldb elements apart, is the one of A at
// a0 + i * down + j * right. One invocation moves 4 x 4. Sizes are checked by vkhmm::kernels.
#include "include/grid.glsl"
#include "include/arrays.glsl"

layout(set = 0, binding = 0, std430) readonly buffer A { uint a[]; };
layout(push_constant, std430) uniform Push {
    uvec2 b;
    uint rows;
    uint cols;
    uint a0;
    uint down;
    uint right;
    uint b0;
    uint ldb;
};

const uint SIDE = 4u;

void main() {
    uint across = (cols + SIDE - 1u) / SIDE;
    uint count = saturating_product((rows + SIDE - 1u) / SIDE, across);
    FOR_EACH_ITEM(tile, count) {
        uint row = tile / across * SIDE, col = tile % across * SIDE;
        uint moved[SIDE][SIDE];
        for (uint j = 0u; j < SIDE; j++) {
            for (uint i = 0u; i < SIDE; i++) {
                // Past the end the last one is read once more.
                moved[i][j] = a[a0 + min(row + i, rows - 1u) * down + min(col + j, cols - 1u) * right];
            }
        }
        for (uint i = 0u; i < SIDE; i++) {
            for (uint j = 0u; j < SIDE; j++) {
                if (row + i < rows && col + j < cols) {
                    Uints(b).at[b0 + (row + i) * ldb + col + j] = moved[i][j];
                }
            }
        }
    }
}
