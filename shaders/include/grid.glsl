// How a kernel of any grid walks n items, each exactly once: FOR_EACH_ITEM(i, n) { ... }.
// Work groups are numbered over x and y. Groups without a number of their own (z above 0, or so many that items would not fit
// 32 bits) do nothing, so no item is ever visited twice.
//
// A grid should cover its items, or nearly: lavapipe 22.3 ends every loop of an invocation, without a word, once its loops have
// gone round 65,535 times in all. Long work is cut into more invocations or more launches, not into longer loops.

const uint GROUP_ITEMS = 64;
const uint GRID_GROUPS_MAX = 0x03ffffffu;

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

// Product of two counts, or the largest uint where it does not fit.
uint saturating_product(uint a, uint b) {
    uint high, low;
    umulExtended(a, b, high, low);
    return high == 0u ? low : 0xffffffffu;
}

// Items between two items of one invocation.
uint grid_stride() {
    return min(saturating_product(gl_NumWorkGroups.x, gl_NumWorkGroups.y), GRID_GROUPS_MAX) * GROUP_ITEMS;
}

// The first item of this invocation; past every item where the group has no number.
uint grid_start() {
    uint row = saturating_product(gl_WorkGroupID.y, gl_NumWorkGroups.x);
    bool numbered = gl_WorkGroupID.z == 0u && row < GRID_GROUPS_MAX && gl_WorkGroupID.x < GRID_GROUPS_MAX - row;
    return numbered ? (row + gl_WorkGroupID.x) * GROUP_ITEMS + gl_LocalInvocationIndex : 0xffffffffu;
}

// The item after i, or n; never wraps.
uint grid_next(uint i, uint stride, uint n) {
    return n - i > stride ? i + stride : n;
}

#define FOR_EACH_ITEM(i, n) \
    for (uint i = grid_start(), i##_stride = grid_stride(); i < (n); i = grid_next(i, i##_stride, (n)))
