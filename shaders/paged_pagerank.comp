#version 460
#extension GL_GOOGLE_include_directive : require
// One step of PageRank, by the edges that lead to a vertex: ranges rank, share_out, offsets (vertices + 1), sources, share, degree. rank is
// base + damping * (the sum of `share` over its sources), share_out is rank / degree, and 0 where nothing leads on. A group does 64
// vertices, each on its own, with up to 262,000 sources.
#define VKHMM_PUSH uint vertices; float base; float damping;
#define VKHMM_ITEMS 64
#include "vkhmm.glsl"
layout(local_size_x = 64) in;

VkhmmRange sources, share;

// Adds the share along an edge, which is there; whether the share is, too.
bool add(uint e, uint end, inout float sum) {
    if (e >= end) {
        return true;
    }
    uvec2 at;
    bool there = vkhmm_look(share, VkhmmUints(vkhmm_at(sources, e)).at[0], at);
    if (there) {
        sum += VkhmmFloats(at).at[0];
    }
    return there;
}

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange rank = vkhmm_range(0u, 2u, VKHMM_WRITE), share_out = vkhmm_range(1u, 2u, VKHMM_WRITE);
    VkhmmRange offsets = vkhmm_range(2u, 2u, VKHMM_READ), degree = vkhmm_range(5u, 2u, VKHMM_READ);
    uint first = vkhmm_group() * 64u, lane = gl_LocalInvocationIndex, vertex = first + lane;
    uint count = first < vertices ? min(64u, vertices - first) : 0u;
    vkhmm_want(rank, first, count);
    vkhmm_want(share_out, first, count);
    vkhmm_want(degree, first, count);
    vkhmm_want(offsets, first, count == 0u ? 0u : count + 1u);
    if (vkhmm_missed()) {
        return;
    }
    sources = vkhmm_range(3u, 2u, VKHMM_READ);
    share = vkhmm_range(4u, 2u, VKHMM_READ);
    if (lane < count && vkhmm_item_begin(lane)) {
        uint from = VkhmmUints(vkhmm_at(offsets, vertex)).at[0], end = VkhmmUints(vkhmm_at(offsets, vertex + 1u)).at[0];
        float sum = 0.0;
        // The edges first, so that what is run in vain is short.
        vkhmm_want(sources, from, end - from);
        bool edges_there = !vkhmm_missed(), all = edges_there;
        for (uint e = from; edges_there && e < end; e += 4u) {
            all = add(e, end, sum) && all;
            all = add(e + 1u, end, sum) && all;
            all = add(e + 2u, end, sum) && all;
            all = add(e + 3u, end, sum) && all;
        }
        if (all) {
            uint leads = VkhmmUints(vkhmm_at(degree, vertex)).at[0];
            float now = base + damping * sum;
            VkhmmFloats(vkhmm_at(rank, vertex)).at[0] = now;
            VkhmmFloats(vkhmm_at(share_out, vertex)).at[0] = leads == 0u ? 0.0 : now / float(leads);
            vkhmm_item_done(lane);
        }
        // What was absent; and of what was there the first, so that the host knows what is much in use.
        for (uint e = from; edges_there && e < (all ? min(from + 1u, end) : end); e++) {
            vkhmm_want(share, VkhmmUints(vkhmm_at(sources, e)).at[0], 1u);
        }
    }
    vkhmm_items_end();
}
