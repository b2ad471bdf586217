// z = x + s * y for one tile of 64 KiB, by the 64 invocations of a group. Addresses are those of the tile, on 16 bytes.
layout(local_size_x = 64) in;

const uint TILE = 16384u;

void triad_tile(uvec2 x, uvec2 y, uvec2 z, float s, uint count) {
    uint quads = count / 4u;
    for (uint i = gl_LocalInvocationIndex; i < quads; i += 64u) {
        Vec4s(z).at[i] = Vec4s(x).at[i] + s * Vec4s(y).at[i];
    }
    uint i = quads * 4u + gl_LocalInvocationIndex;
    if (i < count) {
        Floats(z).at[i] = Floats(x).at[i] + s * Floats(y).at[i];
    }
}
