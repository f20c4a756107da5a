/* attention: causal softmax attention with grouped queries, forward (FlashAttention-3, arXiv 2407.08608).
 *
 * A warpgroup owns 64 queries of one head; a block's two have neighbours among the queries of all heads that share a
 * head of keys, and go together over its tiles of keys and values. In scores of base 2, with c = log2(e)/sqrt(hd),
 * each query keeps a bound c m of its scores so far and the sum of 2^(c (s - m)):
 *
 *     s = q k^T;  m' = m or max(m, s);  p = 2^(c (s - m'));  sum = 2^(c (m - m')) sum + rowsum(p);
 *     out = 2^(c (m - m')) out + p v;   at the end out /= sum, log_sum = (c m + log2(sum)) ln 2
 *
 * A warp keeps its m while no score exceeds one by more than 8 in base 2, which spares most of the fading of out. No
 * more than one tile of scores exists, in registers: a tile's scores are multiplied before the probabilities of the
 * tile before are with values, so that the tensor cores have that product while the scores become probabilities. Keys
 * in order; tiles behind the last query are never read, and the blocks with most keys start first.
 *
 * Published preset, a call: 2.7e11 FLOPs (half of 4 T^2 hd heads batch) and 0.2 GB: 0.35 ms at 790 TFLOP/s. At hd 64
 * the 1.1e9 exponentials take as long by themselves, at 16 a cycle and multiprocessor. */
#include "kernels/cuda/attention_ring.cuh"
#include "kernels/cuda/attention_wide.cuh"

