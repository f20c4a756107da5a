/* norm: RMS norm without a weight.
 *
 *   forward   y = x / rms, 1/rms = inv = (mean(x^2) + RMS_EPSILON)^-1/2
 *   backward  dinv/dx_i = -inv^3 x_i / D, so dx_i is, or gets, inv (dy_i - y_i mean(dy y))
 *
 * x, y (R,D), inv (R). Sums run over one row. */
#include <string.h>

#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

static real dot(const real *a, const real *b, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

void cpu_rms_norm_forward(struct lane *lane, real *y, real *inv, const real *x, size_t rows, size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
        const real *from = x + r * dim;
        real *to = y + r * dim, scale = 1 / real_sqrt(dot(from, from, dim) / (real)dim + (real)RMS_EPSILON);
        inv[r] = scale;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) to[i] = from[i] * scale;
    }
}

void cpu_rms_norm_backward(struct lane *lane, real *dx, const real *dy, const real *y, const real *inv, size_t rows,
                           size_t dim, bool accumulate) {
    (void)lane;
    if (!accumulate) memset(dx, 0, rows * dim * sizeof *dx);
    for (size_t r = 0; r < rows; r++) {
        const real *dout = dy + r * dim, *out = y + r * dim;
        real *din = dx + r * dim, scale = inv[r], mean = dot(dout, out, dim) / (real)dim;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) din[i] += scale * (dout[i] - out[i] * mean);
    }
}
