/* sums: float64 sums over one tensor, in an order that its size fixes.
 *
 * The elements are shared by at most MOST_SUM_BLOCKS blocks, each of which leaves one partial sum per term; one more
 * block adds those. All of it is in the lane's scratch:  | totals (TERMS) | partial sums (blocks, TERMS) |. */
#pragma once
#include "kernels/cuda/vectors.cuh"

enum { MOST_SUM_BLOCKS = 1024, MOST_TERMS = 2, SUM_BLOCK_ELEMENTS = 16 * EACH_THREADS, SUM_TOTALS = 32 };

/* Bytes of scratch for any sum. */
static inline size_t sums_bytes() { return (SUM_TOTALS + MOST_SUM_BLOCKS * MOST_TERMS) * sizeof(double); }

/* The block's EACH_THREADS values, added as a tree; all of its threads call this, thread 0 receives the sum. */
__device__ static inline double block_sum_float64(double x) {
    double *room = shared_memory<double>();
    room[threadIdx.x] = x;
    __syncthreads();
    for (unsigned half = EACH_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
        __syncthreads();
    }
    double sum = room[0];
    __syncthreads();
    return sum;
}

/* Terms has: enum { TERMS }; add<N>(sum, i), which adds what the elements i..i+N-1 give to sum[0..TERMS-1]; and
 * finish(totals), which one thread calls with the sums of all, to make of them what is wanted. */
template <int N, class Terms>
static __global__ void __launch_bounds__(EACH_THREADS) partial_sums_kernel(double *partial, Terms terms, size_t count) {
    double sum[Terms::TERMS] = {};
    size_t stride = (size_t)gridDim.x * EACH_THREADS * N;
    for (size_t i = (blockIdx.x * (size_t)EACH_THREADS + threadIdx.x) * N; i < count; i += stride) {
        if (i + N <= count)
            terms.template add<N>(sum, i);
        else
            for (size_t rest = i; rest < count; rest++) terms.template add<1>(sum, rest);
    }
    for (int t = 0; t < Terms::TERMS; t++) {
        double total = block_sum_float64(sum[t]);
        if (threadIdx.x == 0) partial[blockIdx.x * (size_t)Terms::TERMS + t] = total;
    }
}

template <class Terms>
static __global__ void __launch_bounds__(EACH_THREADS)
    totals_kernel(double *totals, const double *partial, unsigned blocks, Terms terms) {
    for (unsigned t = 0; t < Terms::TERMS; t++) {
        double sum = 0;
        for (unsigned b = threadIdx.x; b < blocks; b += EACH_THREADS) sum += partial[b * Terms::TERMS + t];
        double total = block_sum_float64(sum);
        if (threadIdx.x == 0) totals[t] = total;
    }
    if (threadIdx.x == 0) terms.finish(totals);
}

/* What finish made of the sums over `count` elements: TERMS doubles in the lane's scratch, until its next op. */
template <int N, class Terms>
static const double *sum_elements(const char *name, struct lane *lane, const Terms &terms, size_t count, bool vectors) {
    double *totals = static_cast<double *>(lane->scratch), *partial = totals + SUM_TOTALS;
    size_t wanted = ceil_div(count, SUM_BLOCK_ELEMENTS), room = EACH_THREADS * sizeof(double);
    unsigned blocks = (unsigned)(wanted < MOST_SUM_BLOCKS ? wanted : (size_t)MOST_SUM_BLOCKS);
    if (vectors)
        device_launch(name, partial_sums_kernel<N, Terms>, dim3(blocks), dim3(EACH_THREADS), room, partial, terms,
                      count);
    else
        device_launch(name, partial_sums_kernel<1, Terms>, dim3(blocks), dim3(EACH_THREADS), room, partial, terms,
                      count);
    device_launch(name, totals_kernel<Terms>, dim3(1), dim3(EACH_THREADS), room, totals, partial, blocks, terms);
    return totals;
}
