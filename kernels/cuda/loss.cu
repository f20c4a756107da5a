/* loss: cross-entropy of soft-capped logits; the mathematics is in kernels/cpu/loss.c.
 *
 * A warp has ROWS_PER_WARP rows, one after the other. Rows of up to 1024 logits stay in its registers between the
 * search for the largest and the sum, longer ones are read twice; what a row costs in float64 is done at the end, one
 * row a lane.
 *
 * At the published preset (R 65,536, V 1024), at 4.3 TB/s:
 *   cross_entropy_forward   268 MB, 0.062 ms    _backward  268 + 134 MB, 0.094 ms
 *   softcap                 2 x 268 MB, 0.125 ms
 * An element needs three special functions (two for tanh, one for exp): 0.056 ms at 16 a clock on 132 processors. */
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/vectors.cuh"

enum {
    LOSS_WARPS = 8,
    LOSS_THREADS = LOSS_WARPS * WARP,
    ROWS_PER_WARP = 8,
    BLOCK_ROWS = LOSS_WARPS * ROWS_PER_WARP,
    KEPT = 8,
    MOST_KEPT = KEPT * FLOATS * WARP
};

struct soft_cap {
    float inverse_cap, scale; /* s = scale tanh(logit inverse_cap) */
    double cap, temperature;  /* scale is their quotient */
};

struct row_sum {
    float top, sum; /* sum of exp(s - top) */
};

/* tanh is monotonic: the largest s comes from the largest logit. What is not a number shows in the sum. */
__device__ static inline row_sum sum_of_kept_row(const float *row, size_t vocab, const soft_cap &cap) {
    size_t lane = threadIdx.x % WARP;
    pack<FLOATS> kept[KEPT];
    float most = -INFINITY, sum = 0;
    for (int v = 0; v < KEPT; v++) {
        size_t c = (v * WARP + lane) * FLOATS;
        for (int i = 0; i < FLOATS; i++) kept[v].at[i] = -INFINITY;
        if (c < vocab) kept[v] = load<FLOATS>(row + c);
    }
    for (int v = 0; v < KEPT; v++)
        for (int i = 0; i < FLOATS; i++) most = kept[v].at[i] > most ? kept[v].at[i] : most;
    float top = cap.scale * fast_tanh(warp_max(most) * cap.inverse_cap);
    for (int v = 0; v < KEPT; v++)
        if ((v * WARP + lane) * FLOATS < vocab)
            for (int i = 0; i < FLOATS; i++)
                sum += fast_exp(cap.scale * fast_tanh(kept[v].at[i] * cap.inverse_cap) - top);
    return row_sum{top, warp_sum(sum)};
}

__device__ static inline row_sum sum_of_any_row(const float *row, size_t vocab, const soft_cap &cap) {
    float most = -INFINITY, sum = 0;
    for (size_t c = threadIdx.x % WARP; c < vocab; c += WARP) most = row[c] > most ? row[c] : most;
    float top = cap.scale * fast_tanh(warp_max(most) * cap.inverse_cap);
    for (size_t c = threadIdx.x % WARP; c < vocab; c += WARP)
        sum += fast_exp(cap.scale * fast_tanh(row[c] * cap.inverse_cap) - top);
    return row_sum{top, warp_sum(sum)};
}

template <bool REGISTERS>
static __global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_kernel(double *nll, float *log_sum, const float *logits, const int32_t *targets, size_t rows,
                         size_t vocab, soft_cap cap) {
    size_t first = blockIdx.x * (size_t)BLOCK_ROWS + threadIdx.x / WARP * ROWS_PER_WARP, lane = threadIdx.x % WARP;
    row_sum mine = {0, 1};
    for (size_t k = 0; k < ROWS_PER_WARP && first + k < rows; k++) {
        const float *row = logits + (first + k) * vocab;
        row_sum found = REGISTERS ? sum_of_kept_row(row, vocab, cap) : sum_of_any_row(row, vocab, cap);
        if (k == lane) mine = found;
    }
    size_t r = first + lane;
    if (lane >= ROWS_PER_WARP || r >= rows) return;
    double total = (double)mine.top + log((double)mine.sum);
    double target = (double)logits[r * vocab + (size_t)targets[r]];
    log_sum[r] = (float)total;
    nll[r] = total - cap.cap * tanh(target / cap.cap) / cap.temperature;
}

extern "C" void cuda_cross_entropy_forward(struct lane *, double *nll, real *log_sum, const real *logits,
                                           const int32_t *targets, size_t rows, size_t vocab, double cap,
                                           double temperature) {
    soft_cap s = {(float)(1 / cap), (float)(cap / temperature), cap, temperature};
    bool registers = aligned(logits) && vocab % FLOATS == 0 && vocab <= MOST_KEPT;
    device_launch("cross_entropy_forward", registers ? cross_entropy_kernel<true> : cross_entropy_kernel<false>,
                  dim3((unsigned)ceil_div(rows, BLOCK_ROWS)), dim3(LOSS_THREADS), 0, nll, log_sum, logits, targets,
                  rows, vocab, s);
}

template <int N>
static __global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_slope_kernel(bf16 *dlogits, const float *logits, const float *log_sum, const int32_t *targets,
                               float scale, size_t rows, size_t vocab, float inverse_cap, float cap) {
    size_t r = blockIdx.x * (size_t)LOSS_WARPS + threadIdx.x / WARP;
    if (r >= rows) return;
    const float shift = log_sum[r];
    const size_t target = (size_t)targets[r];
    for (size_t c = threadIdx.x % WARP * N; c < vocab; c += (size_t)WARP * N) {
        pack<N> p = load<N>(logits + r * vocab + c);
        for (int i = 0; i < N; i++) {
            float t = fast_tanh(p.at[i] * inverse_cap), wanted = c + i == target ? 1 : 0;
            p.at[i] = scale * (fast_exp(cap * t - shift) - wanted) * (1 - t * t);
        }
        store<N>(dlogits + r * vocab + c, p);
    }
}

extern "C" void cuda_cross_entropy_backward(struct lane *, act *dlogits, const real *logits, const real *log_sum,
                                            const int32_t *targets, double scale, size_t rows, size_t vocab,
                                            double cap) {
    bool vectors = aligned(acts(dlogits)) && aligned(logits) && vocab % ACTS == 0;
    device_launch("cross_entropy_backward", vectors ? cross_entropy_slope_kernel<ACTS> : cross_entropy_slope_kernel<1>,
                  dim3((unsigned)ceil_div(rows, LOSS_WARPS)), dim3(LOSS_THREADS), 0, acts(dlogits), logits, log_sum,
                  targets, (float)scale, rows, vocab, (float)(1 / cap), (float)cap);
}

struct capping {
    float *y;
    const float *logits;
    float inverse_cap, cap;
    template <int N> __device__ void run(size_t at) const {
        pack<N> p = load<N>(logits + at);
        for (int i = 0; i < N; i++) p.at[i] = cap * fast_tanh(p.at[i] * inverse_cap);
        store<N>(y + at, p);
    }
};

extern "C" void cuda_softcap(struct lane *, real *y, const real *logits, size_t count, double cap) {
    for_each_element<FLOATS>("softcap", capping{y, logits, (float)(1 / cap), (float)cap}, count, aligned(y, logits));
}
