#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// C = alpha A B + beta C in f32, for windows of larger matrices: C is m x n, and k products are added up for each element. Rows are
// lda, ldb, ldc elements apart. One invocation computes ROWS x 4 elements in registers, four products deep at a time. With beta
// zero the old C is not read. Sizes are checked by vkhmm::kernels. At most 32,768 products deep (see grid.glsl). A and B are bindings,
// since software devices read them faster; C is an address, since a binding would have to begin below what is written.
#include "include/grid.glsl"
#include "include/arrays.glsl"

layout(constant_id = 0) const uint A_T = 0u;  // A lies as k rows of m elements
layout(constant_id = 1) const uint B_T = 0u;  // B lies as n rows of k elements
layout(constant_id = 2) const uint WIDE = 0u; // all rows of A and B begin on four elements of their bindings
layout(constant_id = 3) const uint ROWS = 8u; // a multiple of four
const uint COLS = 4u;

layout(set = 0, binding = 0, std430) readonly buffer A { float a[]; };
layout(set = 0, binding = 1, std430) readonly buffer B { float b[]; };
// The same buffers, four elements at a time.
layout(set = 0, binding = 0, std430) readonly buffer A4 { vec4 a4[]; };
layout(set = 0, binding = 1, std430) readonly buffer B4 { vec4 b4[]; };
layout(push_constant, std430) uniform Push {
    uvec2 c;
    uint m;
    uint n;
    uint k;
    uint lda;
    uint ldb;
    uint ldc;
    uint a0; // the first element of each that is meant
    uint b0;
    uint c0;
    float alpha;
    float beta;
    uint part;
    int below; // element (i, j) lies on the diagonal if j = i + below
};
// Which part of C is computed.
const uint LOWER = 1u;
const uint UPPER = 2u;

uint tiles(uint count, uint size) {
    return count / size + (count % size == 0u ? 0u : 1u);
}

vec4 a_four(uint at) {
    return WIDE != 0u ? a4[at / 4u] : vec4(a[at], a[at + 1u], a[at + 2u], a[at + 3u]);
}

vec4 b_four(uint at) {
    return WIDE != 0u ? b4[at / 4u] : vec4(b[at], b[at + 1u], b[at + 2u], b[at + 3u]);
}

// A whole tile. `deep` is a multiple of four.
void whole_tile(uint row, uint col, uint deep, inout vec4 acc[ROWS]) {
    for (uint p = 0u; p < deep; p += 4u) {
        vec4 right[4]; // of product p + q: four columns
        if (B_T != 0u) {
            vec4 deep0 = b_four(b0 + col * ldb + p), deep1 = b_four(b0 + (col + 1u) * ldb + p);
            vec4 deep2 = b_four(b0 + (col + 2u) * ldb + p), deep3 = b_four(b0 + (col + 3u) * ldb + p);
            for (uint q = 0u; q < 4u; q++) {
                right[q] = vec4(deep0[q], deep1[q], deep2[q], deep3[q]);
            }
        } else {
            for (uint q = 0u; q < 4u; q++) {
                right[q] = b_four(b0 + (p + q) * ldb + col);
            }
        }
        for (uint r = 0u; r < ROWS; r += 4u) {
            vec4 left[4]; // of row r + s: four products
            if (A_T != 0u) {
                vec4 row0 = a_four(a0 + p * lda + row + r), row1 = a_four(a0 + (p + 1u) * lda + row + r);
                vec4 row2 = a_four(a0 + (p + 2u) * lda + row + r), row3 = a_four(a0 + (p + 3u) * lda + row + r);
                for (uint s = 0u; s < 4u; s++) {
                    left[s] = vec4(row0[s], row1[s], row2[s], row3[s]);
                }
            } else {
                for (uint s = 0u; s < 4u; s++) {
                    left[s] = a_four(a0 + (row + r + s) * lda + p);
                }
            }
            for (uint s = 0u; s < 4u; s++) {
                acc[r + s] += left[s].x * right[0] + left[s].y * right[1] + left[s].z * right[2] + left[s].w * right[3];
            }
        }
    }
}

// Any tile, from depth `from` on. Rows and columns past the end repeat the last one; their results are dropped.
void any_tile(uint row, uint col, uint from, inout vec4 acc[ROWS]) {
    for (uint p = from; p < k; p++) {
        vec4 right;
        for (uint j = 0u; j < COLS; j++) {
            uint at = min(col + j, n - 1u);
            right[j] = b[b0 + (B_T != 0u ? at * ldb + p : p * ldb + at)];
        }
        for (uint r = 0u; r < ROWS; r++) {
            uint at = min(row + r, m - 1u);
            acc[r] += a[a0 + (A_T != 0u ? p * lda + at : at * lda + p)] * right;
        }
    }
}

// Whether an element is in the part that is computed.
bool wanted(uint i, uint j) {
    int over = int(j) - int(i) - below;
    return part == LOWER ? over <= 0 : part != UPPER || over >= 0;
}

void main() {
    uint across = tiles(n, COLS);
    uint count = saturating_product(tiles(m, ROWS), across);
    FOR_EACH_ITEM(i, count) {
        uint row = i / across * ROWS;
        uint col = i % across * COLS;
        uint rows = min(ROWS, m - row);
        uint cols = min(COLS, n - col);
        if (!wanted(row + rows - 1u, col) && !wanted(row, col + cols - 1u)) {
            continue;
        }
        vec4 acc[ROWS];
        for (uint r = 0u; r < ROWS; r++) {
            acc[r] = vec4(0.0);
        }
        uint deep = rows == ROWS && cols == COLS ? k / 4u * 4u : 0u;
        whole_tile(row, col, deep, acc);
        any_tile(row, col, deep, acc);
        for (uint r = 0u; r < ROWS; r++) {
            for (uint j = 0u; j < COLS; j++) {
                if (r < rows && j < cols && wanted(row + r, col + j)) {
                    uint at = c0 + (row + r) * ldc + col + j;
                    float sum = alpha * acc[r][j];
                    Floats(c).at[at] = beta == 0.0 ? sum : sum + beta * Floats(c).at[at];
                }
            }
        }
    }
}
