// A tile of C = A * B, row-major f32: 64 x 32 for a group of 64 invocations, of which each computes 8 x 4 in registers. m must be a
// multiple of 64, n of 32, k of 4.
layout(local_size_x = 64) in;

const uint TILE_ROWS = 64u;
const uint TILE_COLS = 32u;
const uint ROWS = 8u;

// Whether the sizes are what they must be, and the tile is one of C's.
bool tile_exists(uint tile, uint m, uint n, uint k) {
    return m % TILE_ROWS == 0u && n % TILE_COLS == 0u && k % 4u == 0u && n != 0u && tile / (n / TILE_COLS) < m / TILE_ROWS;
}

// Adds `depth` columns of A to acc. `a`: where they begin in each of the rows; `b`: the first of as many rows of B, n apart, and of
// these the four columns that are meant.
void tile_part(uvec2 a[ROWS], uvec2 b, uint n, uint depth, inout vec4 acc[ROWS]) {
    uint step = n / 4u, p = 0u;
    for (; p + 4u <= depth; p += 4u) {
        vec4 b0 = Vec4s(b).at[p * step], b1 = Vec4s(b).at[(p + 1u) * step];
        vec4 b2 = Vec4s(b).at[(p + 2u) * step], b3 = Vec4s(b).at[(p + 3u) * step];
        for (uint r = 0u; r < ROWS; r++) {
            vec4 left = vec4(Floats(a[r]).at[p], Floats(a[r]).at[p + 1u], Floats(a[r]).at[p + 2u], Floats(a[r]).at[p + 3u]);
            acc[r] += left.x * b0 + left.y * b1 + left.z * b2 + left.w * b3;
        }
    }
    for (; p < depth; p++) {
        vec4 right = Vec4s(b).at[p * step];
        for (uint r = 0u; r < ROWS; r++) {
            acc[r] += Floats(a[r]).at[p] * right;
        }
    }
}
