/* attention: causal softmax attention with grouped queries, forward (FlashAttention-2, arXiv 2307.08691).
 *
 * A block owns 128 queries of one head and streams over tiles of 64 keys and values. In scores of base 2, with
 * c = log2(e)/sqrt(hd), each query keeps the maximum m of its scores so far and the sum of 2^(c (s - m)):
 *
 *     s = q k^T;  m' = max(m, s);  p = 2^(c (s - m'));  sum = 2^(c (m - m')) sum + rowsum(p);
 *     out = 2^(c (m - m')) out + p v;   at the end out /= sum, log_sum = (c m + log2(sum)) ln 2
 *
 * so no more than 128 x 64 scores exist, in registers. Keys in order; tiles behind the last query are never read, and
 * the blocks with most keys start first.
 *
 * Published preset, a call: 2.7e11 FLOPs (half of 4 T^2 hd heads batch) and 0.2 GB: 0.35 ms at 790 TFLOP/s. mma.sync
 * reaches about 60 % of that rate. */
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_wide.cuh"

namespace {

struct forward {
    const bf16 *q, *k, *v;
    bf16 *out;
    float *log_sum;
    head_layout queries, keys;
    int heads, group; /* of queries; of them for one of keys */
    float scale;      /* log2(e)/sqrt(hd) */
};

/* A warp's running softmax; rows as fragment_row has them. */
template <int DIM> struct softmax {
    float most[tiling<DIM>::TILES][2]; /* c m */
    float sum[tiling<DIM>::TILES][2];  /* of the thread's own columns */
    row_sums<DIM> out;
};

constexpr int SLICES = TILE_ROWS / SLICE;
template <int DIM> using scores = slice_sums<DIM>[SLICES];

template <int DIM> __device__ void start(softmax<DIM> &x) {
    for (int t = 0; t < tiling<DIM>::TILES; t++) {
        for (int half = 0; half < 2; half++) x.most[t][half] = -INFINITY, x.sum[t][half] = 0;
        for (int i = 0; i < DIM / 2; i++) x.out[t][i / 4][i % 4] = 0;
    }
}

/* Scores of keys that a query does not see become -infinity. */
template <int DIM> __device__ void mask(scores<DIM> &s, int query, int key) {
#pragma unroll
    for (int i = 0; i < SLICES; i++)
#pragma unroll
        for (int at = 0; at < tiling<DIM>::TILES * 8; at++) {
            int t = at / 8, n = at / 4 % 2, e = at % 4;
            if (key + i * SLICE + fragment_column(n, e) > query + fragment_row(t, e)) s[i][t][n][e] = -INFINITY;
        }
}

/* Largest of a row's scores; the four threads of a row agree. */
template <int DIM> __device__ float row_most(const scores<DIM> &s, int t, int half) {
    float most = -INFINITY;
#pragma unroll
    for (int i = 0; i < SLICES * 4; i++) most = fmaxf(most, s[i / 4][t][i / 2 % 2][2 * half + i % 2]);
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
}

/* Scores become probabilities against the new maximum; what was summed so far fades to it. */
template <int DIM> __device__ void update(softmax<DIM> &x, scores<DIM> &s, float scale) {
#pragma unroll
    for (int at = 0; at < tiling<DIM>::TILES * 2; at++) {
        int t = at / 2, half = at % 2;
        float most = fmaxf(x.most[t][half], row_most<DIM>(s, t, half) * scale);
        float fade = fast_exp2(x.most[t][half] - most), sum = x.sum[t][half] * fade;
#pragma unroll
        for (int i = 0; i < SLICES * 4; i++) {
            float &score = s[i / 4][t][i / 2 % 2][2 * half + i % 2];
            sum += score = fast_exp2(score * scale - most);
        }
#pragma unroll
        for (int i = 0; i < DIM / 4; i++) x.out[t][i / 2][2 * half + i % 2] *= fade;
        x.most[t][half] = most;
        x.sum[t][half] = sum;
    }
}

template <int DIM>
__device__ void take_keys(softmax<DIM> &x, const operand<DIM> &q, const bf16 *k, const bf16 *v, int query, int key,
                          float scale) {
    scores<DIM> s;
#pragma unroll
    for (int i = 0; i < SLICES; i++) multiply_slice<DIM>(s[i], q, k, i * SLICE);
    if (key + TILE_ROWS - 1 > query) mask<DIM>(s, query, key);
    update<DIM>(x, s, scale);
#pragma unroll
    for (int i = 0; i < SLICES; i++) {
        slice_operand<DIM> p;
        round_slice<DIM>(p, s[i]);
        add_product<DIM>(x.out, p, v, i * SLICE);
    }
}

template <int DIM, bool VECTORS>
__device__ void finish(const softmax<DIM> &x, const head_rows<bf16> &out, bf16 *tile, float *log_sum) {
    float undo[tiling<DIM>::TILES][2];
#pragma unroll
    for (int at = 0; at < tiling<DIM>::TILES * 2; at++) {
        int t = at / 2, half = at % 2, row = fragment_row(t, 2 * half);
        float sum = x.sum[t][half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        undo[t][half] = 1 / sum;
        if (threadIdx.x % 4 == 0 && row < out.rows) log_sum[row] = (x.most[t][half] + log2f(sum)) / LOG2_E;
    }
    store_rows<DIM, VECTORS>(out, tile, x.out, undo);
}

template <int DIM, bool VECTORS>
__global__ void __launch_bounds__(tiling<DIM>::THREADS, tiling<DIM>::BLOCKS) attention_forward_kernel(forward f) {
    constexpr int TILE = tiling<DIM>::TILE;
    bf16 *tiles = shared_memory<bf16>(); /* k, v, and k, v of the next tile; at first q in the latter's place */
    int sequence = (int)blockIdx.x / f.heads, head = (int)blockIdx.x % f.heads;
    int first = (int)(gridDim.y - 1 - blockIdx.y) * OWN_ROWS, own = (int)threadIdx.x / WARP * tiling<DIM>::WARP_ROWS;
    int query = first + own, time = f.queries.rows, keys = min(first + OWN_ROWS, time);
    auto q = head_of(f.q, f.queries, sequence, head);
    auto k = head_of(f.k, f.keys, sequence, head / f.group), v = head_of(f.v, f.keys, sequence, head / f.group);

    load_rows<DIM, OWN_ROWS, VECTORS>(tiles + 2 * TILE, q.from(first));
    copy_commit();
    load_rows<DIM, TILE_ROWS, VECTORS>(tiles, k);
    load_rows<DIM, TILE_ROWS, VECTORS>(tiles + TILE, v);
    copy_commit();
    copy_wait<1>();
    __syncthreads();
    operand<DIM> rows;
    load_operand<DIM>(rows, tiles + 2 * TILE, own);
    softmax<DIM> x;
    start<DIM>(x);
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
        if (query < time && key < query + tiling<DIM>::WARP_ROWS)
            take_keys<DIM>(x, rows, now, now + TILE, query, key, f.scale);
    }
    __syncthreads();
    finish<DIM, VECTORS>(x, head_of(f.out, f.queries, sequence, head).from(query), tiles + own * tiling<DIM>::STRIDE,
                         f.log_sum + (size_t)blockIdx.x * time + query);
}

template <int DIM, bool VECTORS> void launch(const forward &f, const struct attention_shape *s) {
    dim3 grid((unsigned)(s->batch * s->heads), (unsigned)ceil_div(s->time, OWN_ROWS));
    LAUNCH((attention_forward_kernel<DIM, VECTORS>), grid, tiling<DIM>::THREADS, 4 * tiling<DIM>::TILE * sizeof(bf16),
           f);
}

} // namespace

extern "C" void cuda_attention_forward(struct lane *, act *out, struct attention_tape *tape,
                                       const struct attention_shape *shape) {
    forward f = {.q = acts(tape->q),
                 .k = acts(tape->k),
                 .v = acts(tape->v),
                 .out = acts(out),
                 .log_sum = tape->log_sum,
                 .queries = layout_of(shape, shape->heads),
                 .keys = layout_of(shape, shape->kv_heads),
                 .heads = (int)shape->heads,
                 .group = (int)(shape->heads / shape->kv_heads),
                 .scale = LOG2_E / sqrtf((float)shape->head_dim)};
    if (shape->head_dim > WIDEST_HEAD) return wide_attention_forward(f.out, tape, shape);
    if (shape->head_dim % ACTS != 0 || !aligned(tape->q, tape->k, tape->v, out)) return launch<128, false>(f, shape);
    if (shape->head_dim <= 32) return launch<32, true>(f, shape);
    if (shape->head_dim <= 64) return launch<64, true>(f, shape);
    launch<128, true>(f, shape);
}
