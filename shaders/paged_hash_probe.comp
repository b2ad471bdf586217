#version 460
#extension GL_GOOGLE_include_directive : require
// to[i] = the value of keys[i] in a hash table, or 0xffffffff: ranges to, keys, table. The table has `slots` pairs of key and value, a
// power of two; a key lies at its hash or behind it, before the first pair whose key is 0xffffffff. A group does 64 keys, each on its own.
#define VKHMM_PUSH uint n; uint slots;
#define VKHMM_ITEMS 64
#include "vkhmm.glsl"
layout(local_size_x = 64) in;
layout(buffer_reference, buffer_reference_align = 8, std430) buffer Pairs { uvec2 at[]; };

const uint NONE = 0xffffffffu;
const uint PROBES = 4096u;

uint hash(uint key) {
    key = (key ^ (key >> 16)) * 0x85ebca6bu;
    key = (key ^ (key >> 13)) * 0xc2b2ae35u;
    return key ^ (key >> 16);
}

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    VkhmmRange to = vkhmm_range(0u, 2u, VKHMM_WRITE), keys = vkhmm_range(1u, 2u, VKHMM_READ);
    VkhmmRange table = vkhmm_range(2u, 3u, VKHMM_READ);
    uint first = vkhmm_group() * 64u, lane = gl_LocalInvocationIndex;
    uint count = first < n ? min(64u, n - first) : 0u;
    vkhmm_want(keys, first, count);
    vkhmm_want(to, first, count);
    if (vkhmm_missed()) {
        return;
    }
    if (lane < count && vkhmm_item_begin(lane)) {
        uint key = VkhmmUints(vkhmm_at(keys, first + lane)).at[0];
        uint slot = hash(key) & (slots - 1u), value = NONE;
        bool there = true;
        for (uint probe = 0u; probe < PROBES; probe++) {
            uvec2 at;
            there = vkhmm_try(table, slot, at);
            uvec2 pair = uvec2(NONE);
            if (there) {
                pair = Pairs(at).at[0];
            }
            if (pair.x == key || pair.x == NONE) {
                value = pair.x == key ? pair.y : NONE;
                break;
            }
            slot = (slot + 1u) & (slots - 1u);
        }
        if (there) {
            VkhmmUints(vkhmm_at(to, first + lane)).at[0] = value;
            vkhmm_item_done(lane);
        }
    }
    vkhmm_items_end();
}
