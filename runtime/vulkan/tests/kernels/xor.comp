// words[i] ^= word, grid-stride: the kernel that the port's conformance suite launches.
#version 450
layout(local_size_x = 64) in;
layout(std430, set = 0, binding = 0) buffer Words { uint words[]; };
layout(push_constant) uniform Push { uint count; uint word; };
void main() {
    uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint i = gl_GlobalInvocationID.x; i < count; i += stride) words[i] ^= word;
}
