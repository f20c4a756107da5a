/* gradient: the gradients of one step as a whole: their tree, their norm, and sums that a step is judged by. */
#include <math.h>

#include "kernels/kernels.h"

enum { BLOCK = 1 << 12 }; /* elements of all parts that are in cache at once */

size_t cpu_tensor_scratch(size_t count) {
    (void)count;
    return 0;
}

void cpu_sum_in_order(struct lane *lane, double *sum, const double *x, size_t count) {
    (void)lane;
    double total = 0;
    for (size_t i = 0; i < count; i++) total += x[i];
    sum[0] += total;
}

/* 0 times anything finite is 0; times an infinity or NaN it is NaN, which a sum keeps. */
static bool all_finite(const real *x, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += 0 * x[i];
    return sum == 0;
}

static void add(real *a, const real *b, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) a[i] += b[i];
}

void cpu_add_tree(struct lane *lane, real *const *parts, int part_count, size_t count, int32_t *finite) {
    (void)lane;
    bool good = true;
    for (size_t start = 0; start < count; start += BLOCK) {
        size_t size = count - start < BLOCK ? count - start : BLOCK;
        for (int stride = 1; stride < part_count; stride *= 2)
            for (int i = 0; i < part_count; i += 2 * stride) add(parts[i] + start, parts[i + stride] + start, size);
        good = all_finite(parts[0] + start, size) && good;
    }
    finite[0] = good;
}

void cpu_clip_by_norm(struct lane *lane, real *g, size_t count, double limit) {
    (void)lane;
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)g[i] * (double)g[i];
    double norm = sqrt(sum);
    if (!(norm > limit)) return;
    const real factor = (real)(limit / norm);
    for (size_t i = 0; i < count; i++) g[i] *= factor;
}
