/* weights: what the forward pass sees instead of the master weights; the mathematics is in kernels/cpu/weights.c.
 *
 * For 26.2 million parameters (105 MB a tensor), at 4.3 TB/s:
 *   ternarize           3 tensors, 0.073 ms (one of them for the mean)    ternarize_backward  7 tensors, 0.171 ms
 *   fake_quantize_rows  2 tensors, 0.049 ms: a row's second reading comes from the cache
 *   scale_rows          1.5 tensors, 0.037 ms                             scale_rows_backward  3 tensors, 0.073 ms */
#include "kernels/cuda/rounding.cuh"
#include "kernels/cuda/sums.cuh"

enum { ROW_WARPS = EACH_THREADS / (int)WARP };
static constexpr double LEAST_SCALE = 1e-5;

struct ternary_scale {
    enum { TERMS = 1 };
    const float *w;
    size_t count;
    template <int N> __device__ void add(double (&sum)[TERMS], size_t at) const {
        pack<N> p = load<N>(w + at);
        for (int i = 0; i < N; i++) sum[0] += (double)fabsf(p.at[i]);
    }
    __device__ void finish(double *totals) const {
        double mean = totals[0] / (double)count;
        totals[0] = mean > LEAST_SCALE ? mean : LEAST_SCALE;
    }
};

struct ternary {
    float *out;
    const float *w;
    const double *scale;
    template <int N> __device__ void run(size_t at) const {
        float s = (float)*scale;
        pack<N> p = load<N>(w + at);
        for (int i = 0; i < N; i++) p.at[i] = s * round_within(p.at[i] / s, 1);
        store<N>(out + at, p);
    }
};

extern "C" void cuda_ternarize(struct lane *lane, real *out, const real *w, size_t count) {
    const double *scale = sum_elements<FLOATS>("ternarize", lane, ternary_scale{w, count}, count, aligned(w));
    for_each_element<FLOATS>("ternarize", ternary{out, w, scale}, count, aligned(out, w));
}

/* sum |w| and sum of G (out - w) give the slope, 0 when s is clamped. */
struct ternary_slope {
    enum { TERMS = 2 };
    const float *dw, *w, *effective;
    size_t count;
    template <int N> __device__ void add(double (&sum)[TERMS], size_t at) const {
        pack<N> g = load<N>(dw + at), p = load<N>(w + at), e = load<N>(effective + at);
        for (int i = 0; i < N; i++) {
            sum[0] += (double)fabsf(p.at[i]);
            sum[1] += (double)g.at[i] * ((double)e.at[i] - (double)p.at[i]);
        }
    }
    __device__ void finish(double *totals) const {
        double mean = totals[0] / (double)count;
        totals[0] = mean <= LEAST_SCALE ? 0 : totals[1] / mean / (double)count;
    }
};

struct ternary_correction {
    float *dw;
    const float *w;
    const double *by;
    template <int N> __device__ void run(size_t at) const {
        float slope = (float)*by;
        pack<N> g = load<N>(dw + at), p = load<N>(w + at);
        for (int i = 0; i < N; i++) g.at[i] += p.at[i] > 0 ? slope : p.at[i] < 0 ? -slope : 0;
        store<N>(dw + at, g);
    }
};

extern "C" void cuda_ternarize_backward(struct lane *lane, real *dw, const real *w, const real *effective,
                                        size_t count) {
    const double *slope = sum_elements<FLOATS>("ternarize_backward", lane, ternary_slope{dw, w, effective, count},
                                               count, aligned(dw, w, effective));
    for_each_element<FLOATS>("ternarize_backward", ternary_correction{dw, w, slope}, count, aligned(dw, w));
}

