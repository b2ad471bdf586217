// Writes what it was specialised to: local size and one constant, in two sets with a gap between them.
#version 450
layout(local_size_x_id = 0) in;
layout(constant_id = 7) const uint VALUE = 1;
layout(std430, set = 0, binding = 0) buffer Out { uint result[]; };
layout(std430, set = 2, binding = 3) readonly buffer In { uint items[]; };
void main() {
    if (gl_GlobalInvocationID.x == 0) {
        result[0] = gl_WorkGroupSize.x;
        result[1] = VALUE;
        result[2] = uint(items.length());
    }
}
