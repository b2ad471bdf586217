#version 460
#extension GL_GOOGLE_include_directive : require
// y = alpha * A * x + beta * y: row-major f32, A is rows x cols with `lda` elements from row to row. One invocation per row. With
// beta = 0 the old y is not read. Sizes that do not fit the buffers: nothing is written. At most 65,000 columns (see grid.glsl).
#include "include/grid.glsl"
#include "include/matrix.glsl"

layout(set = 0, binding = 0, std430) readonly buffer A { float a[]; };
layout(set = 0, binding = 1, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 2, std430) buffer Y { float y[]; };
layout(push_constant, std430) uniform Push {
    uint rows;
    uint cols;
    uint lda;
    float alpha;
    float beta;
};

void main() {
    bool fit = matrix_fits(rows, cols, lda, uint(a.length())) && cols <= uint(x.length()) && rows <= uint(y.length());
    uint count = fit ? rows : 0u;
    FOR_EACH_ITEM(i, count) {
        float sum = 0.0;
        for (uint j = 0u; j < cols; j++) {
            sum += a[i * lda + j] * x[j];
        }
        y[i] = alpha * sum + (beta == 0.0 ? 0.0 : beta * y[i]);
    }
}
