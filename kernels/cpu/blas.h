/* blas: row-major matrix products in `real`; each runs on the calling thread's lane alone.
 *
 * The letters say which operand is transposed; m, n, k are the sizes of the product, lda, ldb, ldc the distances
 * between rows in memory. c = alpha op(a) op(b) + beta c, and with beta 0 what c held is not read. */
#pragma once
#include <cblas.h>
#include <stddef.h>
#include <string.h>

#include "kernels/real.h"

/* BLAS(gemm) is cblas_sgemm or cblas_dgemm. */
#ifdef HINGE_DOUBLE
#define BLAS(name) cblas_d##name
#else
#define BLAS(name) cblas_s##name
#endif

/* OpenBLAS scales c before it adds the product; for beta 0 filling the rows with zeros here is several times faster
 * than its own loop and gives the same bits. */
static inline void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, size_t m, size_t n, size_t k, real alpha, const real *a,
                        size_t lda, const real *b, size_t ldb, real beta, real *c, size_t ldc) {
    for (size_t i = 0; beta == 0 && i < m; i++) memset(c + i * ldc, 0, n * sizeof *c);
    BLAS(gemm)
    (CblasRowMajor, ta, tb, (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta == 0 ? 1 : beta, c, (int)ldc);
}

/* a (m,k) b (k,n) */
static inline void gemm_nn(size_t m, size_t n, size_t k, real alpha, const real *a, size_t lda, const real *b,
                           size_t ldb, real beta, real *c, size_t ldc) {
    gemm(CblasNoTrans, CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* a (m,k) b (n,k) */
static inline void gemm_nt(size_t m, size_t n, size_t k, real alpha, const real *a, size_t lda, const real *b,
                           size_t ldb, real beta, real *c, size_t ldc) {
    gemm(CblasNoTrans, CblasTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* a (k,m) b (k,n) */
static inline void gemm_tn(size_t m, size_t n, size_t k, real alpha, const real *a, size_t lda, const real *b,
                           size_t ldb, real beta, real *c, size_t ldc) {
    gemm(CblasTrans, CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
