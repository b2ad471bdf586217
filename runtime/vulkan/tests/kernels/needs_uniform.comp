// Refused: a uniform buffer.
#version 450
layout(local_size_x = 1) in;
layout(set = 0, binding = 0) uniform U { float scale; };
layout(std430, set = 0, binding = 1) buffer B { float b[]; };
void main() { b[0] = scale; }
