#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// y = A x, or y += A x, for rows of a sparse matrix in compressed rows, of which the elements from..to are here. One invocation per
// row; a group's long rows are taken by all of it, one after the other. The arrays' lengths are checked by vkhmm::kernels; what
// row_start and columns say is checked here.
#include "include/grid.glsl"
#include "include/arrays.glsl"

layout(push_constant, std430) uniform Push {
    uvec2 row_start;
    uvec2 columns;
    uvec2 values;
    uvec2 x;
    uvec2 y;
    uint rows;
    uint cols;
    uint from;
    uint to;
    uint add;
};

const uint LONG = 128u; // elements of a row that one invocation takes
const uint UNROLLED = 4u;

shared uint starts[GROUP_ITEMS];
shared uint ends[GROUP_ITEMS];
shared float sums[GROUP_ITEMS];

float product(uint e) {
    uint column = Uints(columns).at[e - from];
    return column < cols ? Floats(values).at[e - from] * Floats(x).at[column] : 0.0;
}

void main() {
    uint lane = gl_LocalInvocationIndex;
    uint row = grid_start();
    bool mine = row < rows;
    uint start = 0u, end = 0u;
    if (mine) {
        start = clamp(Uints(row_start).at[row], from, to);
        end = clamp(Uints(row_start).at[row + 1u], start, to);
    }
    bool together = end - start > LONG;
    starts[lane] = together ? start : 0u;
    ends[lane] = together ? end : 0u;
    float sum = 0.0;
    if (!together) {
        for (uint e = start; e < end; e++) {
            sum += product(e);
        }
    }
    barrier();
    for (uint other = 0u; other < GROUP_ITEMS; other++) {
        uint first = starts[other], count = ends[other] - first;
        if (count == 0u) {
            continue; // the same for the whole group
        }
        float part = 0.0;
        for (uint e = lane; e < count; e += UNROLLED * GROUP_ITEMS) {
            for (uint k = 0u; k < UNROLLED; k++) {
                if (k * GROUP_ITEMS < count - e) {
                    part += product(first + e + k * GROUP_ITEMS);
                }
            }
        }
        sums[lane] = part;
        for (uint width = GROUP_ITEMS / 2u; width > 0u; width /= 2u) {
            barrier();
            if (lane < width) {
                sums[lane] += sums[lane + width];
            }
        }
        barrier();
        if (lane == other) {
            sum = sums[0];
        }
        barrier();
    }
    if (mine) {
        Floats(y).at[row] = add != 0u ? Floats(y).at[row] + sum : sum;
    }
}
