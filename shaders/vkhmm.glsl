// vkhmm.glsl: kernels that may touch anything of the ranges they are given, resident or not. What such a kernel really touches moves
// to the device by itself; a launch of it is run in rounds, each with the groups that are not done yet, until all are.
//
//     #version 460
//     #extension GL_GOOGLE_include_directive : require
//     #define VKHMM_PUSH float a; uint n;              // what you push, behind what vkhmm pushes
//     #include "vkhmm.glsl"
//     layout(local_size_x = 64) in;
//
// A range is an argument of the launch, numbered from 0 in the order of the arguments. It is opened as elements of a size, given by the
// logarithm of their bytes (float: 2, vec4: 4), and for what they are used. Addresses are plain ones: cast them to a buffer reference.
//
// THE FIRST PROTOCOL: ask, vote, then do. For kernels that know what they touch from the number of their group.
//
//     void main() {
//         if (!vkhmm_begin()) return;
//         VkhmmRange x = vkhmm_range(0u, 2u, VKHMM_READ | VKHMM_WRITE);
//         uint first = vkhmm_group() * 16384u;
//         vkhmm_want(x, first, 16384u);                    // a run of elements
//         if (!vkhmm_vote_uniform()) return;               // nothing is stored before this line
//         uvec2 at = vkhmm_at(x, first);                   // good to the end of the block; see VkhmmRun
//         for (uint i = gl_LocalInvocationIndex; i < 16384u; i += 64u) VkhmmFloats(at).at[i] *= a;
//     }
//
// Ask for all that the group will load or store, then vote. If anything of it is absent, the whole group does nothing, and runs again in
// a later round. vkhmm_vote_uniform() is for groups whose invocations all ask for the same; vkhmm_vote() for any others (two barriers).
// Resolve an address once per 64 KiB run or row of a tile: the loops then cost what they cost without vkhmm.
//
// THE SECOND PROTOCOL: go on by items. For kernels that learn from what they load where to look next.
//
//     #define VKHMM_ITEMS 64                           // items of a group, before the include
//     void main() {
//         if (!vkhmm_begin()) return;
//         VkhmmRange next = vkhmm_range(0u, 2u, VKHMM_READ), found = vkhmm_range(1u, 2u, VKHMM_WRITE);
//         uint item = gl_LocalInvocationIndex, start = vkhmm_group() * 64u + item;
//         uvec2 at, to;
//         if (vkhmm_item_begin(item) && vkhmm_try(next, start, at)) {
//             uint where = VkhmmUints(at).at[0];
//             if (vkhmm_try(next, where, at) && vkhmm_try(found, start, to)) {
//                 VkhmmUints(to).at[0] = VkhmmUints(at).at[0];
//                 vkhmm_item_done(item);
//             }
//         }
//         vkhmm_items_end();                           // every invocation of the group
//     }
//
// An item is begun anew in each round until it is done. It stores nothing before its last try, but for what may be stored twice. What
// the group needs as a whole may be asked for before the items: vkhmm_want, the same by all invocations, then
// `if (vkhmm_missed()) return;`. In long loops vkhmm_look is cheaper than vkhmm_try, and vkhmm_items_begin than vkhmm_item_begin.
//
// WHAT CANNOT BE RUN AGAIN, and so belongs behind the vote or behind the last try of an item:
//  * stores to what the same group or item loads (x[i] *= 2 on one page, a miss on the next: doubled twice);
//  * atomics, but for those that may happen twice: min, max, and, or with the same operand;
//  * places in a queue, counters, random numbers drawn from a shared state, time;
//  * barriers among invocations of which some have returned: only vkhmm_begin, a vote, and what was asked alike by all are alike for all.
// And what cannot work at all: waiting for other groups (they may not run in this round), a group or an item whose pages exceed the
// device at once (the launch ends with WorkingSetTooLarge), an index beyond its range or a store to what was given for reading (counted;
// the group does nothing, the launch fails), addresses kept from one launch to the next.
//
// Portable: Vulkan 1.2 with buffer device addresses; no 64-bit integers, no subgroups. Ranges of fewer than 2^32 elements, of any size. What host and
// kernels agree on is in runtime/core/paging/layout.rs.
#ifndef VKHMM_GLSL
#define VKHMM_GLSL
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_KHR_memory_scope_semantics : require

