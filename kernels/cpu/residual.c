/* residual: what carries activations from block to block.
 *
 *   residual_mix  y = mix_0 x + mix_1 x0          the block's entry, x0 being the embedding
 *   scaled_add    y = x + scale branch            the U-Net skips
 *
 * x, y (R,D), mix (2,D), scale (D). Parameter gradients are summed over rows in order. */
#include "kernels/kernels.h"

size_t cpu_rows_scratch(size_t rows, size_t width) {
    (void)rows, (void)width;
    return 0;
}

void cpu_residual_mix_forward(struct lane *lane, real *y, const real *x, const real *x0, const real *mix, size_t rows,
                              size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
        const real *a = x + r * dim, *b = x0 + r * dim;
        real *to = y + r * dim;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) to[i] = mix[i] * a[i] + mix[dim + i] * b[i];
    }
}

void cpu_residual_mix_backward(struct lane *lane, real *dx, real *dx0, real *dmix, const real *dy, const real *x,
                               const real *x0, const real *mix, size_t rows, size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * dim;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) {
            real d = dy[at + i];
            dmix[i] += d * x[at + i];
            dmix[dim + i] += d * x0[at + i];
            dx0[at + i] += mix[dim + i] * d;
            dx[at + i] = mix[i] * d;
        }
    }
}

void cpu_scaled_add_forward(struct lane *lane, real *y, const real *x, const real *scale, const real *branch,
                            size_t rows, size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * dim;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) y[at + i] = x[at + i] + scale[i] * branch[at + i];
    }
}

void cpu_scaled_add_backward(struct lane *lane, real *dbranch, real *dscale, const real *dy, const real *scale,
                             const real *branch, size_t rows, size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * dim;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) {
            dscale[i] += dy[at + i] * branch[at + i];
            dbranch[at + i] = scale[i] * dy[at + i];
        }
    }
}

void cpu_add_into(struct lane *lane, real *a, const real *b, size_t count) {
    (void)lane;
#pragma omp simd
    for (size_t i = 0; i < count; i++) a[i] += b[i];
}