namespace {

struct forward {
    const bf16 *q, *k, *v;
    bf16 *out;
    float *log_sum;
    head_layout queries, keys;
    int heads, group; /* of queries; of them for one of keys */
    float scale;      /* log2(e)/sqrt(hd) */
    tensor_map k_map, v_map;
};

template <bool IN_BULK> constexpr int STAGES = IN_BULK ? 5 : 3;
template <bool IN_BULK> constexpr int AHEAD = IN_BULK ? 3 : 2;
constexpr int GROUPS = 2, THREADS = GROUPS * WARPGROUP;
constexpr float KEPT = 8; /* how far a score may exceed the bound, in base 2 */

template <int DIM, bool IN_BULK> struct tiles {
    own_tile<DIM> q[GROUPS];
    other_tile<DIM> k[STAGES<IN_BULK>], v[STAGES<IN_BULK>];
    ring_barriers<STAGES<IN_BULK>> barriers;
};
template <int DIM> using scores = row_sums<TILE_ROWS<DIM>>;

/* A warpgroup's queries; a thread has two rows, as fragment_row has them. */
template <int DIM> struct softmax {
    own_rows<DIM, false> q; /* held in registers it is slower: products then wait for those before to be issued */
    float bound[2];         /* c m */
    float sum[2];           /* of the thread's own columns */
    row_sums<DIM> out;
    int query; /* first */
};

/* Scores of keys that a query does not see become -infinity. */
template <int DIM> __device__ void mask(scores<DIM> &s, int query, int key) {
#pragma unroll
    for (int at = 0; at < TILE_ROWS<DIM> / 2; at++) {
        int n = at / 4, e = at % 4;
        if (key + fragment_column(n, e) > query + fragment_row(e)) s[n][e] = -INFINITY;
    }
}

/* Largest of a row's scores; the four threads of a row agree. */
template <int DIM> __device__ float row_most(const scores<DIM> &s, int half) {
    float most = -INFINITY, other = -INFINITY; /* two chains */
#pragma unroll
    for (int n = 0; n < TILE_ROWS<DIM> / 8; n++)
        most = fmaxf(most, s[n][2 * half]), other = fmaxf(other, s[n][2 * half + 1]);
    most = fmaxf(most, other);
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
}

/* Raises the bounds where the warp must; returns whether, and by which factors what was summed so far fades. */
template <int DIM> __device__ bool raise(softmax<DIM> &x, const scores<DIM> &s, float scale, float (&fade)[2]) {
    float most[2];
    bool higher = false;
    for (int half = 0; half < 2; half++) {
        most[half] = fmaxf(x.bound[half], row_most<DIM>(s, half) * scale);
        higher |= most[half] > x.bound[half] + KEPT;
    }
    if (!__any_sync(0xffffffffu, higher)) return false;
    for (int half = 0; half < 2; half++) {
        fade[half] = fast_exp2(x.bound[half] - most[half]);
        x.sum[half] *= fade[half];
        x.bound[half] = most[half];
    }
    return true;
}

/* Scores become probabilities against the bounds. */
template <int DIM> __device__ void exponentials(softmax<DIM> &x, scores<DIM> &s, float scale) {
#pragma unroll
    for (int at = 0; at < TILE_ROWS<DIM> / 2; at++) {
        float &score = s[at / 4][at % 4];
        x.sum[at % 4 / 2] += score = fast_exp2(score * scale - x.bound[at % 4 / 2]);
    }
}

/* The scores of keys from `key` on become probabilities; returns whether, and by which factors out fades. */
template <int DIM> __device__ bool weigh(softmax<DIM> &x, scores<DIM> &s, int key, float scale, float (&fade)[2]) {
    if (key + TILE_ROWS<DIM> - 1 > x.query) mask<DIM>(s, x.query, key);
    bool fades = raise<DIM>(x, s, scale, fade);
    exponentials<DIM>(x, s, scale);
    return fades;
}

template <int DIM, bool VECTORS>
__device__ void finish(const softmax<DIM> &x, const head_rows<bf16> &out, own_tile<DIM> *tile, float *log_sum) {
    float undo[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = fragment_row(2 * half);
        float sum = x.sum[half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        undo[half] = 1 / sum;
        if (threadIdx.x % 4 == 0 && row < out.rows) log_sum[row] = (x.bound[half] + log2f(sum)) / LOG2_E;
    }
    store_rows<DIM, VECTORS>(out, tile, x.out, undo);
}

template <int DIM, bool VECTORS>
__global__ void __launch_bounds__(THREADS, DIM <= 64 ? 2 : 1)
    attention_forward_kernel(const __grid_constant__ forward f) {
    constexpr int ROWS = TILE_ROWS<DIM>;
    constexpr bool IN_BULK = BULK<VECTORS>;
    auto *t = shared_memory<tiles<DIM, IN_BULK>>();
    int kv_heads = f.heads / f.group, sequence = (int)blockIdx.x / kv_heads, kv_head = (int)blockIdx.x % kv_heads;
    int thread = (int)threadIdx.x, warpgroup = uniform(thread / WARPGROUP), time = f.queries.rows;
    int first_unit = (int)(gridDim.y - 1 - blockIdx.y) * GROUPS, unit = first_unit + warpgroup;
    int head = kv_head * f.group + unit % f.group, end = (first_unit + GROUPS - 1) / f.group * OWN_ROWS + OWN_ROWS;
    int count = (min(end, time) + ROWS - 1) / ROWS; /* of tiles */
    auto loaded = keys_of<DIM, VECTORS, STAGES<IN_BULK>, GROUPS>(f, t, sequence, kv_head, count);
    auto taken = loaded.at;
    softmax<DIM> x;
    x.query = unit / f.group * OWN_ROWS;

    load_rows<WARPGROUP, VECTORS>(&t->q[warpgroup], head_of(f.q, f.queries, sequence, head).from(x.query),
                                  thread % WARPGROUP);
    copy_commit();
    loaded.at.begin();
    for (int i = 0; i < AHEAD<IN_BULK>; i++) loaded.load();
    for (int half = 0; half < 2; half++) x.bound[half] = -INFINITY, x.sum[half] = 0;
    clear(x.out);
    copy_wait<IN_BULK ? 0 : 1>();
    shared_written();
    __syncthreads();
    if constexpr (IN_BULK) taken.wait();
    x.q.take(&t->q[warpgroup]);
    scores<DIM> s;
    operand<TILE_ROWS<DIM>> p;
    float fade[2];
    products_begin();
    x.q.multiply_by(s, &t->k[0], 0);
    products_commit();
    products_wait<0>(s, x.out);
    weigh<DIM>(x, s, 0, f.scale, fade);
    round_sums(p, s);
#pragma unroll 1
    for (int tile = 0; tile + 1 < count; tile++) {
        auto place = taken;
        taken.advance();
        taken.wait();
        products_begin();
        x.q.multiply_by(s, &t->k[taken.stage], 0);
        products_commit();
        add_product<DIM>(x.out, p, &t->v[place.stage], 0);
        products_commit();
        loaded.load();
        products_wait<1>(s);
        bool fades = weigh<DIM>(x, s, (tile + 1) * ROWS, f.scale, fade);
        products_wait<0>(x.out);
        place.spend();
        if (fades)
#pragma unroll
            for (int i = 0; i < DIM / 2; i++) x.out[i / 4][i % 4] *= fade[i % 4 / 2];
        round_sums(p, s);
    }
    products_begin();
    add_product<DIM>(x.out, p, &t->v[taken.stage], 0);
    products_commit();
    products_wait<0>(x.out);
    __syncthreads();
    finish<DIM, VECTORS>(x, head_of(f.out, f.queries, sequence, head).from(x.query), &t->q[warpgroup],
                         f.log_sum + ((size_t)sequence * f.heads + head) * time + x.query);
}

template <int DIM, bool VECTORS> void launch(forward f, const struct attention_shape *s) {
    static_assert(sizeof(tiles<DIM, false>) <= LEAST_SHARED);
    size_t units = ceil_div(s->time, OWN_ROWS) * (size_t)f.group, bytes = sizeof(tiles<DIM, false>);
    dim3 grid((unsigned)(s->batch * s->kv_heads), (unsigned)ceil_div(units, GROUPS));
    if (VECTORS && is_hopper()) {
        bytes = sizeof(tiles<DIM, true>);
        f.k_map = map_of_heads<DIM>(f.k, s, s->kv_heads), f.v_map = map_of_heads<DIM>(f.v, s, s->kv_heads);
    }
    LAUNCH((attention_forward_kernel<DIM, VECTORS>), grid, THREADS, bytes, f);
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
    if (shape->head_dim <= 64) return launch<64, true>(f, shape);
    launch<128, true>(f, shape);
}