// Says that the module is a paged kernel, and of which version: the host looks for it. Not to be set.
layout(constant_id = 1896) const uint VKHMM_VERSION = 1u;
#ifdef VKHMM_ITEMS
// Says how many items a group has. Not to be set.
layout(constant_id = 1897) const uint VKHMM_GROUP_ITEMS = VKHMM_ITEMS;
#endif

// What an element is asked for; both may be.
const uint VKHMM_READ = 1u;
const uint VKHMM_WRITE = 2u;

#ifndef VKHMM_PUSH
#define VKHMM_PUSH
#endif
layout(push_constant, std430) uniform VkhmmPush {
    uvec2 vkhmm_launch;
    VKHMM_PUSH
};

// An address as an array. Others are declared likewise; the alignment must be that of the elements.
layout(buffer_reference, buffer_reference_align = 4, std430) buffer VkhmmUints { uint at[]; };
layout(buffer_reference, buffer_reference_align = 4, std430) buffer VkhmmFloats { float at[]; };
layout(buffer_reference, buffer_reference_align = 16, std430) buffer VkhmmUvec4s { uvec4 at[]; };
layout(buffer_reference, buffer_reference_align = 16, std430) buffer VkhmmVec4s { vec4 at[]; };
// What only the host writes, and never while a kernel runs.
layout(buffer_reference, buffer_reference_align = 16, std430) readonly buffer VkhmmFixed { uvec4 at[]; };
layout(buffer_reference, buffer_reference_align = 4, std430) readonly buffer VkhmmIds { uint at[]; };

// A range as elements of one size, for one use. Open it once, outside of loops.
struct VkhmmRange {
    uvec2 table;
    uint count;        // of elements; 0 if they may not be used so
    uint log2;         // of an element's bytes
    uint access;
    uint sub_shift;    // log2 of a sub-block's elements
    uint block_shift;  // log2 of a block's sub-blocks
    uvec2 missing;
    uvec2 touched;
    uint plane;
    uint number;
};

// Elements in one piece of device memory, here with element `first`, there are `count`.
struct VkhmmRun {
    uvec2 at;
    uint first;
    uint count;
};

// Of this invocation.
uvec4 vkhmm_head;
uint vkhmm_number;
bool vkhmm_absent;
#ifdef VKHMM_ITEMS
uvec2 vkhmm_items;
#endif
// Of the group.
shared uint vkhmm_votes;
shared uint vkhmm_holes;

#define VKHMM_PEEK(word) atomicLoad(word, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed)

uvec4 vkhmm_record(uint quad) {
    return VkhmmFixed(vkhmm_launch).at[quad];
}

// First of all: false where this group has nothing to do, the same for the whole group; then return at once.
bool vkhmm_begin() {
    vkhmm_head = vkhmm_record(0u);
    vkhmm_absent = false;
    uint place = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    if (vkhmm_head.x != 0x67617000u + VKHMM_VERSION || gl_WorkGroupID.z != 0u || place >= vkhmm_head.z) {
        return false;
    }
    vkhmm_number = VkhmmIds(vkhmm_record(2u).xy).at[place];
#ifdef VKHMM_ITEMS
    vkhmm_items = vkhmm_record(4u).xy;
#endif
    return true;
}

// The group's number in the grid of the launch; gl_WorkGroupID says nothing here.
uint vkhmm_group() {
    return vkhmm_number;
}

// The group's place in the grid of the launch.
uvec3 vkhmm_group_id() {
    uvec3 grid = vkhmm_record(1u).xyz;
    uint row = vkhmm_number / grid.x;
    return uvec3(vkhmm_number - row * grid.x, row % grid.y, row / grid.y);
}

