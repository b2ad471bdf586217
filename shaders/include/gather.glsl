// to[i] = source[index[i]] for the 2,048 elements of a group, 32 for each of its 64 invocations. Of invocation l the bit b stands for
// element 64 * b + l. Who includes this says how an element of the source is found: FIND(index, at), true if it is there.
layout(local_size_x = 64) in;

const uint TILE = 2048u;

// Those of `open` that were done.
uint gather_open(uvec2 index, uvec2 to, uint open, uint count) {
    uint done = 0u;
    for (uint b = 0u; b < 32u; b++) {
        uint i = b * 64u + gl_LocalInvocationIndex;
        if ((open >> b & 1u) != 0u && i < count) {
            uvec2 at;
            if (FIND(Uints(index).at[i], at)) {
                Uints(to).at[i] = Uints(at).at[0];
                done |= 1u << b;
            }
        }
    }
    return done;
}
