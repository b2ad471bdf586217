#version 460
#extension GL_GOOGLE_include_directive : require
// to[i] = source[index[i]] for n words of managed memory, resident or not: ranges to, index, source; a group does 2,048, each on its own.
#define VKHMM_PUSH uint n;
#define VKHMM_ITEMS 2048
#include "vkhmm.glsl"
#include "include/arrays.glsl"

VkhmmRange source;

bool find(uint place, out uvec2 at) {
    return vkhmm_try(source, place, 2u, VKHMM_READ, at);
}

#define FIND find
#include "include/gather.glsl"

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange to = vkhmm_range(0u), index = vkhmm_range(1u);
    uint first = vkhmm_group() * TILE;
    uint count = first < n ? min(TILE, n - first) : 0u;
    vkhmm_want(index, first, count, 2u, VKHMM_READ);
    vkhmm_want(to, first, count, 2u, VKHMM_WRITE);
    if (vkhmm_missed()) {
        return;
    }
    source = vkhmm_range(2u);
    uint open = count == 0u ? 0u : vkhmm_items_begin(gl_LocalInvocationIndex);
    if (open != 0u) {
        uint done = gather_open(vkhmm_at(index, first, 2u), vkhmm_at(to, first, 2u), open, count);
        vkhmm_items_done(gl_LocalInvocationIndex, done);
    }
    vkhmm_items_end();
}