// The range that is argument `number` of the launch, as elements of 2^log2 bytes (65,536 at most), to be loaded, stored or both. If it
// is none, or was not given for that, it has no elements.
VkhmmRange vkhmm_range(uint number, uint log2, uint access) {
    if (number >= vkhmm_head.y) {
        return VkhmmRange(uvec2(0u), 0u, log2, access, 0u, 0u, uvec2(0u), uvec2(0u), 0u, number);
    }
    uvec4 a = vkhmm_record(5u + number * 3u), b = vkhmm_record(6u + number * 3u), c = vkhmm_record(7u + number * 3u);
    uint count = a.w >> log2 != 0u ? 0xffffffffu : (a.z >> log2) | (log2 == 0u ? 0u : a.w << (32u - log2));
    return VkhmmRange(a.xy, (access & ~c.w) == 0u ? count : 0u, log2, access, b.x - log2, b.y, b.zw, c.xy, c.z, number);
}

// Of the two words of bits that an entry has, the one that counts.
uint vkhmm_there(VkhmmRange range, uvec4 entry) {
    return (range.access & VKHMM_WRITE) != 0u ? entry.w : entry.z;
}

// Sets bits of a word of each plane that the access is for; those that were not set in some plane.
uint vkhmm_mark(uvec2 planes, uint plane, uint word, uint bits, uint access) {
    VkhmmUints at = VkhmmUints(planes);
    uint fresh = 0u;
    // Looked at first: nearly always it is set, and then nobody has to wait for the word.
    if ((access & VKHMM_READ) != 0u && (VKHMM_PEEK(at.at[word]) & bits) != bits) {
        fresh = bits & ~atomicOr(at.at[word], bits);
    }
    if ((access & VKHMM_WRITE) != 0u && (VKHMM_PEEK(at.at[plane + word]) & bits) != bits) {
        fresh |= bits & ~atomicOr(at.at[plane + word], bits);
    }
    return fresh;
}

// Records that a sub-block is absent: the first who says so in the list, too, if it has room. The bit is never lost.
void vkhmm_miss(VkhmmRange range, uint sub) {
    vkhmm_absent = true;
    if (vkhmm_mark(range.missing, range.plane, sub >> 5, 1u << (sub & 31u), range.access) != 0u) {
        uvec2 feedback = vkhmm_record(2u).zw;
        uint place = atomicAdd(VkhmmUints(feedback).at[0], 1u);
        if (place < vkhmm_record(3u).x) {
            VkhmmUvec4s(feedback).at[1u + place] = uvec4(range.number, sub, vkhmm_number, range.access);
        }
    }
}

// Asks for `count` elements from `first` on. What is absent is recorded, and then neither vote nor item succeeds.
void vkhmm_want(VkhmmRange range, uint first, uint count) {
    if (count == 0u) {
        return;
    }
    if (first >= range.count || count > range.count - first) {
        vkhmm_absent = true;
        atomicAdd(VkhmmUints(vkhmm_record(2u).zw).at[1], 1u);
        return;
    }
    uint sub = first >> range.sub_shift, end = (first + (count - 1u)) >> range.sub_shift;
    uint in_block = (1u << range.block_shift) - 1u;
    for (bool more = true; more;) {
        // As far as the block goes.
        uint stop = min(end, sub | in_block);
        uint block = sub >> range.block_shift, base = block << range.block_shift;
        uint wanted = (0xffffffffu >> (31u - (stop - sub))) << (sub & in_block);
        uint there = wanted & vkhmm_there(range, VkhmmFixed(range.table).at[block]);
        if (there != 0u) {
            vkhmm_mark(range.touched, range.plane, base >> 5, there << (base & 31u), range.access);
        }
        for (uint absent = wanted & ~there; absent != 0u; absent &= absent - 1u) {
            vkhmm_miss(range, base + uint(findLSB(absent)));
        }
        more = stop != end;
        sub = stop + 1u;
    }
}

