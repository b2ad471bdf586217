#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// C = A * B, row-major f32 at plain device addresses: what paged_gemm is compared with. A is m x k, B is k x n.
#include "include/arrays.glsl"
#include "include/gemm_tile.glsl"

layout(push_constant, std430) uniform Push {
    uvec2 c;
    uvec2 a;
    uvec2 b;
    uint m;
    uint n;
    uint k;
};

void main() {
    uint tile = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    if (!tile_exists(tile, m, n, k)) {
        return;
    }
    uint row = tile / (n / TILE_COLS) * TILE_ROWS + gl_LocalInvocationIndex / 8u * ROWS;
    uint col = tile % (n / TILE_COLS) * TILE_COLS + gl_LocalInvocationIndex % 8u * 4u;
    vec4 acc[ROWS];
    uvec2 left[ROWS];
    for (uint r = 0u; r < ROWS; r++) {
        acc[r] = vec4(0.0);
        left[r] = address_of(a, (row + r) * k, 2u);
    }
    tile_part(left, address_of(b, col, 2u), n, k, acc);
    for (uint r = 0u; r < ROWS; r++) {
        Vec4s(address_of(c, (row + r) * n + col, 2u)).at[0] = acc[r];
    }
}
