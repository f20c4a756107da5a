/* sampling: the tokens that a decoder reads next, and those drawn from its logits; as in kernels/cpu/sampling.c.
 *
 * A block draws for one sequence: all threads make the weights, one adds them up in their order and looks for the
 * token. That thread's additions, one after the other, are what a draw takes: some 10 us at a vocabulary of 1024. */
#include "kernels/cuda/functions.cuh"

namespace {

enum { THREADS = 256, WARPS = THREADS / WARP };

__global__ void __launch_bounds__(THREADS)
    next_tokens_kernel(int32_t *length, int32_t *ids, int32_t *buckets, const int32_t *tokens, size_t rows,
                       size_t sequences, size_t bucket_count) {
    const int32_t before = *length;
    const int32_t *next = tokens + (size_t)before % rows * sequences;
    for (size_t s = threadIdx.x; s < sequences; s += THREADS) {
        if (bucket_count) buckets[s] = bucket_of(ids[s], next[s], bucket_count);
        ids[s] = next[s];
    }
    __syncthreads();
    if (threadIdx.x == 0) *length = before + 1;
}

struct draw {
    int32_t *tokens;
    float *logits;
    const double *uniforms;
    const int32_t *length;
    size_t rows, sequences, vocab;
    double temperature;
};

__device__ float highest_of(const float *logits, size_t vocab) {
    float *room = shared_memory<float>(), most = -INFINITY;
    for (size_t i = threadIdx.x; i < vocab; i += THREADS) most = fmaxf(most, logits[i]);
    most = warp_max(most);
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = most;
    __syncthreads();
    for (unsigned i = 0; i < WARPS; i++) most = fmaxf(most, room[i]);
    return most;
}

__device__ int32_t passing_token(const float *weights, size_t vocab, double uniform) {
    double total = 0, sum = 0;
#pragma unroll 16
    for (size_t i = 0; i < vocab; i++) total += (double)weights[i];
    const double bound = uniform * total;
    for (size_t i = 0; i + 1 < vocab; i++) {
        sum += (double)weights[i];
        if (sum > bound) return (int32_t)i;
    }
    return (int32_t)vocab - 1;
}

__global__ void __launch_bounds__(THREADS) draw_tokens_kernel(draw d) {
    float *logits = d.logits + blockIdx.x * d.vocab;
    const double highest = (double)highest_of(logits, d.vocab);
    for (size_t i = threadIdx.x; i < d.vocab; i += THREADS)
        logits[i] = (float)exp(((double)logits[i] - highest) / d.temperature);
    __syncthreads();
    const size_t at = (size_t)*d.length % d.rows * d.sequences + blockIdx.x;
    if (threadIdx.x == 0) d.tokens[at] = passing_token(logits, d.vocab, d.uniforms[at]);
}

} // namespace

extern "C" void cuda_next_tokens(struct lane *, int32_t *length, int32_t *ids, int32_t *buckets, const int32_t *tokens,
                                 size_t rows, size_t sequences, size_t bucket_count) {
    LAUNCH(next_tokens_kernel, 1, THREADS, 0, length, ids, buckets, tokens, rows, sequences, bucket_count);
}

extern "C" void cuda_draw_tokens(struct lane *, int32_t *tokens, real *logits, const double *uniforms,
                                 const int32_t *length, size_t rows, size_t sequences, size_t vocab,
                                 double temperature) {
    LAUNCH(draw_tokens_kernel, (unsigned)sequences, THREADS, WARPS * sizeof(float),
           draw{tokens, logits, uniforms, length, rows, sequences, vocab, temperature});
}
