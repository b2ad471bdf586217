#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// z = x + s * y for n floats at plain device addresses: what paged_triad is compared with.
#include "include/arrays.glsl"
#include "include/triad.glsl"

layout(push_constant, std430) uniform Push {
    uvec2 x;
    uvec2 y;
    uvec2 z;
    float s;
    uint n;
};

void main() {
    uint tile = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    uint first = tile * TILE;
    if (tile <= n / TILE && first < n) {
        triad_tile(address_of(x, first, 2u), address_of(y, first, 2u), address_of(z, first, 2u), s, min(TILE, n - first));
    }
}
