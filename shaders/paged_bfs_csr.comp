#version 460
#extension GL_GOOGLE_include_directive : require
// One level of a breadth-first search: ranges levels, offsets (vertices + 1), edges, found (one word). Every vertex at `depth` gives its
// neighbours depth + 1, unless they have less; `found` counts those that had more. A group does 64 vertices, and of each of them every
// invocation a 64th of the edges: that is its item. The minimum may be taken twice, so it need not wait for the last try.
#define VKHMM_PUSH uint vertices; uint depth;
#define VKHMM_ITEMS 64
#include "vkhmm.glsl"
layout(local_size_x = 64) in;

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange seen = vkhmm_range(0u, 2u, VKHMM_READ), levels = vkhmm_range(0u, 2u, VKHMM_READ | VKHMM_WRITE);
    VkhmmRange offsets = vkhmm_range(1u, 2u, VKHMM_READ), edges = vkhmm_range(2u, 2u, VKHMM_READ);
    VkhmmRange found = vkhmm_range(3u, 2u, VKHMM_READ | VKHMM_WRITE);
    uint first = vkhmm_group() * 64u, lane = gl_LocalInvocationIndex;
    uint count = first < vertices ? min(64u, vertices - first) : 0u;
    vkhmm_want(found, 0u, 1u);
    vkhmm_want(seen, first, count);
    vkhmm_want(offsets, first, count == 0u ? 0u : count + 1u);
    if (vkhmm_missed()) {
        return;
    }
    if (vkhmm_item_begin(lane)) {
        bool all = true;
        uint more = 0u;
        for (uint v = first; v < first + count; v++) {
            uint from = 0u, end = 0u;
            if (VKHMM_PEEK(VkhmmUints(vkhmm_at(seen, v)).at[0]) == depth) {
                from = VkhmmUints(vkhmm_at(offsets, v)).at[0] + lane;
                end = VkhmmUints(vkhmm_at(offsets, v + 1u)).at[0];
            }
            for (uint e = from; e < end; e += 64u) {
                uvec2 edge, at;
                if (!vkhmm_try(edges, e, edge)) {
                    all = false;
                    continue;
                }
                uint to = VkhmmUints(edge).at[0];
                if (!vkhmm_try(seen, to, at)) {
                    all = false;
                } else if (VKHMM_PEEK(VkhmmUints(at).at[0]) > depth + 1u) {
                    if (vkhmm_try(levels, to, at)) {
                        more += atomicMin(VkhmmUints(at).at[0], depth + 1u) > depth + 1u ? 1u : 0u;
                    } else {
                        all = false;
                    }
                }
            }
        }
        // What this run of the item has found, no other will.
        if (more != 0u) {
            atomicAdd(VkhmmUints(vkhmm_at(found, 0u)).at[0], more);
        }
        if (all) {
            vkhmm_item_done(lane);
        }
    }
    vkhmm_items_end();
}
