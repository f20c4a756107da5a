/* linear: y = x w^T, alone or added to what is there, its two gradients, the MLP's activation, and products with what
 * goes before or follows them.
 *
 *   x (R,in) w (out,in) y (R,out);  dx = dy w;  dw += dy^T x
 *   leaky_relu_squared  l = x or x/2, y = l^2, dy/dx = 2 l l' = 2x or x/2 */
#include "kernels/cpu/blas.h"
#include "kernels/kernels.h"

void cpu_linear_forward(struct lane *lane, act *y, const act *x, const act *w, size_t rows, size_t out, size_t in) {
    (void)lane;
    gemm_nt(rows, out, in, 1, x, in, w, in, 0, y, out);
}

void cpu_linear_add_forward(struct lane *lane, act *y, const act *before, const act *x, const act *w, size_t rows,
                            size_t out, size_t in) {
    if (y != before) cpu_copy(lane, y, before, rows * out * sizeof *y);
    gemm_nt(rows, out, in, 1, x, in, w, in, 1, y, out);
}

void cpu_linear_backward_input(struct lane *lane, act *dx, const act *dy, const act *w, size_t rows, size_t out,
                               size_t in, bool accumulate) {
    (void)lane;
    gemm_nn(rows, in, out, 1, dy, out, w, in, accumulate ? 1 : 0, dx, in);
}

void cpu_linear_backward_weight(struct lane *lane, real *dw, const act *dy, const act *x, size_t rows, size_t out,
                                size_t in) {
    (void)lane;
    gemm_tn(out, in, rows, 1, dy, out, x, in, 1, dw, in);
}

void cpu_head_forward(struct lane *lane, real *logits, const act *x, const act *table, size_t rows, size_t vocab,
                      size_t dim) {
    cpu_linear_forward(lane, logits, x, table, rows, vocab, dim);
}

/* An act of the CPU is a real. */
void cpu_round_to_acts(struct lane *lane, act *to, const real *from, size_t count) {
    cpu_copy(lane, to, from, count * sizeof *to);
}

size_t cpu_linear_scratch(size_t rows, size_t out, size_t in) {
    (void)rows, (void)out, (void)in;
    return 0;
}

void cpu_leaky_relu_squared_forward(struct lane *lane, real *y, const real *x, size_t count) {
    (void)lane;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        real l = x[i] > 0 ? x[i] : x[i] / 2;
        y[i] = l * l;
    }
}

void cpu_leaky_relu_squared_backward(struct lane *lane, real *dx, const real *dy, const real *x, size_t count) {
    (void)lane;
#pragma omp simd
    for (size_t i = 0; i < count; i++) dx[i] = dy[i] * (x[i] > 0 ? 2 * x[i] : x[i] / 2);
}

void cpu_linear_leaky_relu_squared_forward(struct lane *lane, act *h, act *y, const act *x, const act *w, size_t rows,
                                           size_t out, size_t in) {
    cpu_linear_forward(lane, h, x, w, rows, out, in);
    cpu_leaky_relu_squared_forward(lane, y, h, rows * out);
}

void cpu_linear_leaky_relu_squared_backward(struct lane *lane, act *dh, const act *dy, const act *w, const act *h,
                                            size_t rows, size_t out, size_t in) {
    cpu_linear_backward_input(lane, dh, dy, w, rows, out, in, false);
    cpu_leaky_relu_squared_backward(lane, dh, dh, h, rows * in);
}

void cpu_linear_silu_gate_backward(struct lane *lane, act *dy, act *dz, const act *dout, const act *w, const act *y,
                                   const act *z, size_t z_stride, size_t rows, size_t out, size_t in) {
    cpu_linear_backward_input(lane, dy, dout, w, rows, out, in, false);
    cpu_silu_gate_backward(lane, dy, dz, dy, y, z, z_stride, rows, in);
}
