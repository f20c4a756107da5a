/* quantize: integers with IEEE half scales per row or group of columns, and the Hessian that GPTQ needs.
 *
 *   s = fp16(percentile of |w| in the group / qmax);  q = clamp(round(w/s), -qmax, qmax), ties to even
 *   percentile p of n values: linear interpolation at rank p/100 (n-1) of the sorted values, as numpy.percentile
 *   h += x^T x, upper triangle; products in real per block of 256 rows, sums in float64 */
#include <string.h>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/rounding.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

enum { TILE = 96, ROW_BLOCK = 256 };

/* The order of non-negative reals is that of their bits. */
#ifdef HINGE_DOUBLE
typedef uint64_t real_bits;
#else
typedef uint32_t real_bits;
#endif

static real from_bits(real_bits bits) {
    real value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static size_t count_up_to(const real *w, size_t count, real bound) {
    real_bits found = 0; /* as wide as real, for the vector loop */
#pragma omp simd reduction(+ : found)
    for (size_t i = 0; i < count; i++) found += real_abs(w[i]) <= bound;
    return found;
}

/* The magnitude of that rank (0 the least), by bisection over the bits: exact, and needs no memory for sorting. */
static real magnitude_of_rank(const real *w, size_t count, size_t rank) {
    const real most = largest_magnitude(w, count);
    real_bits low = 0, high;
    memcpy(&high, &most, sizeof high);
    while (low < high) {
        real_bits middle = low + (high - low) / 2;
        if (count_up_to(w, count, from_bits(middle)) > rank)
            high = middle;
        else
            low = middle + 1;
    }
    return from_bits(low);
}

static real least_magnitude_above(const real *w, size_t count, real bound) {
    real least = (real)INFINITY;
#pragma omp simd reduction(min : least)
    for (size_t i = 0; i < count; i++) {
        real x = real_abs(w[i]);
        least = x > bound && x < least ? x : least;
    }
    return least;
}

static double percentile_magnitude(const real *w, size_t count, double percentile) {
    const double rank = percentile / 100 * (double)(count - 1), whole = floor(rank);
    if (whole >= (double)(count - 1)) return (double)largest_magnitude(w, count);
    const real low = magnitude_of_rank(w, count, (size_t)whole);
    if (rank <= whole || count_up_to(w, count, low) > (size_t)whole + 1) return (double)low;
    return (double)low + (rank - whole) * ((double)least_magnitude_above(w, count, low) - (double)low);
}

/* Stored as half, but never 0 and never infinite, since w/s and q s must both be numbers. */
static uint16_t stored_scale(double scale) {
    uint16_t bits = half_from_double(scale);
    if (bits < HALF_LEAST) return HALF_LEAST;
    return bits > HALF_LARGEST ? HALF_LARGEST : bits;
}

static void round_group(int8_t *q, const real *w, size_t count, real s, real limit) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) q[i] = (int8_t)round_within(w[i] / s, limit);
}

void cpu_quantize_rows(struct lane *lane, int8_t *q, uint16_t *scales, const real *w, size_t rows, size_t cols,
                       size_t group, int qmax, double percentile, bool floor_scale) {
    (void)lane;
    const size_t width = group ? group : cols;
    const double floor = floor_scale ? 1.0 / qmax : 0;
    for (size_t r = 0; r < rows; r++) {
        for (size_t start = 0; start < cols; start += width) {
            size_t count = cols - start < width ? cols - start : width, at = r * cols + start;
            double scale = percentile_magnitude(w + at, count, percentile) / qmax;
            *scales = stored_scale(scale < floor ? floor : scale);
            round_group(q + at, w + at, count, half_to_real(*scales++), (real)qmax);
        }
    }
}

/* Adds the tile's product to h; on the diagonal only its upper triangle. */
static void add_tile(double *h, const real *product, size_t cols, size_t row, size_t col, size_t height, size_t width) {
    for (size_t i = 0; i < height; i++) {
        double *to = h + (row + i) * cols + col;
        const real *from = product + i * TILE;
#pragma omp simd
        for (size_t j = row == col ? i : 0; j < width; j++) to[j] += (double)from[j];
    }
}

void cpu_hessian_accumulate(struct lane *lane, double *h, const real *x, size_t rows, size_t cols) {
    (void)lane;
    real product[TILE * TILE];
    for (size_t start = 0; start < rows; start += ROW_BLOCK) {
        const real *block = x + start * cols;
        size_t depth = rows - start < ROW_BLOCK ? rows - start : ROW_BLOCK;
        for (size_t row = 0; row < cols; row += TILE) {
            size_t height = cols - row < TILE ? cols - row : TILE;
            for (size_t col = row; col < cols; col += TILE) {
                size_t width = cols - col < TILE ? cols - col : TILE;
                gemm_tn(height, width, depth, 1, block + row, cols, block + col, cols, 0, product, TILE);
                add_tile(h, product, cols, row, col, height, width);
            }
        }
    }
}