template <int N>
static __global__ void __launch_bounds__(EACH_THREADS)
    fake_quantize_kernel(float *out, const float *w, size_t rows, size_t cols, float limit, float floor) {
    size_t r = blockIdx.x * (size_t)ROW_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (r >= rows) return;
    float most = 0;
    for (size_t c = lane * N; c < cols; c += (size_t)WARP * N) {
        pack<N> p = load<N>(w + r * cols + c);
        for (int i = 0; i < N; i++) most = fabsf(p.at[i]) > most ? fabsf(p.at[i]) : most;
    }
    float s = warp_max(most) / limit;
    s = s < floor ? floor : s;
    s = s > 0 ? s : 1; /* a row of zeros: any scale gives zeros */
    for (size_t c = lane * N; c < cols; c += (size_t)WARP * N) {
        pack<N> p = load<N>(w + r * cols + c);
        for (int i = 0; i < N; i++) p.at[i] = s * round_within(p.at[i] / s, limit);
        store<N>(out + r * cols + c, p);
    }
}

extern "C" void cuda_fake_quantize_rows(struct lane *, real *out, const real *w, size_t rows, size_t cols, int qmax,
                                        bool floor_scale) {
    auto kernel = aligned(out, w) && cols % FLOATS == 0 ? fake_quantize_kernel<FLOATS> : fake_quantize_kernel<1>;
    float limit = (float)qmax;
    device_launch("fake_quantize_rows", kernel, dim3((unsigned)ceil_div(rows, ROW_WARPS)), dim3(EACH_THREADS), 0, out,
                  w, rows, cols, limit, floor_scale ? 1 / limit : 0.0f);
}

/* A warp has a row. */
template <int N>
static __global__ void __launch_bounds__(EACH_THREADS)
    scale_rows_kernel(bf16 *to, const float *w, const float *scale, size_t rows, size_t cols) {
    size_t r = blockIdx.x * (size_t)ROW_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (r >= rows) return;
    float s = scale[r];
    for (size_t c = lane * N; c < cols; c += (size_t)WARP * N) {
        pack<N> p = load<N>(w + r * cols + c);
        for (int i = 0; i < N; i++) p.at[i] *= s;
        store<N>(to + r * cols + c, p);
    }
}

extern "C" void cuda_scale_rows(struct lane *, act *to, const real *w, const real *scale, size_t rows, size_t cols) {
    auto kernel = aligned(w) && aligned(acts(to)) && cols % ACTS == 0 ? scale_rows_kernel<ACTS> : scale_rows_kernel<1>;
    device_launch("scale_rows", kernel, dim3((unsigned)ceil_div(rows, ROW_WARPS)), dim3(EACH_THREADS), 0, acts(to), w,
                  scale, rows, cols);
}

template <int N>
static __global__ void __launch_bounds__(EACH_THREADS)
    scale_rows_backward_kernel(float *dw, float *dscale, const float *w, const float *scale, size_t rows, size_t cols) {
    size_t r = blockIdx.x * (size_t)ROW_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (r >= rows) return;
    float s = scale[r], sum = 0;
    for (size_t c = lane * N; c < cols; c += (size_t)WARP * N) {
        pack<N> g = load<N>(dw + r * cols + c), p = load<N>(w + r * cols + c);
        for (int i = 0; i < N; i++) {
            sum += p.at[i] * g.at[i];
            g.at[i] *= s;
        }
        store<N>(dw + r * cols + c, g);
    }
    sum = warp_sum(sum);
    if (lane == 0) dscale[r] += sum;
}

extern "C" void cuda_scale_rows_backward(struct lane *, real *dw, real *dscale, const real *w, const real *scale,
                                         size_t rows, size_t cols) {
    auto kernel =
        aligned(dw, w) && cols % FLOATS == 0 ? scale_rows_backward_kernel<FLOATS> : scale_rows_backward_kernel<1>;
    device_launch("scale_rows_backward", kernel, dim3((unsigned)ceil_div(rows, ROW_WARPS)), dim3(EACH_THREADS), 0, dw,
                  dscale, w, scale, rows, cols);
}
