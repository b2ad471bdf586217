#version 460
#extension GL_GOOGLE_include_directive : require
// C = A * B, row-major f32 in managed memory, resident or not: ranges C, A, B. A is m x k, B is k x n. A group does a tile of 64 x 32.
#define VKHMM_PUSH uint m; uint n; uint k;
#include "vkhmm.glsl"
#include "include/arrays.glsl"
#include "include/gemm_tile.glsl"

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange c = vkhmm_range(0u, 2u, VKHMM_WRITE);
    VkhmmRange a = vkhmm_range(1u, 2u, VKHMM_READ), b = vkhmm_range(2u, 2u, VKHMM_READ);
    uint tile = vkhmm_group(), lane = gl_LocalInvocationIndex;
    bool exists = tile_exists(tile, m, n, k);
    uint row = exists ? tile / (n / TILE_COLS) * TILE_ROWS : 0u, col = exists ? tile % (n / TILE_COLS) * TILE_COLS : 0u;
    if (exists) {
        vkhmm_want(a, row * k, TILE_ROWS * k);
        vkhmm_want_rows(b, col, k, n, TILE_COLS);
        vkhmm_want_rows(c, row * n + col, TILE_ROWS, n, TILE_COLS);
    }
    if (!vkhmm_vote_uniform() || !exists) {
        return;
    }
    row += lane / 8u * ROWS;
    col += lane % 8u * 4u;
    vec4 acc[ROWS];
    for (uint r = 0u; r < ROWS; r++) {
        acc[r] = vec4(0.0);
    }
    // In parts that cross no block.
    for (uint p = 0u; p < k;) {
        VkhmmRun run = vkhmm_run(b, p * n + col);
        uint depth = min(k - p, (run.count - 4u) / n + 1u);
        uvec2 left[ROWS];
        for (uint r = 0u; r < ROWS; r++) {
            VkhmmRun line = vkhmm_run(a, (row + r) * k + p);
            left[r] = line.at;
            depth = min(depth, line.count);
        }
        tile_part(left, run.at, n, depth, acc);
        p += depth;
    }
    for (uint r = 0u; r < ROWS; r++) {
        Vec4s(vkhmm_at(c, (row + r) * n + col)).at[0] = acc[r];
    }
}
