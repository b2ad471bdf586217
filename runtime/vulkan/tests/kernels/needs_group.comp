// Refused: more invocations than any device has.
#version 450
layout(local_size_x = 64, local_size_y = 64, local_size_z = 64) in;
layout(std430, set = 0, binding = 0) buffer B { float b[]; };
void main() { b[gl_LocalInvocationIndex] = 1.0; }
