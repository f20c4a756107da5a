/* residual_norm: what enters a block, and its norm, in one pass; see kernels/cpu/residual_norm.c.
 *
 * A warp has a row; its parameters come from the cache. Backward, a warp walks down the rows of a group and keeps the
 * sums over rows in registers, as in columns.cuh. Rows that a lane cannot keep take the single ops instead.
 *
 * At the published preset (R 65,536, D 512) a tensor is 67 MB, 0.0156 ms at 4.3 TB/s:
 *   residual_mix_norm_forward  4 tensors, 0.062 ms, 5 with a skip    _backward  8 tensors, 0.125 ms, 10 with a skip
 * The single ops move 5 (8 with a skip) and 10 (13). Backward, a skip of x itself takes 8, `more` one more, the first
 * of all 7, and the last 7. */
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/rows.cuh"

enum { WALK_WARPS = 4, WALK_THREADS = WALK_WARPS * WARP, WALK_BLOCKS = 3, PACK_WIDTH = WARP * (int)ACTS };

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* x + skip_scale skip, mixed with x0. */
template <bool SKIP> struct mixed_sum {
    const bf16 *x, *skip, *x0;
    const float *skip_scale, *mix;
    size_t dim;
    struct parts {
        uint4 x, skip, x0;
    };
    __device__ parts read(size_t at) const {
        return parts{hold<ACTS>(x + at), SKIP ? hold<ACTS>(skip + at) : uint4{}, hold<ACTS>(x0 + at)};
    }
    /* x' */
    __device__ pack<ACTS> entering(const parts &p, size_t c) const {
        pack<ACTS> sum = unpack(p.x);
        if constexpr (SKIP) {
            pack<ACTS> other = unpack(p.skip), scale = load<ACTS>(skip_scale + c);
            for (int i = 0; i < ACTS; i++) sum.at[i] += scale.at[i] * other.at[i];
        }
        return sum;
    }
    __device__ pack<ACTS> value(const parts &p, size_t c) const {
        pack<ACTS> sum = entering(p, c), start = unpack(p.x0);
        pack<ACTS> mix0 = load<ACTS>(mix + c), mix1 = load<ACTS>(mix + dim + c);
        for (int i = 0; i < ACTS; i++) sum.at[i] = mix0.at[i] * sum.at[i] + mix1.at[i] * start.at[i];
        return sum;
    }
};

/* y = the sum, normed = its norm. */
template <int KEPT, class Sum>
static __global__ void __launch_bounds__(NORM_THREADS)
    sum_norm_kernel(Sum work, bf16 *y, bf16 *normed, float *inv, size_t rows, size_t dim) {
    size_t r = warp_row();
    if (r >= rows) return;
    typename Sum::parts parts[KEPT];
    pack<ACTS> kept[KEPT];
    float sum = 0;
    for (int v = 0; v < KEPT; v++)
        if (column_of<ACTS>(v) < dim) parts[v] = work.read(r * dim + column_of<ACTS>(v));
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v);
        if (c >= dim) continue;
        kept[v] = work.value(parts[v], c);
        for (int i = 0; i < ACTS; i++) sum += kept[v].at[i] * kept[v].at[i];
        store<ACTS>(y + r * dim + c, kept[v]);
    }
    float scale = 1 / sqrtf(warp_sum(sum) / (float)dim + (float)RMS_EPSILON);
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v);
        for (int i = 0; i < ACTS; i++) kept[v].at[i] *= scale;
        if (c < dim) store<ACTS>(normed + r * dim + c, kept[v]);
    }
    if (threadIdx.x % WARP == 0) inv[r] = scale;
}

template <class Sum>
static void launch_sum_norm(const char *name, int packs, const Sum &work, act *y, act *normed, real *inv, size_t rows,
                            size_t dim) {
    auto kernel = packs == 1 ? sum_norm_kernel<1, Sum> : packs == 2 ? sum_norm_kernel<2, Sum> : sum_norm_kernel<4, Sum>;
    device_launch(name, kernel, dim3((unsigned)ceil_div(rows, NORM_WARPS)), dim3(NORM_THREADS), 0, work, acts(y),
                  acts(normed), inv, rows, dim);
}

