#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
// Rows of a filtered plane: each element is the sum of the filter's elements times its neighbourhood, which the plane's border
// continues. One invocation per element. Sizes are checked by vkhmm::kernels.
#include "include/grid.glsl"
#include "include/arrays.glsl"

layout(set = 0, binding = 0, std430) readonly buffer Image { float image[]; };
layout(set = 0, binding = 1, std430) readonly buffer Filter { float taps[]; };
layout(push_constant, std430) uniform Push {
    uvec2 to;
    uint row0;      // the first row to compute
    uint rows;      // so many
    uint height;    // of the whole plane
    uint width;
    uint image_row; // the first row of the image that is here
    uint image0;    // the first element of that row
    uint image_stride;
    uint tap_rows;
    uint tap_cols;
    uint tap0;
    uint tap_stride;
    uint to_stride;
};

void main() {
    uint count = saturating_product(rows, width);
    FOR_EACH_ITEM(item, count) {
        uint row = item / width, col = item % width;
        float sum = 0.0;
        for (uint i = 0u; i < tap_rows; i++) {
            int y = clamp(int(row0 + row + i) - int(tap_rows / 2u), 0, int(height) - 1);
            uint line = image0 + (uint(y) - image_row) * image_stride;
            for (uint j = 0u; j < tap_cols; j++) {
                int x = clamp(int(col + j) - int(tap_cols / 2u), 0, int(width) - 1);
                sum += taps[tap0 + i * tap_stride + j] * image[line + uint(x)];
            }
        }
        Floats(to).at[row * to_stride + col] = sum;
    }
}
