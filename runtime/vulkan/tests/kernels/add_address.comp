// p[i] += value through a device address, which comes as two 32-bit words.
#version 450
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
layout(local_size_x = 64) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint words[]; };
layout(push_constant) uniform Push { uvec2 target; uint count; uint value; };
void main() {
    uint i = gl_GlobalInvocationID.x;
    if (i < count) Words(target).words[i] += value;
}
