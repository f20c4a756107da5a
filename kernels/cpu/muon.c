/* muon: momentum made orthogonal by Newton-Schulz steps (K. Jordan, 2024).
 *
 *   X = G/(|G| + 1e-7);  each step  A = X X^T,  X <- (a I + b A + c A^2) X      (on the smaller side of the matrix)
 *
 * The singular values of X end near 1. A is symmetric: syrk and symm do half of its work. A matrix with more rows than
 * columns uses A = X^T X from the right, which is the same as transposing it before and after.
 *
 * scratch (n = min(rows, cols)):  | A (n,n) | polynomial (n,n) | X' (rows,cols) | */
#include <string.h>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

static const double NORM_EPSILON = 1e-7;
static const double COEFFICIENT_A = 3.4445, COEFFICIENT_B = -4.7750, COEFFICIENT_C = 2.0315;

void cpu_muon_momentum(struct lane *lane, real *update, real *momentum, const real *g, size_t count,
                       const struct muon_settings *settings) {
    (void)lane;
    const real keep = (real)settings->momentum;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        real m = keep * momentum[i] + g[i];
        momentum[i] = m;
        update[i] = g[i] + keep * m;
    }
}

static double norm(const real *x, size_t count) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static void divide_by_norm(real *x, size_t count) {
    const real factor = (real)(1 / (norm(x, count) + NORM_EPSILON));
#pragma omp simd
    for (size_t i = 0; i < count; i++) x[i] *= factor;
}

void cpu_normalize_rows(struct lane *lane, real *x, size_t rows, size_t cols) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) divide_by_norm(x + r * cols, cols);
}

size_t cpu_newton_schulz_scratch(size_t batch, size_t rows, size_t cols) {
    (void)batch;
    size_t n = rows < cols ? rows : cols;
    return (2 * n * n + rows * cols) * sizeof(real);
}

/* Copies the upper triangle to the lower, in squares so that both sides stay in cache. */
static void mirror(real *a, size_t n) {
    enum { SQUARE = 16 };
    for (size_t row = 0; row < n; row += SQUARE)
        for (size_t col = 0; col <= row; col += SQUARE)
            for (size_t i = row; i < n && i < row + SQUARE; i++)
                for (size_t j = col; j < i && j < col + SQUARE; j++) a[i * n + j] = a[j * n + i];
}

/* The upper triangle of polynomial = a I + b A + c A^2; A's upper triangle is given, its lower is filled. */
static void polynomial_of(real *polynomial, real *a, size_t n) {
    mirror(a, n);
    memcpy(polynomial, a, n * n * sizeof *a);
    BLAS(syrk)
    (CblasRowMajor, CblasUpper, CblasNoTrans, (int)n, (int)n, (real)COEFFICIENT_C, a, (int)n, (real)COEFFICIENT_B,
     polynomial, (int)n);
    for (size_t i = 0; i < n; i++) polynomial[i * n + i] += (real)COEFFICIENT_A;
}

static void newton_schulz(struct lane *lane, real *x, size_t rows, size_t cols, int steps) {
    const bool tall = rows > cols;
    const size_t n = tall ? cols : rows, longer = tall ? rows : cols;
    real *a = lane->scratch, *polynomial = a + n * n, *from = x, *to = polynomial + n * n;
    divide_by_norm(x, rows * cols);
    for (int step = 0; step < steps; step++) {
        BLAS(syrk)
        (CblasRowMajor, CblasUpper, tall ? CblasTrans : CblasNoTrans, (int)n, (int)longer, 1, from, (int)cols, 0, a,
         (int)n);
        polynomial_of(polynomial, a, n);
        BLAS(symm)
        (CblasRowMajor, tall ? CblasRight : CblasLeft, CblasUpper, (int)rows, (int)cols, 1, polynomial, (int)n, from,
         (int)cols, 0, to, (int)cols);
        real *done = to;
        to = from, from = done;
    }
    if (from != x) memcpy(x, from, rows * cols * sizeof *x);
}

void cpu_newton_schulz(struct lane *lane, real *const *x, size_t batch, size_t rows, size_t cols, int steps) {
    for (size_t i = 0; i < batch; i++) newton_schulz(lane, x[i], rows, cols, steps);
}

void cpu_muon_apply(struct lane *lane, real *w, const real *update, size_t count, const struct muon_settings *settings,
                    double scale) {
    (void)lane;
    const real keep = (real)settings->keep, step = (real)(settings->rate * scale);
#pragma omp simd
    for (size_t i = 0; i < count; i++) w[i] = w[i] * keep - step * update[i];
}
