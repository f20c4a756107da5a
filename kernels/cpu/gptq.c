/* gptq: quantisation with error feedback (Frantar et al., arXiv 2210.17323), float64 throughout.
 *
 * With H damped and its columns in order of descending diagonal, H^-1 = U^T U, U upper. Column by column:
 *   q = clamp(round(w/s), -qmax, qmax),  e = (w - q s)/U_ii,  later columns w_j -= e U_ij
 * A block of 128 columns is updated column by column, what follows it by one matrix product.
 *
 * U comes without forming H^-1: H = R R^T with R upper, and U = R^-1. LAPACK factors from the other corner, so H is
 * laid out in reverse order, factored and inverted as a lower triangle, and the array read backwards is U.
 *
 * scratch:  | U (cols,cols) | w^T (cols,rows), permuted | errors (128,rows) | order (cols) | */
#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/blas.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

enum { BLOCK = 128, ROW_TILE = 32 };

/* From LAPACK, which OpenBLAS contains. Column-major: its upper triangle is the lower one of a row-major array. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info);

struct ranked {
    double diagonal;
    size_t column;
};

struct problem {
    size_t rows, cols, group, groups;
    double limit;
    const uint16_t *scales; /* (rows, groups) */
    int8_t *q;              /* (rows, cols) */
    double *u, *w, *errors;
    struct ranked *order; /* order[i].column is the original place of the i-th column */
};

size_t cpu_gptq_scratch(size_t rows, size_t cols) {
    return (cols * cols + cols * rows + BLOCK * rows) * sizeof(double) + cols * sizeof(struct ranked);
}

static struct problem lay_out(void *scratch, size_t rows, size_t cols, size_t group) {
    struct problem p = {.rows = rows, .cols = cols, .group = group ? group : cols};
    p.groups = (cols + p.group - 1) / p.group;
    p.u = scratch;
    p.w = p.u + cols * cols;
    p.errors = p.w + cols * rows;
    p.order = (struct ranked *)(void *)(p.errors + BLOCK * rows);
    return p;
}

static int by_descending_diagonal(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->diagonal != y->diagonal) return x->diagonal > y->diagonal ? -1 : 1;
    return x->column < y->column ? -1 : x->column > y->column;
}

static void order_columns(struct problem *p, const double *h) {
    for (size_t i = 0; i < p->cols; i++) p->order[i] = (struct ranked){h[i * p->cols + i], i};
    qsort(p->order, p->cols, sizeof *p->order, by_descending_diagonal);
}

/* The damped Hessian, permuted and in reverse order, as the lower triangle of u. */
static void gather_hessian(struct problem *p, const double *h, double damping) {
    size_t n = p->cols;
    double trace = 0;
    for (size_t i = 0; i < n; i++) trace += h[i * n + i];
    double damp = damping * trace / (double)n;
    for (size_t i = 0; i < n; i++) {
        size_t row = p->order[n - 1 - i].column;
        double *to = p->u + i * n, diagonal = h[row * n + row];
        for (size_t j = 0; j < i; j++) {
            size_t col = p->order[n - 1 - j].column;
            to[j] = row < col ? h[row * n + col] : h[col * n + row];
        }
        to[i] = diagonal == 0 ? 1 : diagonal + damp;
    }
}

static void reverse(double *a, size_t count) {
    for (size_t i = 0, j = count; i + 1 < j; i++) {
        double kept = a[--j];
        a[j] = a[i];
        a[i] = kept;
    }
}

/* u holds the reversed Hessian and becomes U. Returns 0, or the place where it is not positive definite (OpenBLAS
 * lets not-a-number through, hence the second look). */
static int factor(struct problem *p) {
    int n = (int)p->cols, info = 0;
    dpotrf_("U", &n, p->u, &n, &info);
    if (info == 0) dtrtri_("U", "N", &n, p->u, &n, &info);
    for (int i = 0; i < n && info == 0; i++)
        if (!isfinite(p->u[(size_t)i * p->cols + (size_t)i])) info = i + 1;
    if (info == 0) reverse(p->u, p->cols * p->cols);
    return info;
}

static void gather_weights(struct problem *p, const real *w) {
    for (size_t i = 0; i < p->cols; i++) {
        const real *column = w + p->order[i].column;
        double *to = p->w + i * p->rows;
        bool dead = p->order[i].diagonal == 0;
        for (size_t r = 0; r < p->rows; r++) to[r] = dead ? 0 : (double)column[r * p->cols];
    }
}

/* Quantises column i for some rows; returns in e what the rounding left over, divided by U_ii. */
static void quantize_column(const struct problem *p, size_t i, size_t row, size_t count, double *e) {
    const size_t column = p->order[i].column;
    const uint16_t *scale = p->scales + row * p->groups + column / p->group;
    const double *w = p->w + i * p->rows + row, inverse = 1 / p->u[i * p->cols + i];
    int8_t *q = p->q + row * p->cols + column;
    for (size_t r = 0; r < count; r++) {
        double s = (double)half_to_real(scale[r * p->groups]), x = rint(w[r] / s);
        x = x > -p->limit ? x : -p->limit;
        x = x < p->limit ? x : p->limit;
        q[r * p->cols] = (int8_t)x;
        e[r] = (w[r] - x * s) * inverse;
    }
}

/* Columns start..end of some rows; the rows are few, so that the block stays in cache. */
static void quantize_block(const struct problem *p, size_t start, size_t end, size_t row, size_t count) {
    for (size_t i = start; i < end; i++) {
        const double *u = p->u + i * p->cols;
        double *e = p->errors + (i - start) * p->rows + row;
        quantize_column(p, i, row, count, e);
        for (size_t j = i + 1; j < end; j++) {
            double *w = p->w + j * p->rows + row;
#pragma omp simd
            for (size_t r = 0; r < count; r++) w[r] -= e[r] * u[j];
        }
    }
}

/* w of the columns after the block -= U^T errors */
static void pass_errors_on(const struct problem *p, size_t start, size_t end) {
    if (end == p->cols) return;
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)(p->cols - end), (int)p->rows, (int)(end - start), -1,
                p->u + start * p->cols + end, (int)p->cols, p->errors, (int)p->rows, 1, p->w + end * p->rows,
                (int)p->rows);
}

void cpu_gptq_quantize(struct lane *lane, int8_t *q, const uint16_t *scales, const real *w, const double *h,
                       size_t rows, size_t cols, size_t group, int qmax, double damping, int *info) {
    struct problem p = lay_out(lane->scratch, rows, cols, group);
    p.q = q;
    p.scales = scales;
    p.limit = qmax;
    order_columns(&p, h);
    gather_hessian(&p, h, damping);
    *info = factor(&p);
    if (*info != 0) return;
    gather_weights(&p, w);
    for (size_t start = 0; start < cols; start += BLOCK) {
        size_t end = cols - start < BLOCK ? cols : start + BLOCK;
        for (size_t row = 0; row < rows; row += ROW_TILE)
            quantize_block(&p, start, end, row, rows - row < ROW_TILE ? rows - row : ROW_TILE);
        pass_errors_on(&p, start, end);
    }
}