template <bool SKIP> static mixed_sum<SKIP> mixed_sum_of(const struct residual_inputs *in, size_t dim) {
    return mixed_sum<SKIP>{acts(in->x), acts(in->skip), acts(in->x0), in->skip_scale, in->mix, dim};
}

/* How many packs a lane keeps of a row of these ops: 1, 2 or 4; 0 when the single ops must do it. */
static int packs_kept(size_t dim, bool vectors) {
    int packs = packs_of(dim, vectors);
    return packs <= 4 ? packs : 0;
}

static bool inputs_aligned(const struct residual_inputs *in) {
    return aligned(acts(in->x), acts(in->skip), acts(in->x0)) && aligned(in->skip_scale, in->mix);
}

extern "C" void cuda_residual_mix_norm_forward(struct lane *lane, act *y, act *normed, real *inv,
                                               const struct residual_inputs *in, size_t rows, size_t dim) {
    const char *name = "residual_mix_norm_forward";
    const act *x = in->x;
    int packs = packs_kept(dim, inputs_aligned(in) && aligned(y, normed));
    if (packs && in->skip) return launch_sum_norm(name, packs, mixed_sum_of<true>(in, dim), y, normed, inv, rows, dim);
    if (packs) return launch_sum_norm(name, packs, mixed_sum_of<false>(in, dim), y, normed, inv, rows, dim);
    if (in->skip) {
        cuda_scaled_add_forward(lane, y, x, in->skip_scale, in->skip, rows, dim);
        x = y;
    }
    cuda_residual_mix_forward(lane, y, x, in->x0, in->mix, rows, dim);
    cuda_rms_norm_forward(lane, normed, inv, y, rows, dim);
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

/* What is behind the norm, backwards: pass_on gets the gradient of the normed sum. */
template <bool SKIP> struct mixed_slope {
    enum { SUMS = SKIP ? 3 : 2 };
    mixed_sum<SKIP> sum;
    bf16 *dx, *dx0, *dskip;
    const bf16 *more; /* NULL: none */
    bool begins, ends, skips_itself;
    struct parts {
        typename mixed_sum<SKIP>::parts sum;
        uint4 dx0, more;
    };
    __device__ parts read(size_t at) const {
        return parts{sum.read(at), begins ? uint4{} : hold<ACTS>(dx0 + at), more ? hold<ACTS>(more + at) : uint4{}};
    }
    __device__ void pass_on(const pack<ACTS> &dy, const parts &p, pack<ACTS> (&total)[SUMS], size_t at,
                            size_t c) const {
        pack<ACTS> x = sum.entering(p.sum, c), x0 = unpack(p.sum.x0), d0 = unpack(p.dx0), other = unpack(p.more), d;
        pack<ACTS> mix0 = load<ACTS>(sum.mix + c), mix1 = load<ACTS>(sum.mix + sum.dim + c);
        for (int i = 0; i < ACTS; i++) {
            total[0].at[i] += dy.at[i] * x.at[i];
            total[1].at[i] += dy.at[i] * x0.at[i];
            d0.at[i] += mix1.at[i] * dy.at[i];
            d.at[i] = mix0.at[i] * dy.at[i];
        }
        if constexpr (SKIP) {
            pack<ACTS> skip = unpack(p.sum.skip), scale = load<ACTS>(sum.skip_scale + c);
            for (int i = 0; i < ACTS; i++) {
                total[2].at[i] += d.at[i] * skip.at[i];
                scale.at[i] *= d.at[i];
                if (skips_itself) other.at[i] += scale.at[i];
            }
            if (!skips_itself) store<ACTS>(dskip + at, scale);
        }
        for (int i = 0; i < ACTS; i++) {
            d.at[i] += other.at[i];
            if (ends) d0.at[i] += d.at[i];
        }
        store<ACTS>(dx0 + at, d0);
        if (!ends) store<ACTS>(dx + at, d);
    }
};

/* The gradient of the norm's input beside it, for one row: d comes as that of the rest, and becomes the sum. */
template <int KEPT>
__device__ static inline void add_norm_slope(pack<ACTS> (&d)[KEPT], const uint4 (&dnormed)[KEPT],
                                             const uint4 (&normed)[KEPT], float scale, size_t dim) {
    float dot = 0;
    for (int v = 0; v < KEPT; v++) {
        pack<ACTS> dout = unpack(dnormed[v]), out = unpack(normed[v]);
        for (int i = 0; i < ACTS; i++) dot += dout.at[i] * out.at[i];
    }
    float mean = warp_sum(dot) / (float)dim;
    for (int v = 0; v < KEPT; v++) {
        pack<ACTS> dout = unpack(dnormed[v]), out = unpack(normed[v]);
        for (int i = 0; i < ACTS; i++) d[v].at[i] += scale * (dout.at[i] - out.at[i] * mean);
    }
}

template <int KEPT, class Slope>
__device__ static inline void walk_row(const Slope &work, pack<ACTS> (&total)[KEPT][Slope::SUMS], const bf16 *dnormed,
                                       const bf16 *normed, float scale, size_t r, size_t dim) {
    typename Slope::parts parts[KEPT] = {};
    uint4 beside[KEPT] = {}, dout[KEPT] = {}, out[KEPT] = {};
    pack<ACTS> d[KEPT];
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v), at = r * dim + c;
        if (c >= dim) continue;
        dout[v] = hold<ACTS>(dnormed + at);
        out[v] = hold<ACTS>(normed + at);
        beside[v] = hold<ACTS>(work.dx + at);
        parts[v] = work.read(at);
    }
    for (int v = 0; v < KEPT; v++) d[v] = unpack(beside[v]);
    add_norm_slope<KEPT>(d, dout, out, scale, dim);
    for (int v = 0; v < KEPT; v++) {
        size_t c = column_of<ACTS>(v), at = r * dim + c;
        if (c < dim) work.pass_on(d[v], parts[v], total[v], at, c);
    }
}

