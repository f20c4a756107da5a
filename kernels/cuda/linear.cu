/* linear: y = x w^T, alone or added to what is there, its two gradients, and the head's logits, as products of bf16.
 *
 *   x (R,in) w (out,in) y (R,out);  dx = dy w;  dw += dy^T x
 *
 * At the published preset (R 65,536) in_proj, 512 to 2240, is 150 GFLOP each way: 0.19 ms at 790 TFLOP/s, against
 * 0.08 ms for its 361 MB; fc and proj, 512 to 1536 and back, 103 GFLOP: 0.13 ms against 0.06 ms; out_proj, 1024 to
 * 512, 69 GFLOP: 0.09 ms against 0.05 ms. head_forward, 512 to 1024 in blocks of 8192 rows: 8.6 GFLOP a block, 11 us,
 * against 10 us for its 42 MB, 34 MB of them the logits in float; of a micro-shard 69 GFLOP, 0.087 ms against 0.078. */
#include "kernels/cuda/linear_epilogue.cuh"
#include "kernels/cuda/product.cuh"

/* An epilogue's weights in its order, or the workspace of cuBLASLt. */
extern "C" size_t cuda_linear_scratch(size_t, size_t out, size_t in) {
    size_t ordered = scratch_bytes(out * in * sizeof(bf16));
    return ordered > PRODUCT_WORKSPACE ? ordered : (size_t)PRODUCT_WORKSPACE;
}

extern "C" void cuda_round_to_acts(struct lane *, act *to, const real *from, size_t count) {
    round_to_bf16(acts(to), from, count);
}

/* Column-major, y^T (out,R) = w x^T, where the stored columns are our rows. */
static struct product forward_product(const char *name, struct lane *lane, void *y, const act *x, const act *w,
                                      size_t rows, size_t out, size_t in) {
    struct product p = {};
    p.name = name;
    p.transpose_a = true;
    p.m = out, p.n = rows, p.k = in;
    p.a = acts(w), p.lda = in;
    p.b = acts(x), p.ldb = in;
    p.d = y, p.ldd = out;
    p.alpha = 1;
    p.batch = 1;
    p.workspace = lane->scratch;
    return p;
}

extern "C" void cuda_linear_forward(struct lane *lane, act *y, const act *x, const act *w, size_t rows, size_t out,
                                    size_t in) {
    struct product p = forward_product("linear_forward", lane, y, x, w, rows, out, in);
    product_run(&p);
}

extern "C" void cuda_linear_add_forward(struct lane *lane, act *y, const act *before, const act *x, const act *w,
                                        size_t rows, size_t out, size_t in) {
    struct product p = forward_product("linear_add_forward", lane, y, x, w, rows, out, in);
    p.c = before, p.beta = 1;
    product_run(&p);
}

extern "C" void cuda_head_forward(struct lane *lane, real *logits, const act *x, const act *table, size_t rows,
                                  size_t vocab, size_t dim) {
    struct product p = forward_product("head_forward", lane, logits, x, table, rows, vocab, dim);
    p.d_is_float = true;
    product_run(&p);
}

/* dx^T (in,R) = w^T dy^T. */
extern "C" void cuda_linear_backward_input(struct lane *lane, act *dx, const act *dy, const act *w, size_t rows,
                                           size_t out, size_t in, bool accumulate) {
    struct product p = {};
    p.name = "linear_backward_input";
    p.m = in, p.n = rows, p.k = out;
    p.a = acts(w), p.lda = in;
    p.b = acts(dy), p.ldb = out;
    p.c = p.d = dx, p.ldd = in;
    p.alpha = 1, p.beta = accumulate ? 1 : 0;
    p.batch = 1;
    p.workspace = lane->scratch;
    product_run(&p);
}

/* dw^T (in,out) += x^T dy. */
extern "C" void cuda_linear_backward_weight(struct lane *lane, real *dw, const act *dy, const act *x, size_t rows,
                                            size_t out, size_t in) {
    struct product p = {};
    p.name = "linear_backward_weight";
    p.transpose_b = true;
    p.m = in, p.n = out, p.k = rows;
    p.a = acts(x), p.lda = in;
    p.b = acts(dy), p.ldb = out;
    p.c = p.d = dw, p.ldd = in;
    p.d_is_float = true;
    p.alpha = 1, p.beta = 1;
    p.batch = 1;
    p.workspace = lane->scratch;
    product_run(&p);
}

/* --- with what follows or goes before a product ------------------------------------------------------------------- */

extern "C" void cuda_linear_leaky_relu_squared_forward(struct lane *lane, act *h, act *y, const act *x, const act *w,
                                                       size_t rows, size_t out, size_t in) {
    if (leaky_relu_squared_product(lane->scratch, acts(h), acts(y), acts(x), acts(w), {rows, out, in})) return;
    cuda_linear_forward(lane, h, x, w, rows, out, in);
    cuda_leaky_relu_squared_forward(lane, y, h, rows * out);
}

extern "C" void cuda_linear_leaky_relu_squared_backward(struct lane *lane, act *dh, const act *dy, const act *w,
                                                        const act *h, size_t rows, size_t out, size_t in) {
    if (leaky_relu_squared_slope_product(lane->scratch, acts(dh), acts(dy), acts(w), acts(h), {rows, in, out})) return;
    cuda_linear_backward_input(lane, dh, dy, w, rows, out, in, false);
    cuda_leaky_relu_squared_backward(lane, dh, dh, h, rows * in);
}

extern "C" void cuda_linear_silu_gate_backward(struct lane *lane, act *dy, act *dz, const act *dout, const act *w,
                                               const act *y, const act *z, size_t z_stride, size_t rows, size_t out,
                                               size_t in) {
    if (silu_gate_slope_product(lane->scratch, acts(dy), acts(dz), acts(dout), acts(w), acts(y), acts(z), z_stride,
                                {rows, in, out}))
        return;
    cuda_linear_backward_input(lane, dy, dout, w, rows, out, in, false);
    cuda_silu_gate_backward(lane, dy, dz, dy, y, z, z_stride, rows, in);
}
