/* norm: RMS norm without a weight; the mathematics is in kernels/cpu/norm.c.
 *
 * A warp has one row at a time. Rows of up to KEPT x 256 elements stay in its registers between the sum and its use,
 * longer ones and those at odd addresses are read twice.
 *
 * At the published preset (R 65,536, D 512) a tensor is 67 MB, inv 0.3 MB:
 *   rms_norm_forward   2 tensors, 0.031 ms at 4.3 TB/s    _backward  4 tensors, 0.062 ms; 3 where it only writes */
#include "kernels/cuda/rows.cuh"

template <int KEPT>
static __global__ void __launch_bounds__(NORM_THREADS)
    rms_norm_kernel(bf16 *y, float *inv, const bf16 *x, size_t rows, size_t dim) {
    size_t r = warp_row();
    if (r >= rows) return;
    pack<ACTS> kept[KEPT];
    float sum = 0;
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v);
        kept[v] = c < dim ? load<ACTS>(x + r * dim + c) : pack<ACTS>{};
        for (int i = 0; i < ACTS; i++) sum += kept[v].at[i] * kept[v].at[i];
    }
    float scale = 1 / sqrtf(warp_sum(sum) / (float)dim + (float)RMS_EPSILON);
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v);
        for (int i = 0; i < ACTS; i++) kept[v].at[i] *= scale;
        if (c < dim) store<ACTS>(y + r * dim + c, kept[v]);
    }
    if (threadIdx.x % WARP == 0) inv[r] = scale;
}

static __global__ void __launch_bounds__(NORM_THREADS)
    rms_norm_any_kernel(bf16 *y, float *inv, const bf16 *x, size_t rows, size_t dim) {
    size_t r = warp_row();
    if (r >= rows) return;
    float sum = 0;
    for (size_t c = threadIdx.x % WARP; c < dim; c += WARP) sum += to_float(x[r * dim + c]) * to_float(x[r * dim + c]);
    float scale = 1 / sqrtf(warp_sum(sum) / (float)dim + (float)RMS_EPSILON);
    for (size_t c = threadIdx.x % WARP; c < dim; c += WARP) y[r * dim + c] = to_bf16(to_float(x[r * dim + c]) * scale);
    if (threadIdx.x % WARP == 0) inv[r] = scale;
}

template <int KEPT>
static __global__ void __launch_bounds__(NORM_THREADS)
    rms_norm_slope_kernel(bf16 *dx, const bf16 *dy, const bf16 *y, const float *inv, size_t rows, size_t dim,
                          bool accumulate) {
    size_t r = warp_row();
    if (r >= rows) return;
    pack<ACTS> dout[KEPT], out[KEPT], din[KEPT];
    float sum = 0;
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v), at = r * dim + c;
        dout[v] = c < dim ? load<ACTS>(dy + at) : pack<ACTS>{};
        out[v] = c < dim ? load<ACTS>(y + at) : pack<ACTS>{};
        din[v] = accumulate && c < dim ? load<ACTS>(dx + at) : pack<ACTS>{};
        for (int i = 0; i < ACTS; i++) sum += dout[v].at[i] * out[v].at[i];
    }
    float scale = inv[r], mean = warp_sum(sum) / (float)dim;
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v);
        for (int i = 0; i < ACTS; i++) din[v].at[i] += scale * (dout[v].at[i] - out[v].at[i] * mean);
        if (c < dim) store<ACTS>(dx + r * dim + c, din[v]);
    }
}

static __global__ void __launch_bounds__(NORM_THREADS)
    rms_norm_slope_any_kernel(bf16 *dx, const bf16 *dy, const bf16 *y, const float *inv, size_t rows, size_t dim,
                              bool accumulate) {
    size_t r = warp_row();
    if (r >= rows) return;
    float sum = 0;
    for (size_t at = r * dim + threadIdx.x % WARP; at < (r + 1) * dim; at += WARP)
        sum += to_float(dy[at]) * to_float(y[at]);
    float scale = inv[r], mean = warp_sum(sum) / (float)dim;
    for (size_t at = r * dim + threadIdx.x % WARP; at < (r + 1) * dim; at += WARP)
        dx[at] = to_bf16((accumulate ? to_float(dx[at]) : 0) + scale * (to_float(dy[at]) - to_float(y[at]) * mean));
}

extern "C" void cuda_rms_norm_forward(struct lane *, act *y, real *inv, const act *x, size_t rows, size_t dim) {
    auto kernel = rms_norm_any_kernel;
    switch (packs_of(dim, aligned(y, x))) {
    case 1:
        kernel = rms_norm_kernel<1>;
        break;
    case 2:
        kernel = rms_norm_kernel<2>;
        break;
    case 4:
        kernel = rms_norm_kernel<4>;
        break;
    case 8:
        kernel = rms_norm_kernel<8>;
        break;
    }
    device_launch("rms_norm_forward", kernel, dim3((unsigned)ceil_div(rows, NORM_WARPS)), dim3(NORM_THREADS), 0,
                  acts(y), inv, acts(x), rows, dim);
}

extern "C" void cuda_rms_norm_backward(struct lane *, act *dx, const act *dy, const act *y, const real *inv,
                                       size_t rows, size_t dim, bool accumulate) {
    auto kernel = rms_norm_slope_any_kernel;
    switch (packs_of(dim, aligned(dx, dy, y))) {
    case 1:
        kernel = rms_norm_slope_kernel<1>;
        break;
    case 2:
        kernel = rms_norm_slope_kernel<2>;
        break;
    case 4:
        kernel = rms_norm_slope_kernel<4>;
        break;
    case 8:
        kernel = rms_norm_slope_kernel<8>;
        break;
    }
    device_launch("rms_norm_backward", kernel, dim3((unsigned)ceil_div(rows, NORM_WARPS)), dim3(NORM_THREADS), 0,
                  acts(dx), acts(dy), acts(y), inv, rows, dim, accumulate);
}
