/* silu_gate: the Mamba mixer's output gate.
 *
 * out = y silu(z), all (R,D); z lies in in_proj's rows, z_stride apart.
 * dy = dout silu(z); dz = dout y silu'(z), silu'(z) = s (1 + z (1 - s)) with s = sigmoid(z). Nothing is summed. */
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

void cpu_silu_gate_forward(struct lane *lane, real *out, const real *y, const real *z, size_t z_stride, size_t rows,
                           size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
#pragma omp simd
        for (size_t i = 0; i < dim; i++) out[r * dim + i] = y[r * dim + i] * real_silu(z[r * z_stride + i]);
    }
}

void cpu_silu_gate_backward(struct lane *lane, real *dy, real *dz, const real *dout, const real *y, const real *z,
                            size_t z_stride, size_t rows, size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
        const real *zr = z + r * z_stride;
        real *dzr = dz + r * z_stride;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) {
            real s = real_sigmoid(zr[i]), g = dout[r * dim + i];
            dzr[i] = g * y[r * dim + i] * s * (1 + zr[i] * (1 - s));
            dy[r * dim + i] = g * zr[i] * s;
        }
    }
}