// The same for a tile: `rows` times `count` elements, `apart` from each other. Where that is less than a sub-block, all between is meant.
void vkhmm_want_rows(VkhmmRange range, uint first, uint rows, uint apart, uint count) {
    uint high, low;
    umulExtended(max(rows, 1u) - 1u, apart, high, low);
    bool dense = apart <= 1u << range.sub_shift && high == 0u && low <= 0xffffffffu - count;
    for (uint row = 0u; row < (dense ? min(rows, 1u) : rows); row++) {
        vkhmm_want(range, first + row * apart, dense ? low + count : count);
    }
}

// Whether this invocation found anything absent.
bool vkhmm_missed() {
    return vkhmm_absent;
}

bool vkhmm_commit(bool all) {
    if (all && gl_LocalInvocationIndex == 0u) {
        atomicOr(VkhmmUints(vkhmm_record(3u).zw).at[vkhmm_number >> 5], 1u << (vkhmm_number & 31u));
    }
    return all;
}

// Whether the group may go on: all that its invocations asked for is there. Then it is done in this round: call it once. For groups
// whose invocations all asked for the same.
bool vkhmm_vote_uniform() {
    return vkhmm_commit(!vkhmm_absent);
}

// The same for any group. Every invocation must come here.
bool vkhmm_vote() {
    if (gl_LocalInvocationIndex == 0u) {
        vkhmm_votes = 0u;
    }
    barrier();
    if (vkhmm_absent) {
        atomicOr(vkhmm_votes, 1u);
    }
    barrier();
    return vkhmm_commit(vkhmm_votes == 0u);
}

// The run of an element that was asked for: from it on to the end of its block (2 MiB), then the next run is somewhere else.
VkhmmRun vkhmm_run(VkhmmRange range, uint index) {
    uint shift = range.sub_shift + range.block_shift;
    uint offset = index & ((1u << shift) - 1u), carry;
    uvec2 at = VkhmmFixed(range.table).at[index >> shift].xy;
    at.x = uaddCarry(at.x, offset << range.log2, carry);
    return VkhmmRun(uvec2(at.x, at.y + carry), index, (1u << shift) - offset);
}

// The address of an element that was asked for.
uvec2 vkhmm_at(VkhmmRange range, uint index) {
    return vkhmm_run(range, index).at;
}

// Whether one element is there, and then where. Tells nobody: who finds it absent asks for it by vkhmm_want, behind its loop.
bool vkhmm_look(VkhmmRange range, uint index, out uvec2 at) {
    at = uvec2(0u);
    if (index >= range.count) {
        return false;
    }
    uint shift = range.sub_shift + range.block_shift, carry;
    uvec4 entry = VkhmmFixed(range.table).at[index >> shift];
    at.x = uaddCarry(entry.x, (index & ((1u << shift) - 1u)) << range.log2, carry);
    at.y = entry.y + carry;
    uint sub = (index >> range.sub_shift) & ((1u << range.block_shift) - 1u);
    return (vkhmm_there(range, entry) >> sub & 1u) != 0u;
}

// Asks for one element: whether it is there, and then where.
bool vkhmm_try(VkhmmRange range, uint index, out uvec2 at) {
    vkhmm_want(range, index, 1u);
    return vkhmm_look(range, index, at);
}

// The largest range that vkhmm_flat looks at, in blocks.
const uint VKHMM_FLAT_BLOCKS = 4096u;

