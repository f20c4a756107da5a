/* attention_backward: gradients of causal softmax attention with grouped queries; see attention.cu for forward.
 *
 * P is recomputed from log_sum, a slice of 16 columns at a time, so its tensor of (time, time) never exists:
 *
 *     P_ij = exp(q_i k_j / sqrt(hd) - log_sum_i);   D_i = rowsum(dout_i o out_i);   dS = P o (dout v^T - D)
 *     dv = P^T dout;   dk = dS^T q / sqrt(hd);   dq = dS k / sqrt(hd)
 *
 * Three kernels, without atomics: the two figures of every row; dk and dv by blocks of 128 keys, which stream over the
 * heads of their group in order and over the queries from their own on; dq by blocks of 128 queries, which stream over
 * the keys up to theirs. Two kernels recompute S and dP each, 7 products instead of 5, and need no second buffer of dq
 * in float for each block of keys. P and dS are rounded to bf16 as operands; sums are float, in order.
 *
 * Published preset, a call: 6.9e11 FLOPs counted as 5 products (9.6e11 done) and 0.5 GB: 0.87 ms at 790 TFLOP/s. */
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_wide.cuh"

namespace {

constexpr int SLICES = TILE_ROWS / SLICE;

struct backward {
    const bf16 *q, *k, *v, *dout, *out;
    bf16 *dq, *dk, *dv;
    const float *log_sum;
    float2 *rows; /* (batch, heads, padded): log_sum in base 2, and D; infinity and 0 behind the last token */
    size_t padded;
    head_layout queries, keys;
    int heads, group;         /* of queries; of them for one of keys */
    float scale, base2_scale; /* 1/sqrt(hd), log2(e)/sqrt(hd) */
};

size_t padded_time(const attention_shape *s) { return ceil_div(s->time, OWN_ROWS) * OWN_ROWS; }

/* --- figures of a row --------------------------------------------------------------------------------------------- */

/* The thread's share of x y: packs of N, `lanes` of them apart. */
template <int N> __device__ float dot(const bf16 *x, const bf16 *y, int dim, int lane, int lanes) {
    float sum = 0;
    for (int i = lane * N; i < dim; i += lanes * N) {
        pack<N> a = load<N>(x + i), b = load<N>(y + i);
        for (int j = 0; j < N; j++) sum += a.at[j] * b.at[j];
    }
    return sum;
}

/* `lanes` threads a row, a power of two; blockDim.x / lanes rows a block, which divides `padded`. */
template <int N> __global__ void row_figures_kernel(backward b, int lanes) {
    size_t row = (size_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    int token = (int)(row % b.padded), head = (int)(row / b.padded), lane = (int)threadIdx.x % lanes;
    auto dout = head_of(b.dout, b.queries, head / b.heads, head % b.heads).from(token);
    auto out = head_of(b.out, b.queries, head / b.heads, head % b.heads).from(token);
    bool wanted = token < b.queries.rows;
    float d = wanted ? dot<N>(dout.first, out.first, dout.dim, lane, lanes) : 0;
    for (int offset = lanes / 2; offset > 0; offset /= 2) d += __shfl_xor_sync(0xffffffffu, d, offset);
    float log_sum = wanted ? b.log_sum[(size_t)head * b.queries.rows + token] * LOG2_E : INFINITY;
    if (lane == 0) b.rows[row] = make_float2(log_sum, d);
}

/* --- dk and dv ---------------------------------------------------------------------------------------------------- */

/* What a block has of a tile of queries: q, dout, figures, one behind the other. */
template <int DIM> constexpr int FIGURES_AT = 2 * tiling<DIM>::TILE;
template <int DIM> constexpr int QUERY_TILE = FIGURES_AT<DIM> + TILE_ROWS *(int)(sizeof(float2) / sizeof(bf16));

/* A warp's keys and values, and their gradients so far. */
template <int DIM> struct key_warp {
    operand<DIM> k, v;
    row_sums<DIM> dk, dv;
    int key; /* first */
};

/* Queries `slice`.. of a tile, whose first is `query`. EDGE: some of the keys come after some of the queries. Rounded
 * probabilities serve dS too: there are no registers to keep the others until dP is known. */
template <int DIM, bool EDGE>
__device__ void take_query_slice(key_warp<DIM> &x, const bf16 *q, int query, int slice, float scale) {
    const bf16 *dout = q + tiling<DIM>::TILE;
    const float2 *rows = reinterpret_cast<const float2 *>(q + FIGURES_AT<DIM>);
    slice_sums<DIM> s;
    slice_operand<DIM> p, ds;
    multiply_slice<DIM>(s, x.k, q, slice);
#pragma unroll
    for (int n = 0; n < 2; n++) {
        float4 row = *reinterpret_cast<const float4 *>(rows + slice + fragment_column(n, 0));
#pragma unroll
        for (int at = 0; at < tiling<DIM>::TILES * 4; at++) {
            int t = at / 4, e = at % 4;
            s[t][n][e] = fast_exp2(s[t][n][e] * scale - (e % 2 ? row.z : row.x));
            if (EDGE && x.key + fragment_row(t, e) > query + slice + fragment_column(n, e)) s[t][n][e] = 0;
        }
    }
    round_slice<DIM>(p, s);
    multiply_slice<DIM>(s, x.v, dout, slice);
    add_product<DIM>(x.dv, p, dout, slice);
#pragma unroll
    for (int n = 0; n < 2; n++) {
        float4 row = *reinterpret_cast<const float4 *>(rows + slice + fragment_column(n, 0));
#pragma unroll
        for (int at = 0; at < tiling<DIM>::TILES * 4; at++) {
            int t = at / 4, e = at % 4;
            uint32_t pair = p[t][2 * n + e / 2];
            s[t][n][e] = (e % 2 ? high_half(pair) : low_half(pair)) * (s[t][n][e] - (e % 2 ? row.w : row.y));
        }
    }
    round_slice<DIM>(ds, s);
    add_product<DIM>(x.dk, ds, q, slice);
}

template <int DIM> __device__ void take_queries(key_warp<DIM> &x, const bf16 *q, int query, float scale) {
    if (x.key + tiling<DIM>::WARP_ROWS - 1 <= query) {
#pragma unroll 1
        for (int i = 0; i < SLICES; i++) take_query_slice<DIM, false>(x, q, query, i * SLICE, scale);
    } else {
#pragma unroll 1
        for (int i = 0; i < SLICES; i++)
            if (query + (i + 1) * SLICE > x.key) take_query_slice<DIM, true>(x, q, query, i * SLICE, scale);
    }
}

template <int DIM> __device__ void clear(row_sums<DIM> &sums) {
#pragma unroll
    for (int i = 0; i < tiling<DIM>::TILES * DIM / 2; i++) sums[i / (DIM / 2)][i / 4 % (DIM / 8)][i % 4] = 0;
}

template <int DIM, bool VECTORS>
__device__ void store_scaled(const head_rows<bf16> &to, bf16 *tile, const row_sums<DIM> &sums, float scale) {
    float factor[tiling<DIM>::TILES][2];
    for (int t = 0; t < tiling<DIM>::TILES; t++) factor[t][0] = factor[t][1] = scale;
    store_rows<DIM, VECTORS>(to, tile, sums, factor);
}

/* Begins the copy of a tile of queries, of their dout and of their figures. */
template <int DIM, bool VECTORS>
__device__ void load_queries(bf16 *q, const backward &b, int sequence, int head, int query) {
    load_rows<DIM, TILE_ROWS, VECTORS>(q, head_of(b.q, b.queries, sequence, head).from(query));
    load_rows<DIM, TILE_ROWS, VECTORS>(q + tiling<DIM>::TILE, head_of(b.dout, b.queries, sequence, head).from(query));
    int at = 2 * (int)threadIdx.x;
    if (at < TILE_ROWS)
        copy_16(reinterpret_cast<float2 *>(q + FIGURES_AT<DIM>) + at,
                b.rows + (sequence * b.heads + head) * b.padded + query + at, true);
    copy_commit();
}

template <int DIM, bool VECTORS>
__global__ void __launch_bounds__(tiling<DIM>::THREADS, tiling<DIM>::BLOCKS)
    attention_backward_keys_kernel(backward b) {
    constexpr int TILE = tiling<DIM>::TILE;
    bf16 *tiles = shared_memory<bf16>(); /* two of queries; at first, and at the end, two of k and two of v */
    int kv_heads = b.heads / b.group, sequence = (int)blockIdx.x / kv_heads, kv_head = (int)blockIdx.x % kv_heads;
    int first = (int)blockIdx.y * OWN_ROWS, time = b.queries.rows;
    int own = (int)threadIdx.x / WARP * tiling<DIM>::WARP_ROWS;

    load_rows<DIM, OWN_ROWS, VECTORS>(tiles, head_of(b.k, b.keys, sequence, kv_head).from(first));
    load_rows<DIM, OWN_ROWS, VECTORS>(tiles + 2 * TILE, head_of(b.v, b.keys, sequence, kv_head).from(first));
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    key_warp<DIM> x;
    x.key = first + own;
    load_operand<DIM>(x.k, tiles, own);
    load_operand<DIM>(x.v, tiles + 2 * TILE, own);
    clear<DIM>(x.dk), clear<DIM>(x.dv);
    __syncthreads();

    int head = kv_head * b.group, heads_end = head + b.group;
    load_queries<DIM, VECTORS>(tiles, b, sequence, head, first);
#pragma unroll 1
    for (int query = first, turn = 0; head < heads_end; turn ^= 1) {
        copy_wait<0>();
        __syncthreads(); /* this tile has come, and all are done with the one before */
        int now = query;
        query += TILE_ROWS;
        if (query >= time) query = first, head++;
        if (head < heads_end)
            load_queries<DIM, VECTORS>(tiles + (turn ^ 1) * QUERY_TILE<DIM>, b, sequence, head, query);
        if (x.key < time) take_queries<DIM>(x, tiles + turn * QUERY_TILE<DIM>, now, b.base2_scale);
    }
    __syncthreads();
    tiles += own * tiling<DIM>::STRIDE;
    store_scaled<DIM, VECTORS>(head_of(b.dk, b.keys, sequence, kv_head).from(x.key), tiles, x.dk, b.scale);
    store_scaled<DIM, VECTORS>(head_of(b.dv, b.keys, sequence, kv_head).from(x.key), tiles + 2 * TILE, x.dv, 1);
}

/* --- dq ----------------------------------------------------------------------------------------------------------- */

template <int DIM> struct query_warp {
    operand<DIM> q, dout;
    row_sums<DIM> dq;
    float2 rows[tiling<DIM>::TILES][2]; /* figures */
    int query;                          /* first */
};

template <int DIM, bool EDGE>
__device__ void take_key_slice(query_warp<DIM> &x, const bf16 *k, const bf16 *v, int key, int slice, float scale) {
    slice_sums<DIM> p, ds;
    slice_operand<DIM> a;
    multiply_slice<DIM>(p, x.q, k, slice);
    multiply_slice<DIM>(ds, x.dout, v, slice);
#pragma unroll
    for (int at = 0; at < tiling<DIM>::TILES * 8; at++) {
        int t = at / 8, n = at / 4 % 2, e = at % 4;
        float probability = fast_exp2(p[t][n][e] * scale - x.rows[t][e / 2].x);
        if (EDGE && key + slice + fragment_column(n, e) > x.query + fragment_row(t, e)) probability = 0;
        ds[t][n][e] = probability * (ds[t][n][e] - x.rows[t][e / 2].y);
    }
    round_slice<DIM>(a, ds);
    add_product<DIM>(x.dq, a, k, slice);
}

template <int DIM> __device__ void take_keys(query_warp<DIM> &x, const bf16 *k, const bf16 *v, int key, float scale) {
    if (key + TILE_ROWS - 1 <= x.query) {
#pragma unroll 1
        for (int i = 0; i < SLICES; i++) take_key_slice<DIM, false>(x, k, v, key, i * SLICE, scale);
    } else {
#pragma unroll 1
        for (int i = 0; i < SLICES; i++)
            if (key + i * SLICE < x.query + tiling<DIM>::WARP_ROWS)
                take_key_slice<DIM, true>(x, k, v, key, i * SLICE, scale);
    }
}

template <int DIM, bool VECTORS>
__global__ void __launch_bounds__(tiling<DIM>::THREADS, tiling<DIM>::BLOCKS)
    attention_backward_queries_kernel(backward b) {
    constexpr int TILE = tiling<DIM>::TILE;
    bf16 *tiles = shared_memory<bf16>(); /* k and v of two tiles, at first q and dout */
    int sequence = (int)blockIdx.x / b.heads, head = (int)blockIdx.x % b.heads, kv_head = head / b.group;
    int first = (int)(gridDim.y - 1 - blockIdx.y) * OWN_ROWS, time = b.queries.rows;
    int own = (int)threadIdx.x / WARP * tiling<DIM>::WARP_ROWS, keys = min(first + OWN_ROWS, time);

    load_rows<DIM, OWN_ROWS, VECTORS>(tiles, head_of(b.q, b.queries, sequence, head).from(first));
    load_rows<DIM, OWN_ROWS, VECTORS>(tiles + 2 * TILE, head_of(b.dout, b.queries, sequence, head).from(first));
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    query_warp<DIM> x;
    x.query = first + own;
    load_operand<DIM>(x.q, tiles, own);
    load_operand<DIM>(x.dout, tiles + 2 * TILE, own);
    clear<DIM>(x.dq);
#pragma unroll
    for (int i = 0; i < tiling<DIM>::TILES * 2; i++)
        x.rows[i / 2][i % 2] = b.rows[(size_t)blockIdx.x * b.padded + x.query + fragment_row(i / 2, i % 2 * 2)];
    __syncthreads();

    auto k = head_of(b.k, b.keys, sequence, kv_head);
    auto v = head_of(b.v, b.keys, sequence, kv_head);
    load_rows<DIM, TILE_ROWS, VECTORS>(tiles, k);
    load_rows<DIM, TILE_ROWS, VECTORS>(tiles + TILE, v);
    copy_commit();
#pragma unroll 1
    for (int key = 0, turn = 0; key < keys; key += TILE_ROWS, turn ^= 1) {
        copy_wait<0>();
        __syncthreads(); /* this tile has come, and all are done with the one before */
        bf16 *next = tiles + (turn ^ 1) * 2 * TILE, *now = tiles + turn * 2 * TILE;
        if (key + TILE_ROWS < keys) {
            k = k.from(TILE_ROWS), v = v.from(TILE_ROWS);
            load_rows<DIM, TILE_ROWS, VECTORS>(next, k);
            load_rows<DIM, TILE_ROWS, VECTORS>(next + TILE, v);
            copy_commit();
        }
        if (x.query < time && key < x.query + tiling<DIM>::WARP_ROWS)
            take_keys<DIM>(x, now, now + TILE, key, b.base2_scale);
    }
    __syncthreads();
    tiles += own * tiling<DIM>::STRIDE;
    store_scaled<DIM, VECTORS>(head_of(b.dq, b.queries, sequence, head).from(x.query), tiles, x.dq, b.scale);
}

/* --- launches ----------------------------------------------------------------------------------------------------- */

template <int N> void launch_row_figures(const backward &b, const struct attention_shape *s) {
    int lanes = 1, threads = OWN_ROWS;
    while (lanes < WARP && (size_t)lanes * N < s->head_dim) lanes *= 2;
    size_t rows = s->batch * s->heads * b.padded;
    LAUNCH(row_figures_kernel<N>, (unsigned)(rows * lanes / threads), threads, 0, b, lanes);
}

template <int DIM, bool VECTORS> void launch_gradients(const backward &b, const struct attention_shape *s) {
    unsigned blocks = (unsigned)(b.padded / OWN_ROWS);
    LAUNCH((attention_backward_keys_kernel<DIM, VECTORS>), dim3((unsigned)(s->batch * s->kv_heads), blocks),
           tiling<DIM>::THREADS, 2 * QUERY_TILE<DIM> * sizeof(bf16), b);
    LAUNCH((attention_backward_queries_kernel<DIM, VECTORS>), dim3((unsigned)(s->batch * s->heads), blocks),
           tiling<DIM>::THREADS, 4 * tiling<DIM>::TILE * sizeof(bf16), b);
}

} // namespace

/* For attention_backward the figures of its rows; for decoding q; for attention_prepare_backward a float a head. */
extern "C" size_t cuda_attention_scratch(const struct attention_shape *shape) {
    size_t figures = shape->batch * shape->heads * padded_time(shape) * sizeof(float2);
    size_t query = shape->batch * shape->heads * shape->head_dim * sizeof(bf16);
    return figures > query ? figures : query;
}

extern "C" void cuda_attention_backward(struct lane *lane, act *dq, act *dk, act *dv, const act *dout, const act *out,
                                        const struct attention_tape *tape, const struct attention_shape *shape) {
    bool vectors = shape->head_dim % ACTS == 0 && aligned(tape->q, tape->k, tape->v, dout, out, dq, dk, dv);
    backward b = {.q = acts(tape->q),
                  .k = acts(tape->k),
                  .v = acts(tape->v),
                  .dout = acts(dout),
                  .out = acts(out),
                  .dq = acts(dq),
                  .dk = acts(dk),
                  .dv = acts(dv),
                  .log_sum = tape->log_sum,
                  .rows = static_cast<float2 *>(lane->scratch),
                  .padded = padded_time(shape),
                  .queries = layout_of(shape, shape->heads),
                  .keys = layout_of(shape, shape->kv_heads),
                  .heads = (int)shape->heads,
                  .group = (int)(shape->heads / shape->kv_heads),
                  .scale = 1 / sqrtf((float)shape->head_dim),
                  .base2_scale = LOG2_E / sqrtf((float)shape->head_dim)};
    if (vectors)
        launch_row_figures<ACTS>(b, shape);
    else
        launch_row_figures<1>(b, shape);
    if (shape->head_dim > WIDEST_HEAD)
        return wide_attention_backward(b.dq, b.dk, b.dv, b.dout, b.rows, b.padded, tape, shape);
    if (!vectors) return launch_gradients<128, false>(b, shape);
    if (shape->head_dim <= 32) return launch_gradients<32, true>(b, shape);
    if (shape->head_dim <= 64) return launch_gradients<64, true>(b, shape);
    launch_gradients<128, true>(b, shape);
}
