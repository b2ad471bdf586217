#version 460
#extension GL_GOOGLE_include_directive : require
// One level of a breadth-first search: ranges levels, offsets (vertices + 1), edges, found (one word). Every vertex at `depth` gives its
// neighbours depth + 1, unless they have less; `found` counts those that had more. A group does 64 vertices, each on its own; its
// invocations go through a few edges each alone, and through many together. The minimum may be taken twice, so it need not wait for the
// last try.
#define VKHMM_PUSH uint vertices; uint depth;
#define VKHMM_ITEMS 64
#include "vkhmm.glsl"

layout(local_size_x = 64) in;

const uint FEW = 64u;

// Vertices with many edges: which, and where their edges are.
shared uint longs;
shared uint vertex[64];
shared uint first[64];
shared uint count[64];
// A bit for each vertex of which something was absent.
shared uint absent[2];

VkhmmRange seen, levels, found, edges;

// What is absent is asked for; and some of what is there, so that the host knows what is much in use.
bool find(VkhmmRange range, uint index, bool ask, out uvec2 at) {
    bool there = vkhmm_look(range, index, at);
    if (!there || ask) {
        vkhmm_want(range, index, 1u);
    }
    return there;
}

// Goes along an edge, which is there. Whether it is done with.
bool visit(uint edge, bool ask) {
    uvec2 at, counter;
    uint to = VkhmmUints(vkhmm_at(edges, edge)).at[0];
    if (!find(seen, to, ask, at)) {
        return false;
    }
    // Others may store to it.
    if (VKHMM_PEEK(VkhmmUints(at).at[0]) <= depth + 1u) {
        return true;
    }
    if (!find(levels, to, ask, at) || !find(found, 0u, ask, counter)) {
        return false;
    }
    // Whoever comes again finds less: it counts once.
    if (atomicMin(VkhmmUints(at).at[0], depth + 1u) > depth + 1u) {
        atomicAdd(VkhmmUints(counter).at[0], 1u);
    }
    return true;
}

void main() {
    if (!vkhmm_begin()) {
        return;
    }
    seen = vkhmm_range(0u, 2u, VKHMM_READ);
    levels = vkhmm_range(0u, 2u, VKHMM_READ | VKHMM_WRITE);
    found = vkhmm_range(3u, 2u, VKHMM_READ | VKHMM_WRITE);
    VkhmmRange offsets = vkhmm_range(1u, 2u, VKHMM_READ);
    edges = vkhmm_range(2u, 2u, VKHMM_READ);
    uint own = gl_LocalInvocationIndex, v = vkhmm_group() * 64u + own;
    if (own < 2u) {
        longs = 0u;
        absent[own] = 0u;
    }
    barrier();
    uvec2 at, end;
    bool ready = false;
    if (v < vertices && vkhmm_item_begin(own) && find(seen, v, true, at)) {
        ready = VKHMM_PEEK(VkhmmUints(at).at[0]) != depth;
        if (!ready && find(offsets, v, true, at) && find(offsets, v + 1u, true, end)) {
            ready = true;
            uint start = VkhmmUints(at).at[0], degree = VkhmmUints(end).at[0] - start;
            vkhmm_want(edges, start, degree);
            if (vkhmm_missed()) {
                ready = false;
            } else if (degree > FEW) {
                uint place = atomicAdd(longs, 1u);
                vertex[place] = own;
                first[place] = start;
                count[place] = degree;
            } else {
                for (uint k = 0u; k < degree; k++) {
                    ready = visit(start + k, k == 0u) && ready;
                }
            }
        }
    }
    barrier();
    for (uint i = 0u; i < longs; i++) {
        bool all = true;
        for (uint k = own; k < count[i]; k += 64u) {
            all = visit(first[i] + k, k == 0u) && all;
        }
        if (!all) {
            atomicOr(absent[vertex[i] >> 5], 1u << (vertex[i] & 31u));
        }
    }
    barrier();
    if (ready && (absent[own >> 5] >> (own & 31u) & 1u) == 0u) {
        vkhmm_item_done(own);
    }
    vkhmm_items_end();
}