// Whether all of a range is there, in one piece: then element `index`, if it is below range.count, is at address `base` + index * its
// bytes, until the end of this dispatch. Every invocation of the group, which has so many, must come here (three barriers). For kernels
// that look up many elements: where everything fits, their loops then need no table. What they use is to be asked for all the same, now and then.
bool vkhmm_flat(VkhmmRange range, uint invocations, out uvec2 base) {
    uint shift = range.sub_shift + range.block_shift, blocks = range.count == 0u ? 0u : (range.count - 1u >> shift) + 1u;
    bool in_one = blocks != 0u && blocks <= VKHMM_FLAT_BLOCKS;
    base = in_one ? VkhmmFixed(range.table).at[0].xy : uvec2(0u);
    barrier();
    if (gl_LocalInvocationIndex == 0u) {
        vkhmm_holes = 0u;
    }
    barrier();
    for (uint block = gl_LocalInvocationIndex; in_one && block < blocks; block += invocations) {
        uvec4 entry = VkhmmFixed(range.table).at[block];
        uint subs = min((range.count - 1u >> range.sub_shift) - (block << range.block_shift), (1u << range.block_shift) - 1u);
        uint high, low, carry;
        umulExtended(block, 1u << (shift + range.log2), high, low);
        low = uaddCarry(base.x, low, carry);
        uint all = 0xffffffffu >> (31u - subs);
        in_one = entry.xy == uvec2(low, base.y + high + carry) && (vkhmm_there(range, entry) & all) == all;
    }
    if (!in_one) {
        atomicOr(vkhmm_holes, 1u);
    }
    barrier();
    return vkhmm_holes == 0u;
}

#ifdef VKHMM_ITEMS
// How many of the group's items before item `item` are not done.
uint vkhmm_items_before(uint item) {
    VkhmmUints done = VkhmmUints(vkhmm_items);
    uint before = 0u;
    for (uint at = vkhmm_number * VKHMM_GROUP_ITEMS, end = at + item; at != end;) {
        uint count = min(32u - (at & 31u), end - at);
        before += count - bitCount(VKHMM_PEEK(done.at[at >> 5]) >> (at & 31u) & (0xffffffffu >> (32u - count)));
        at += count;
    }
    return before;
}

// Whether item `item` of the group, below VKHMM_ITEMS, is to run now. If not, it is done, or has to wait.
bool vkhmm_item_begin(uint item) {
    uint bit = vkhmm_number * VKHMM_GROUP_ITEMS + item;
    if ((VKHMM_PEEK(VkhmmUints(vkhmm_items).at[bit >> 5]) >> (bit & 31u) & 1u) != 0u) {
        return false;
    }
    bool waits = vkhmm_head.w < VKHMM_GROUP_ITEMS && vkhmm_items_before(item) >= vkhmm_head.w;
    vkhmm_absent = vkhmm_absent || waits;
    return !waits;
}

// Item `item` is done, or had nothing to do, and is not begun again. One that is never said to be done keeps later ones waiting.
void vkhmm_item_done(uint item) {
    uint bit = vkhmm_number * VKHMM_GROUP_ITEMS + item;
    atomicOr(VkhmmUints(vkhmm_items).at[bit >> 5], 1u << (bit & 31u));
}

// Both for many: of the items 32 * word + (0 to 31), those that are to run now, a bit for each. VKHMM_ITEMS must be whole words.
uint vkhmm_items_begin(uint word) {
    uint at = vkhmm_number * (VKHMM_GROUP_ITEMS >> 5) + word;
    uint open = ~VKHMM_PEEK(VkhmmUints(vkhmm_items).at[at]);
    if (vkhmm_head.w < VKHMM_GROUP_ITEMS && open != 0u) {
        // The lowest so many.
        uint before = vkhmm_items_before(word << 5), room = vkhmm_head.w - min(before, vkhmm_head.w), rest = open;
        for (; room != 0u && rest != 0u; room--) {
            rest &= rest - 1u;
        }
        open &= ~rest;
        vkhmm_absent = vkhmm_absent || rest != 0u;
    }
    return open;
}

// Those of them that are done.
void vkhmm_items_done(uint word, uint bits) {
    if (bits != 0u) {
        atomicOr(VkhmmUints(vkhmm_items).at[vkhmm_number * (VKHMM_GROUP_ITEMS >> 5) + word], bits);
    }
}

// Last of all: every invocation of the group must come here. The group is done if nobody missed anything or has to wait.
void vkhmm_items_end() {
    vkhmm_vote();
}
#endif
#endif
