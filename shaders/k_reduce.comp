#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// One result for each 4096 elements: a group of 64 takes them, each invocation every 64th, then they fold in a fixed order. Again and
// again until one is left. Nothing says how long the arrays are: vkhmm::kernels has checked it.
#include "include/grid.glsl"
#include "include/arrays.glsl"

layout(constant_id = 0) const uint OP = 0u;
const uint SUM = 0u;
const uint MAX = 1u;
const uint ARG_MIN = 2u; // of elements: results are pairs of value and index
const uint ARG_MIN_PAIRS = 3u; // of such pairs
const uint DOT = 4u;

const uint EACH = 64u; // elements of an invocation

layout(push_constant, std430) uniform Push {
    uvec2 x;
    uvec2 y;
    uvec2 to;
    uint n;
    uint first; // index of the first element
    uint last;  // of ARG_MIN: whether the result is the index alone
};

shared float values[GROUP_ITEMS];
shared uint indices[GROUP_ITEMS];

const float INFINITY = uintBitsToFloat(0x7f800000u);
const uint NONE = 0xffffffffu;

// Whether (value, index) comes before: what is not a number never does.
bool before(float value, uint index, float than, uint at) {
    return value < than || (value == than && index < at);
}

void main() {
    uint item = grid_start();
    uint lane = gl_LocalInvocationIndex;
    uint group = item / GROUP_ITEMS;
    uint from = saturating_product(group, GROUP_ITEMS * EACH);
    // The same for the whole group. The first one has a result also of nothing.
    if (item == NONE || (from >= n && group > 0u)) {
        return;
    }
    bool arg = OP == ARG_MIN || OP == ARG_MIN_PAIRS;
    float value = OP == MAX ? -INFINITY : arg ? INFINITY : 0.0;
    uint index = NONE;
    uint left = n - from;
    for (uint k = 0u; k < EACH; k++) {
        if (k * GROUP_ITEMS + lane >= left) {
            break;
        }
        uint i = from + k * GROUP_ITEMS + lane;
        if (OP == SUM) {
            value += Floats(x).at[i];
        } else if (OP == DOT) {
            value += Floats(x).at[i] * Floats(y).at[i];
        } else if (OP == MAX) {
            float other = Floats(x).at[i];
            value = other > value ? other : value;
        } else {
            float other = Floats(x).at[OP == ARG_MIN ? i : 2u * i];
            uint at = OP == ARG_MIN ? first + i : Uints(x).at[2u * i + 1u];
            if (before(other, at, value, index)) {
                value = other;
                index = at;
            }
        }
    }
    values[lane] = value;
    indices[lane] = index;
    for (uint width = GROUP_ITEMS / 2u; width > 0u; width /= 2u) {
        barrier();
        if (lane < width) {
            float other = values[lane + width];
            if (arg) {
                if (before(other, indices[lane + width], values[lane], indices[lane])) {
                    values[lane] = other;
                    indices[lane] = indices[lane + width];
                }
            } else if (OP == MAX) {
                values[lane] = other > values[lane] ? other : values[lane];
            } else {
                values[lane] += other;
            }
        }
    }
    if (lane == 0u) {
        if (!arg) {
            Floats(to).at[group] = values[0];
        } else if (last != 0u) {
            Uints(to).at[0] = indices[0];
        } else {
            Floats(to).at[2u * group] = values[0];
            Uints(to).at[2u * group + 1u] = indices[0];
        }
    }
}
