#version 460
#extension GL_GOOGLE_include_directive : require
// A row panel of the Gram matrix of X (n x d, row-major f32): g[r][j] = dot(X[row0 + r], X[j]) for r < rows and every j < n.
// One invocation computes 4 x 4 elements in registers. Sizes that do not fit the buffers: nothing is written.
// Use one invocation per tile; d stays below 65,000 (see grid.glsl).
#include "include/grid.glsl"
#include "include/matrix.glsl"

layout(set = 0, binding = 0, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 1, std430) writeonly buffer G { float g[]; };
// The same buffer, four elements at a time.
layout(set = 0, binding = 0, std430) readonly buffer X4 { vec4 x4[]; };
layout(push_constant, std430) uniform Push {
    uint row0;
    uint rows;
    uint n;
    uint d;
};

const uint SIDE = 4u;

void main() {
    bool fit = row0 <= n && rows <= n - row0 && matrix_fits(n, d, d, uint(x.length()))
        && matrix_fits(rows, n, n, uint(g.length()));
    uint across = tiles(n, SIDE);
    uint count = fit ? saturating_product(tiles(rows, SIDE), across) : 0u;
    uint deep = d % 4u == 0u ? d : 0u;
    FOR_EACH_ITEM(i, count) {
        uint row = i / across * SIDE;
        uint col = i % across * SIDE;
        // Rows past the end repeat the last one; their results are dropped below.
        uint left[SIDE];
        uint right[SIDE];
        float acc[SIDE][SIDE];
        for (uint r = 0u; r < SIDE; r++) {
            left[r] = (row0 + min(row + r, rows - 1u)) * d;
            right[r] = min(col + r, n - 1u) * d;
            for (uint j = 0u; j < SIDE; j++) {
                acc[r][j] = 0.0;
            }
        }
        for (uint p = 0u; p < deep; p += 4u) {
            vec4 others[SIDE];
            for (uint j = 0u; j < SIDE; j++) {
                others[j] = x4[(right[j] + p) / 4u];
            }
            for (uint r = 0u; r < SIDE; r++) {
                vec4 mine = x4[(left[r] + p) / 4u];
                for (uint j = 0u; j < SIDE; j++) {
                    acc[r][j] += dot(mine, others[j]);
                }
            }
        }
        for (uint p = deep; p < d; p++) {
            for (uint r = 0u; r < SIDE; r++) {
                for (uint j = 0u; j < SIDE; j++) {
                    acc[r][j] += x[left[r] + p] * x[right[j] + p];
                }
            }
        }
        for (uint r = 0u; r < SIDE; r++) {
            for (uint j = 0u; j < SIDE; j++) {
                if (row + r < rows && col + j < n) {
                    g[(row + r) * n + col + j] = acc[r][j];
                }
            }
        }
    }
}
