#version 460
#extension GL_GOOGLE_include_directive : require
// C = A * B, or C += A * B: row-major f32, A is m x k, B is k x n, C is m x n, each with its own distance between rows.
// One invocation computes 8 x 4 elements of C in registers. Sizes that do not fit the buffers: nothing is written.
// Use one invocation per tile, and cut k at 65,000 with ACCUMULATE (see grid.glsl).
#include "include/grid.glsl"
#include "include/matrix.glsl"

layout(set = 0, binding = 0, std430) readonly buffer A { float a[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { float b[]; };
layout(set = 0, binding = 2, std430) buffer C { float c[]; };
// The same buffers, four elements at a time.
layout(set = 0, binding = 0, std430) readonly buffer A4 { vec4 a4[]; };
layout(set = 0, binding = 1, std430) readonly buffer B4 { vec4 b4[]; };
layout(push_constant, std430) uniform Push {
    uint m;
    uint n;
    uint k;
    uint lda;
    uint ldb;
    uint ldc;
    uint flags;
};

const uint ACCUMULATE = 1u;
const uint ROWS = 8u;
const uint COLS = 4u;

// A whole tile, with rows of A and B on 16 bytes. `deep` is k rounded down to four.
void whole_tile(uint row, uint col, uint deep, inout vec4 acc[ROWS]) {
    for (uint p = 0u; p < deep; p += 4u) {
        vec4 b0 = b4[(p * ldb + col) / 4u];
        vec4 b1 = b4[((p + 1u) * ldb + col) / 4u];
        vec4 b2 = b4[((p + 2u) * ldb + col) / 4u];
        vec4 b3 = b4[((p + 3u) * ldb + col) / 4u];
        for (uint r = 0u; r < ROWS; r++) {
            vec4 left = a4[((row + r) * lda + p) / 4u];
            acc[r] += left.x * b0 + left.y * b1 + left.z * b2 + left.w * b3;
        }
    }
}

// Any tile, from depth `from` on.
void any_tile(uint row, uint col, uint rows, uint cols, uint from, inout vec4 acc[ROWS]) {
    for (uint p = from; p < k; p++) {
        vec4 right = vec4(0.0);
        for (uint j = 0u; j < COLS; j++) {
            if (j < cols) {
                right[j] = b[p * ldb + col + j];
            }
        }
        for (uint r = 0u; r < ROWS; r++) {
            if (r < rows) {
                acc[r] += a[(row + r) * lda + p] * right;
            }
        }
    }
}

void main() {
    bool fit = matrix_fits(m, k, lda, uint(a.length())) && matrix_fits(k, n, ldb, uint(b.length()))
        && matrix_fits(m, n, ldc, uint(c.length()));
    uint across = tiles(n, COLS);
    uint count = fit ? saturating_product(tiles(m, ROWS), across) : 0u;
    bool aligned = lda % 4u == 0u && ldb % 4u == 0u;
    FOR_EACH_ITEM(i, count) {
        uint row = i / across * ROWS;
        uint col = i % across * COLS;
        uint rows = min(ROWS, m - row);
        uint cols = min(COLS, n - col);
        vec4 acc[ROWS];
        for (uint r = 0u; r < ROWS; r++) {
            acc[r] = vec4(0.0);
        }
        uint deep = aligned && rows == ROWS && cols == COLS ? k / 4u * 4u : 0u;
        whole_tile(row, col, deep, acc);
        any_tile(row, col, rows, cols, deep, acc);
        for (uint r = 0u; r < ROWS; r++) {
            for (uint j = 0u; j < COLS; j++) {
                if (r < rows && j < cols) {
                    uint at = (row + r) * ldc + col + j;
                    c[at] = (flags & ACCUMULATE) != 0u ? c[at] + acc[r][j] : acc[r][j];
                }
            }
        }
    }
}
