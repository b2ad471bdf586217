// Device addresses as arrays, for kernels that take addresses from where they like: bodies that stand once, with and without vkhmm.
layout(buffer_reference, buffer_reference_align = 4, std430) buffer Uints { uint at[]; };
layout(buffer_reference, buffer_reference_align = 4, std430) buffer Floats { float at[]; };
layout(buffer_reference, buffer_reference_align = 16, std430) buffer Vec4s { vec4 at[]; };

// The address of element `index`, of 2^log2 bytes.
uvec2 address_of(uvec2 base, uint index, uint log2) {
    uint carry;
    uint low = uaddCarry(base.x, index << log2, carry);
    return uvec2(low, base.y + (log2 == 0u ? 0u : index >> (32u - log2)) + carry);
}
