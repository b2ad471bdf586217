#version 460
#extension GL_GOOGLE_include_directive : require
// z = x + s * y for n floats of managed memory, resident or not: ranges z, x, y; a group does 16,384.
#define VKHMM_PUSH float s; uint n;
#include "vkhmm.glsl"
#include "include/arrays.glsl"
#include "include/triad.glsl"

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange z = vkhmm_range(0u, 2u, VKHMM_WRITE);
    VkhmmRange x = vkhmm_range(1u, 2u, VKHMM_READ), y = vkhmm_range(2u, 2u, VKHMM_READ);
    uint first = vkhmm_group() * TILE;
    uint count = first < n ? min(TILE, n - first) : 0u;
    vkhmm_want(x, first, count);
    vkhmm_want(y, first, count);
    vkhmm_want(z, first, count);
    if (vkhmm_vote_uniform() && count != 0u) {
        triad_tile(vkhmm_at(x, first), vkhmm_at(y, first), vkhmm_at(z, first), s, count);
    }
}
