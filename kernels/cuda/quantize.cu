/* quantize: integers with IEEE half scales per row or group of columns; the mathematics is in kernels/cpu/quantize.c.
 *
 * A warp has one group. The percentile's ranks are found by bisection over the bits of |w|, 31 readings of the group
 * from the cache; for 26.2 million parameters that is 3.3 GB at the speed of the cache, about 1 ms, against 0.031 ms
 * for the 131 MB of memory. It is done once a run. */
#include "kernels/cuda/rounding.cuh"
#include "kernels/cuda/vectors.cuh"

enum { GROUP_WARPS = EACH_THREADS / (int)WARP };

struct magnitudes {
    const float *w;
    size_t count;
};

__device__ static inline float largest_of(const magnitudes &group) {
    float most = 0;
    for (size_t i = threadIdx.x % WARP; i < group.count; i += WARP)
        most = fabsf(group.w[i]) > most ? fabsf(group.w[i]) : most;
    return warp_max(most);
}

__device__ static inline size_t count_up_to(const magnitudes &group, float bound) {
    unsigned found = 0;
    for (size_t i = threadIdx.x % WARP; i < group.count; i += WARP) found += fabsf(group.w[i]) <= bound;
    for (int offset = WARP / 2; offset > 0; offset /= 2) found += __shfl_xor_sync(0xffffffffu, found, offset);
    return found;
}

__device__ static inline float least_above(const magnitudes &group, float bound) {
    float least = INFINITY;
    for (size_t i = threadIdx.x % WARP; i < group.count; i += WARP) {
        float x = fabsf(group.w[i]);
        least = x > bound && x < least ? x : least;
    }
    return -warp_max(-least);
}

/* The magnitude of that rank (0 the least): the order of non-negative floats is that of their bits. */
__device__ static inline float magnitude_of_rank(const magnitudes &group, size_t rank) {
    unsigned low = 0, high = __float_as_uint(largest_of(group));
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (count_up_to(group, __uint_as_float(middle)) > rank)
            high = middle;
        else
            low = middle + 1;
    }
    return __uint_as_float(low);
}

/* By linear interpolation between ranks, as numpy.percentile. */
__device__ static inline double percentile_of(const magnitudes &group, double percentile) {
    const double rank = percentile / 100 * (double)(group.count - 1), whole = floor(rank);
    if (whole >= (double)(group.count - 1)) return (double)largest_of(group);
    const float low = magnitude_of_rank(group, (size_t)whole);
    if (rank <= whole || count_up_to(group, low) > (size_t)whole + 1) return (double)low;
    return (double)low + (rank - whole) * ((double)least_above(group, low) - (double)low);
}

/* Stored as half, but never 0 and never infinite, since w/s and q s must both be numbers. */
__device__ static inline uint16_t stored_scale(double scale) {
    enum { LEAST = 0x0001, LARGEST = 0x7BFF };
    uint16_t bits = half_bits(scale);
    return bits < LEAST ? (uint16_t)LEAST : bits > LARGEST ? (uint16_t)LARGEST : bits;
}

struct grouping {
    size_t rows, cols, width, groups; /* `groups` of `width` columns in each row, the last may be narrower */
    int qmax;
    double percentile, floor;
};

static __global__ void __launch_bounds__(EACH_THREADS)
    quantize_kernel(int8_t *q, uint16_t *scales, const float *w, grouping g) {
    size_t index = blockIdx.x * (size_t)GROUP_WARPS + threadIdx.x / WARP;
    if (index >= g.rows * g.groups) return;
    size_t start = index % g.groups * g.width, at = index / g.groups * g.cols + start;
    magnitudes group = {w + at, g.cols - start < g.width ? g.cols - start : g.width};
    double scale = percentile_of(group, g.percentile) / g.qmax;
    uint16_t bits = stored_scale(scale < g.floor ? g.floor : scale);
    float s = float_of_half(bits), limit = (float)g.qmax;
    for (size_t i = threadIdx.x % WARP; i < group.count; i += WARP)
        q[at + i] = (int8_t)round_within(group.w[i] / s, limit);
    if (threadIdx.x % WARP == 0) scales[index] = bits;
}

extern "C" void cuda_quantize_rows(struct lane *, int8_t *q, uint16_t *scales, const real *w, size_t rows, size_t cols,
                                   size_t group, int qmax, double percentile, bool floor_scale) {
    size_t width = group ? group : cols, groups = width ? ceil_div(cols, width) : 0;
    grouping g = {rows, cols, width, groups, qmax, percentile, floor_scale ? 1.0 / qmax : 0};
    LAUNCH(quantize_kernel, (unsigned)ceil_div(rows * groups, GROUP_WARPS), EACH_THREADS, 0, q, scales, w, g);
}
