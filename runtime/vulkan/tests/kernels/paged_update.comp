// Doubles one word per invocation, far apart from each other, and counts the groups: neither may happen twice. Ranges words, counter.
#version 460
#extension GL_GOOGLE_include_directive : require
#define VKHMM_PUSH uint groups;
#include "vkhmm.glsl"
layout(local_size_x = 64) in;
void main() {
    if (!vkhmm_begin()) return;
    VkhmmRange words = vkhmm_range(0u, 2u, VKHMM_READ | VKHMM_WRITE);
    VkhmmRange counter = vkhmm_range(1u, 2u, VKHMM_READ | VKHMM_WRITE);
    uvec3 id = vkhmm_group_id();
    uint i = gl_LocalInvocationIndex * groups + vkhmm_group();
    vkhmm_want(words, i, 1u);
    // Not by all alike: the vote has to gather what each has found.
    if (gl_LocalInvocationIndex == 40u) vkhmm_want(counter, id.z, 1u);
    if (!vkhmm_vote()) return;
    VkhmmUints(vkhmm_at(words, i)).at[0] *= 2u;
    if (gl_LocalInvocationIndex == 0u) atomicAdd(VkhmmUints(vkhmm_at(counter, id.z)).at[0], 1u + id.x + id.y);
}
