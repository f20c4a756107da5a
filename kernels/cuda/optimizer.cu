/* optimizer: Adam, Muon's momentum and update, moving averages; the mathematics is in kernels/cpu/adam.c and muon.c.
 *
 * Each tensor is read and written once. For 26.2 million parameters (105 MB a tensor), at 4.3 TB/s:
 *   adam_step       7 tensors, 0.171 ms     muon_momentum   4 tensors, 0.098 ms
 *   muon_apply      3 tensors, 0.073 ms     normalize_rows  2 tensors, 0.049 ms
 *   moving_average  3 tensors, 0.073 ms */
#include "kernels/cuda/vectors.cuh"

enum { ROW_WARPS = 8, ROW_THREADS = ROW_WARPS * WARP };
static const double NORM_EPSILON = 1e-7;

struct adam {
    float *w, *m, *v;
    const float *g;
    const adam_settings *settings;
    template <int N> __device__ void run(size_t at) const {
        const float beta1 = (float)settings->beta1, new1 = (float)settings->new1;
        const float beta2 = (float)settings->beta2, new2 = (float)settings->new2;
        const float rate = (float)settings->rate, root = (float)settings->root, epsilon = (float)settings->epsilon;
        pack<N> weight = load<N>(w + at), first = load<N>(m + at), second = load<N>(v + at), d = load<N>(g + at);
        for (int i = 0; i < N; i++) {
            first.at[i] = beta1 * first.at[i] + new1 * d.at[i];
            second.at[i] = beta2 * second.at[i] + new2 * d.at[i] * d.at[i];
            weight.at[i] -= rate * first.at[i] / (sqrtf(second.at[i]) * root + epsilon);
        }
        store<N>(m + at, first);
        store<N>(v + at, second);
        store<N>(w + at, weight);
    }
};

extern "C" void cuda_adam_step(struct lane *, real *w, real *m, real *v, const real *g, size_t count,
                               const struct adam_settings *settings) {
    for_each_element<FLOATS>("adam_step", adam{w, m, v, g, settings}, count, aligned(w, m, v, g));
}

struct averaging {
    float *average;
    const float *w;
    float keep, take;
    template <int N> __device__ void run(size_t at) const {
        pack<N> a = load<N>(average + at), x = load<N>(w + at);
        for (int i = 0; i < N; i++) a.at[i] = keep * a.at[i] + take * x.at[i];
        store<N>(average + at, a);
    }
};

extern "C" void cuda_moving_average(struct lane *, real *average, const real *w, size_t count, double decay) {
    for_each_element<FLOATS>("moving_average", averaging{average, w, (float)decay, (float)(1 - decay)}, count,
                             aligned(average, w));
}

struct nesterov {
    float *update, *momentum;
    const float *g;
    const muon_settings *settings;
    template <int N> __device__ void run(size_t at) const {
        const float keep = (float)settings->momentum;
        pack<N> m = load<N>(momentum + at), d = load<N>(g + at);
        for (int i = 0; i < N; i++) {
            m.at[i] = keep * m.at[i] + d.at[i];
            d.at[i] += keep * m.at[i];
        }
        store<N>(momentum + at, m);
        store<N>(update + at, d);
    }
};

extern "C" void cuda_muon_momentum(struct lane *, real *update, real *momentum, const real *g, size_t count,
                                   const struct muon_settings *settings) {
    for_each_element<FLOATS>("muon_momentum", nesterov{update, momentum, g, settings}, count,
                             aligned(update, momentum, g));
}

struct decayed_step {
    float *w;
    const float *update;
    const muon_settings *settings;
    double scale;
    template <int N> __device__ void run(size_t at) const {
        const float keep = (float)settings->keep, step = (float)(settings->rate * scale);
        pack<N> x = load<N>(w + at), u = load<N>(update + at);
        for (int i = 0; i < N; i++) x.at[i] = x.at[i] * keep - step * u.at[i];
        store<N>(w + at, x);
    }
};

extern "C" void cuda_muon_apply(struct lane *, real *w, const real *update, size_t count,
                                const struct muon_settings *settings, double scale) {
    for_each_element<FLOATS>("muon_apply", decayed_step{w, update, settings, scale}, count, aligned(w, update));
}

/* A warp a row; its second reading comes from the cache. */
template <int N>
static __global__ void __launch_bounds__(ROW_THREADS) normalize_rows_kernel(float *x, size_t rows, size_t cols) {
    size_t r = blockIdx.x * (size_t)ROW_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (r >= rows) return;
    double sum = 0;
    for (size_t c = lane * N; c < cols; c += (size_t)WARP * N) {
        pack<N> p = load<N>(x + r * cols + c);
        for (int i = 0; i < N; i++) sum += (double)p.at[i] * (double)p.at[i];
    }
    for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    float factor = (float)(1 / (sqrt(sum) + NORM_EPSILON));
    for (size_t c = lane * N; c < cols; c += (size_t)WARP * N) {
        pack<N> p = load<N>(x + r * cols + c);
        for (int i = 0; i < N; i++) p.at[i] *= factor;
        store<N>(x + r * cols + c, p);
    }
}

extern "C" void cuda_normalize_rows(struct lane *, real *x, size_t rows, size_t cols) {
    auto kernel = aligned(x) && cols % FLOATS == 0 ? normalize_rows_kernel<FLOATS> : normalize_rows_kernel<1>;
    device_launch("normalize_rows", kernel, dim3((unsigned)ceil_div(rows, ROW_WARPS)), dim3(ROW_THREADS), 0, x, rows,
                  cols);
}
