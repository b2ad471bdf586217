// Refused: eight kibibytes of push constants.
#version 450
layout(local_size_x = 1) in;
layout(std430, set = 0, binding = 0) buffer B { vec4 b[]; };
layout(push_constant) uniform Push { vec4 v[512]; };
void main() { b[0] = v[511]; }