template <int KEPT, class Slope>
static __global__ void __launch_bounds__(WALK_THREADS, KEPT <= 2 ? WALK_BLOCKS : 1)
    norm_slope_kernel(Slope work, float *partial, const bf16 *dnormed, const bf16 *normed, const float *inv,
                      size_t rows, size_t dim, size_t group_rows) {
    float *room = shared_memory<float>(); /* WALK_WARPS x PACK_WIDTH */
    size_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    size_t first = blockIdx.x * group_rows, end = first + group_rows < rows ? first + group_rows : rows;
    pack<ACTS> total[KEPT][Slope::SUMS] = {};
    for (size_t r = first + warp; r < end; r += WALK_WARPS)
        walk_row<KEPT, Slope>(work, total, dnormed, normed, inv[r], r, dim);
        /* Unrolled, so that the sums have fixed places: registers. */
#pragma unroll
    for (int v = 0; v < KEPT; v++) {
#pragma unroll
        for (int s = 0; s < Slope::SUMS; s++) {
            __syncthreads();
            for (int i = 0; i < ACTS; i++) room[warp * PACK_WIDTH + lane * ACTS + i] = total[v][s].at[i];
            __syncthreads();
            for (size_t i = threadIdx.x; i < PACK_WIDTH; i += WALK_THREADS) {
                size_t c = v * (size_t)PACK_WIDTH + i;
                float sum = 0;
                for (int w = 0; w < WALK_WARPS; w++) sum += room[w * PACK_WIDTH + i];
                if (c < dim) partial[(blockIdx.x * (size_t)Slope::SUMS + s) * dim + c] = sum;
            }
        }
    }
}

