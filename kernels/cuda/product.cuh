/* product: matrix products of bf16 on the tensor cores through cuBLASLt, with float accumulation.
 *
 * cuBLASLt counts columns first; this wrapper keeps that: a is (m,k) or, transposed, (k,m); b is (k,n) or (n,k);
 * c and d are (m,n). The leading dimension is the length of a stored column, which is a row of our row-major tensors.
 * For each shape and alignment an algorithm of the heuristic is taken once and kept, with a workspace of fixed
 * size, so that the same product has the same bits from run to run on one type of GPU.
 *
 * Of what may follow a product in its epilogue only beta c is used. No CUBLASLT_EPILOGUE fits: no linear layer has a
 * bias, whose sum or gradient most of them are for, and the MLP's leaky relu squared is neither their RELU nor their
 * GELU. Products with these functions are our own, on Hopper (linear_epilogue.cu). */
#pragma once
#include "kernels/cuda/device.cuh"

enum { PRODUCT_WORKSPACE = 32 << 20 };

struct product {
    const char *name; /* of the op, for messages */
    bool transpose_a, transpose_b;
    size_t m, n, k;
    const bf16 *a, *b;
    size_t lda, ldb, ldd;
    const void *c; /* read where beta is not 0; of d's type and leading dimension */
    void *d;
    bool d_is_float; /* else bf16 */
    float alpha, beta;
    size_t batch;                        /* products at once; 1 for one */
    size_t stride_a, stride_b, stride_d; /* elements from one to the next */
    void *workspace;                     /* PRODUCT_WORKSPACE bytes, 256-byte aligned */
};

/* d = alpha op(a) op(b) + beta c on the device's stream; an error is noted for finish(). */
void product_run(const struct product *p);

/* to[i] = from[i], rounded. */
void round_to_bf16(bf16 *to, const float *from, size_t count);
