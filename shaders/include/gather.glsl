// to[i] = source[index[i]] for the 8,192 elements of a group, 128 for each of its 64 invocations, in words of 32 bits: bit b of word
// 64 * k + l, which is invocation l's, stands for element 2,048 * k + 64 * b + l.
layout(local_size_x = 64) in;

const uint TILE = 8192u;

// The first element of a word; the others follow 64 apart.
uint gather_first(uint word) {
    return word / 64u * 2048u + word % 64u;
}

// A function of that name: those of the word's elements that were done, of those that are `open`. FIND(index, at) says where an element
// of the source is, and whether it is there.
#define GATHER_WORD(name, FIND) \
    uint name(uvec2 index, uvec2 to, uint word, uint open, uint count) { \
        uint done = 0u, i = gather_first(word); \
        for (uint b = 0u; b < 32u; b++) { \
            if ((open >> b & 1u) != 0u) { \
                uvec2 at; \
                if (i >= count) { \
                    done |= 1u << b; \
                } else if (FIND(Uints(index).at[i], at)) { \
                    Uints(to).at[i] = Uints(at).at[0]; \
                    done |= 1u << b; \
                } \
            } \
            i += 64u; \
        } \
        return done; \
    }