template <class Slope>
static void launch_norm_slope(const char *name, int packs, struct lane *lane, const Slope &work, const act *dnormed,
                              const act *normed, const real *inv, size_t rows, size_t dim) {
    auto kernel = packs == 1   ? norm_slope_kernel<1, Slope>
                  : packs == 2 ? norm_slope_kernel<2, Slope>
                               : norm_slope_kernel<4, Slope>;
    size_t groups = row_groups(rows), group_rows = groups ? ceil_div(rows, groups) : 0;
    device_launch(name, kernel, dim3((unsigned)groups), dim3(WALK_THREADS),
                  (size_t)WALK_WARPS * PACK_WIDTH * sizeof(float), work, static_cast<float *>(lane->scratch),
                  acts(dnormed), acts(normed), inv, rows, dim, group_rows);
}

/* By the single ops; x' is made again, where dskip will be. */
static void mix_norm_backward_by_parts(struct lane *lane, act *dx, act *dx0, act *dskip, real *dmix, real *dskip_scale,
                                       const act *dnormed, const act *normed, const real *inv,
                                       const struct residual_inputs *in, const struct residual_sums *sums, size_t rows,
                                       size_t dim) {
    if (sums->begins) cuda_clear(lane, dx0, rows * dim * sizeof(bf16));
    if (in->skip) cuda_scaled_add_forward(lane, dskip, in->x, in->skip_scale, in->skip, rows, dim);
    cuda_rms_norm_backward(lane, dx, dnormed, normed, inv, rows, dim, true);
    cuda_residual_mix_backward(lane, dx, dx0, dmix, dx, in->skip ? dskip : in->x, in->x0, in->mix, rows, dim);
    if (in->skip) cuda_scaled_add_backward(lane, dskip, dskip_scale, dx, in->skip_scale, in->skip, rows, dim);
    if (in->skip == in->x) cuda_add_into(lane, dx, dskip, rows * dim);
    if (sums->more) cuda_add_into(lane, dx, sums->more, rows * dim);
    if (sums->ends) cuda_add_into(lane, dx0, dx, rows * dim);
}

template <bool SKIP>
static mixed_slope<SKIP> mixed_slope_of(act *dx, act *dx0, act *dskip, const struct residual_inputs *in,
                                        const struct residual_sums *sums, size_t dim) {
    return {mixed_sum_of<SKIP>(in, dim),
            acts(dx),
            acts(dx0),
            acts(dskip),
            acts(sums->more),
            sums->begins,
            sums->ends,
            in->skip == in->x};
}

extern "C" void cuda_residual_mix_norm_backward(struct lane *lane, act *dx, act *dx0, act *dskip, real *dmix,
                                                real *dskip_scale, const act *dnormed, const act *normed,
                                                const real *inv, const struct residual_inputs *in,
                                                const struct residual_sums *sums, size_t rows, size_t dim) {
    const char *name = "residual_mix_norm_backward";
    int packs = packs_kept(dim, inputs_aligned(in) && aligned(dx, dx0, dskip, sums->more) && aligned(dnormed, normed));
    if (!packs)
        return mix_norm_backward_by_parts(lane, dx, dx0, dskip, dmix, dskip_scale, dnormed, normed, inv, in, sums, rows,
                                          dim);
    const float *partial = static_cast<float *>(lane->scratch);
    if (in->skip)
        launch_norm_slope(name, packs, lane, mixed_slope_of<true>(dx, dx0, dskip, in, sums, dim), dnormed, normed, inv,
                          rows, dim);
    else
        launch_norm_slope(name, packs, lane, mixed_slope_of<false>(dx, dx0, dskip, in, sums, dim), dnormed, normed, inv,
                          rows, dim);
    size_t width = in->skip ? 3 * dim : 2 * dim;
    all_tile_sums all = {{{dmix, partial, width, 2 * dim, 1, 0}}};
    if (in->skip) all.sums[1] = {dskip_scale, partial + 2 * dim, width, dim, 1, 0};
    add_tile_sums(all, row_groups(rows));
}
