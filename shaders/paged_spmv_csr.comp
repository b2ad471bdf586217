#version 460
#extension GL_GOOGLE_include_directive : require
// y = A * x, A sparse in CSR: ranges y, offsets (rows + 1), columns, values, x. A group does 64 rows, each on its own; a row of up to
// 262,000 elements.
#define VKHMM_PUSH uint rows;
#define VKHMM_ITEMS 64
#include "vkhmm.glsl"
layout(local_size_x = 64) in;

VkhmmRange columns, values, x;

// Adds one product, of an element that is there; whether its factor is, too.
bool add(uint e, uint end, inout float sum) {
    if (e >= end) {
        return true;
    }
    uvec2 at;
    bool there = vkhmm_look(x, VkhmmUints(vkhmm_at(columns, e)).at[0], at);
    if (there) {
        sum += VkhmmFloats(vkhmm_at(values, e)).at[0] * VkhmmFloats(at).at[0];
    }
    return there;
}

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange y = vkhmm_range(0u, 2u, VKHMM_WRITE), offsets = vkhmm_range(1u, 2u, VKHMM_READ);
    uint first = vkhmm_group() * 64u, lane = gl_LocalInvocationIndex, row = first + lane;
    uint count = first < rows ? min(64u, rows - first) : 0u;
    vkhmm_want(y, first, count);
    vkhmm_want(offsets, first, count == 0u ? 0u : count + 1u);
    if (vkhmm_missed()) {
        return;
    }
    columns = vkhmm_range(2u, 2u, VKHMM_READ);
    values = vkhmm_range(3u, 2u, VKHMM_READ);
    x = vkhmm_range(4u, 2u, VKHMM_READ);
    if (lane < count && vkhmm_item_begin(lane)) {
        uint from = VkhmmUints(vkhmm_at(offsets, row)).at[0], end = VkhmmUints(vkhmm_at(offsets, row + 1u)).at[0];
        float sum = 0.0;
        // The row first, so that what is run in vain is short.
        vkhmm_want(values, from, end - from);
        vkhmm_want(columns, from, end - from);
        bool row_there = !vkhmm_missed(), all = row_there;
        for (uint e = from; row_there && e < end; e += 4u) {
            all = add(e, end, sum) && all;
            all = add(e + 1u, end, sum) && all;
            all = add(e + 2u, end, sum) && all;
            all = add(e + 3u, end, sum) && all;
        }
        if (all) {
            VkhmmFloats(vkhmm_at(y, row)).at[0] = sum;
            vkhmm_item_done(lane);
        }
        // What was absent; and of what was there the first, so that the host knows what is much in use.
        for (uint e = from; row_there && e < (all ? min(from + 1u, end) : end); e++) {
            vkhmm_want(x, VkhmmUints(vkhmm_at(columns, e)).at[0], 1u);
        }
    }
    vkhmm_items_end();
}
