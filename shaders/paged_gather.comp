#version 460
#extension GL_GOOGLE_include_directive : require
// to[i] = source[index[i]] for n words of managed memory, resident or not: ranges to, index, source; a group does 8,192, each on its own.
#define VKHMM_PUSH uint n;
#define VKHMM_ITEMS 8192
#include "vkhmm.glsl"
#include "include/arrays.glsl"

#include "include/gather.glsl"

VkhmmRange source;
// Where it begins, if all of it is there in one piece.
uvec2 base;

bool find(uint place, out uvec2 at) {
    return vkhmm_look(source, place, at);
}

bool find_flat(uint place, out uvec2 at) {
    at = address_of(base, place, 2u);
    return place < source.count;
}

GATHER_WORD(gather_word, find)
GATHER_WORD(gather_word_flat, find_flat)

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange to = vkhmm_range(0u, 2u, VKHMM_WRITE), index = vkhmm_range(1u, 2u, VKHMM_READ);
    uint first = vkhmm_group() * TILE;
    uint count = first < n ? min(TILE, n - first) : 0u;
    vkhmm_want(index, first, count);
    vkhmm_want(to, first, count);
    if (vkhmm_missed()) {
        return;
    }
    source = vkhmm_range(2u, 2u, VKHMM_READ);
    bool in_one = vkhmm_flat(source, 64u, base);
    uvec2 from, into;
    if (count != 0u) {
        from = vkhmm_at(index, first);
        into = vkhmm_at(to, first);
    }
    // Of each word, what has to be asked for: what was absent, and one of what was there, so that the host knows what is much in use.
    uvec4 ask = uvec4(0u);
    for (uint k = 0u; k < 4u; k++) {
        uint word = k * 64u + gl_LocalInvocationIndex;
        uint open = vkhmm_items_begin(word);
        uint done;
        if (in_one) {
            done = gather_word_flat(from, into, word, open, count);
        } else {
            done = gather_word(from, into, word, open, count);
        }
        vkhmm_items_done(word, done);
        ask[k] = open & ~done;
        ask.x |= k == 0u ? done & (0u - done) : 0u;
    }
    while (ask != uvec4(0u)) {
        uint k = ask.x != 0u ? 0u : ask.y != 0u ? 1u : ask.z != 0u ? 2u : 3u;
        uint i = gather_first(k * 64u + gl_LocalInvocationIndex) + uint(findLSB(ask[k])) * 64u;
        if (i < count) {
            vkhmm_want(source, Uints(from).at[i], 1u);
        }
        ask[k] &= ask[k] - 1u;
    }
    vkhmm_items_end();
}
