// Refused: a mebibyte of shared memory.
#version 450
layout(local_size_x = 64) in;
layout(std430, set = 0, binding = 0) buffer B { float b[]; };
shared float tile[262144];
void main() { tile[gl_LocalInvocationIndex * 4096] = 1.0; barrier(); b[0] = tile[0]; }
