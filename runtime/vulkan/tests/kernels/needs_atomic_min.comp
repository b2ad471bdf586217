// Refused: a capability that is never turned on (float minimum by atomics).
#version 450
#extension GL_EXT_shader_atomic_float2 : require
layout(local_size_x = 1) in;
layout(std430, set = 0, binding = 0) buffer B { float b; };
void main() { atomicMin(b, 1.0); }
