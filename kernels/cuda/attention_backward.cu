/* attention_backward: gradients of causal softmax attention with grouped queries; see attention.cu for forward.
 *
 * P is recomputed from log_sum, 32 rows of the other side at a step, so its tensor of (time, time) never exists:
 *
 *     P_ij = exp(q_i k_j / sqrt(hd) - log_sum_i);   D_i = rowsum(dout_i o out_i);   dS = P o (dout v^T - D)
 *     dv = P^T dout;   dk = dS^T q / sqrt(hd);   dq = dS k / sqrt(hd)
 *
 * Three kernels, without atomics: the two figures of every row; dk and dv by warpgroups of 64 keys, of which a block's
 * three go together over the heads of their group in order, and over the queries from the block's first key on; dq by
 * warpgroups of 64 queries, of which a block's two, neighbours among the queries of all heads of a group, go together
 * over the keys up to theirs. Two kernels recompute S and dP each, 7 products instead of 5, and need no second buffer
 * of dq in float for each block of keys. P and dS are rounded to bf16 as operands; sums are float, in order.
 *
 * In both, a step's S is multiplied before the sums of the step before, and its dP behind them, so that the tensor
 * cores have these while its scores become probabilities. Nothing is under way where a loop turns, and what a product
 * leaves is changed elsewhere only once nothing is: else ptxas makes the products wait for each other.
 *
 * Published preset, a call: 6.9e11 FLOPs counted as 5 products (9.6e11 done) and 0.5 GB: 0.87 ms at 790 TFLOP/s. */
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_wide.cuh"

namespace {

constexpr int PADDING = 128; /* queries that row_figures_kernel's blocks divide */

struct backward {
    const bf16 *q, *k, *v, *dout, *out;
    bf16 *dq, *dk, *dv;
    const float *log_sum;
    float *base2_sum, *d; /* (batch, heads, padded): log_sum in base 2, D; infinity and 0 behind the last token */
    size_t padded;
    head_layout queries, keys;
    int heads, group;         /* of queries; of them for one of keys */
    float scale, base2_scale; /* 1/sqrt(hd), log2(e)/sqrt(hd) */
};

size_t padded_time(const attention_shape *s) { return ceil_div(s->time, PADDING) * PADDING; }

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
    if (lane == 0) b.base2_sum[row] = log_sum, b.d[row] = d;
}

/* --- what both kernels of gradients share ------------------------------------------------------------------------- */

constexpr int STAGES = 3;
constexpr int STEP = 32; /* rows of the other side at a step: a tile's, or half of them */

__device__ int next_stage(int stage) { return stage + 1 < STAGES ? stage + 1 : 0; }

template <int DIM, bool VECTORS>
__device__ void store_scaled(const head_rows<bf16> &to, own_tile<DIM> *tile, const row_sums<DIM> &sums, float scale) {
    const float factor[2] = {scale, scale};
    store_rows<DIM, VECTORS>(to, tile, sums, factor);
}

/* --- dk and dv ---------------------------------------------------------------------------------------------------- */

template <int DIM> constexpr int KEY_GROUPS = DIM <= 64 ? 3 : 1;
template <int DIM> constexpr int KEY_THREADS = KEY_GROUPS<DIM> *WARPGROUP;
template <int DIM> constexpr int KEY_BLOCKS = DIM <= 64 ? 1 : 2; /* of a multiprocessor */

template <int DIM> struct key_tiles {
    own_tile<DIM> k[KEY_GROUPS<DIM>], v[KEY_GROUPS<DIM>];
    other_tile<DIM> q[STAGES], dout[STAGES];
    float log_sum[STAGES][TILE_ROWS<DIM>], d[STAGES][TILE_ROWS<DIM>];
};

/* A warpgroup's keys and values, their gradients so far, and its step. */
template <int DIM> struct key_group {
    own_rows<DIM, false> k, v;
    row_sums<DIM> dk, dv;
    row_sums<STEP> s, dp;
    operand<STEP> p, ds; /* rounded; p serves dS too: there are no registers to keep the others until dP is known */
    int key;             /* first */
};

/* Probabilities of queries from `query` on; rows are keys. */
template <int DIM> __device__ void weigh(key_group<DIM> &x, const float *log_sums, int query, float scale) {
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
        float2 log_sum = *reinterpret_cast<const float2 *>(log_sums + fragment_column(n, 0));
#pragma unroll
        for (int half = 0; half < 2; half++)
            x.p[n / 2][n % 2 * 2 + half] = pack_bf16(fast_exp2(x.s[n][2 * half] * scale - log_sum.x),
                                                     fast_exp2(x.s[n][2 * half + 1] * scale - log_sum.y));
    }
    if (x.key + OWN_ROWS - 1 <= query) return;
#pragma unroll
    for (int i = 0; i < STEP / 4; i++) { /* those of queries before their key become 0 */
        int ahead = x.key + fragment_row(i % 2 * 2) - query - fragment_column(i / 2, 0);
        x.p[i / 4][i % 4] &= ahead > 1 ? 0 : ahead > 0 ? 0xffff0000u : 0xffffffffu;
    }
}

template <int DIM> __device__ void score_gradients(key_group<DIM> &x, const float *ds) {
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
        float2 d = *reinterpret_cast<const float2 *>(ds + fragment_column(n, 0));
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t p = x.p[n / 2][n % 2 * 2 + half];
            x.ds[n / 2][n % 2 * 2 + half] =
                pack_bf16(low_half(p) * (x.dp[n][2 * half] - d.x), high_half(p) * (x.dp[n][2 * half + 1] - d.y));
        }
    }
}

/* A block goes over the queries of its group's heads, of each from the block's first key on. */
template <int DIM, bool VECTORS> struct query_stream {
    static constexpr int ROWS = TILE_ROWS<DIM>;
    const backward &b;
    int sequence, first, head, heads_end, query; /* of the next tile */

    __device__ bool more() const { return head < heads_end; }
    __device__ void advance() {
        query += ROWS;
        if (query >= b.queries.rows) query = first, head++;
    }
    /* Begins the copy of a tile of queries, of their dout and of their figures, if there is one. */
    __device__ void load(key_tiles<DIM> *t, int stage) {
        constexpr int THREADS = KEY_THREADS<DIM>, LOADS = ROWS / 4;
        int thread = (int)threadIdx.x;
        if (more()) {
            load_rows<THREADS, VECTORS>(&t->q[stage], head_of(b.q, b.queries, sequence, head).from(query), thread);
            load_rows<THREADS, VECTORS>(&t->dout[stage], head_of(b.dout, b.queries, sequence, head).from(query),
                                        thread);
            size_t at = (sequence * b.heads + head) * b.padded + query + thread % LOADS * 4;
            if (thread < LOADS)
                copy_16(&t->log_sum[stage][thread * 4], b.base2_sum + at, true);
            else if (thread < 2 * LOADS)
                copy_16(&t->d[stage][(thread - LOADS) * 4], b.d + at, true);
            advance();
        }
        copy_commit();
    }
};

template <int DIM, bool VECTORS>
__global__ void __launch_bounds__(KEY_THREADS<DIM>, KEY_BLOCKS<DIM>) attention_backward_keys_kernel(backward b) {
    auto *t = shared_memory<key_tiles<DIM>>();
    int kv_heads = b.heads / b.group, sequence = (int)blockIdx.x / kv_heads, kv_head = (int)blockIdx.x % kv_heads;
    int thread = (int)threadIdx.x, warpgroup = thread / WARPGROUP, first = (int)blockIdx.y * KEY_GROUPS<DIM> * OWN_ROWS;
    own_tile<DIM> *own_k = &t->k[warpgroup], *own_v = &t->v[warpgroup];
    key_group<DIM> x;
    x.key = first + warpgroup * OWN_ROWS;

    load_rows<WARPGROUP, VECTORS>(own_k, head_of(b.k, b.keys, sequence, kv_head).from(x.key), thread % WARPGROUP);
    load_rows<WARPGROUP, VECTORS>(own_v, head_of(b.v, b.keys, sequence, kv_head).from(x.key), thread % WARPGROUP);
    query_stream<DIM, VECTORS> loaded = {b, sequence, first, kv_head * b.group, (kv_head + 1) * b.group, first};
    query_stream<DIM, VECTORS> taken = loaded;
    loaded.load(t, 0);
    loaded.load(t, 1);
    clear(x.dk), clear(x.dv);
    copy_wait<1>();
    shared_written();
    __syncthreads();
    x.k.take(own_k), x.v.take(own_v);
    products_begin();
    x.k.multiply_by(x.s, &t->q[0], 0);
    x.v.multiply_by(x.dp, &t->dout[0], 0);
    products_commit();
    products_wait<0>(x.s, x.dp, x.dk, x.dv);
    weigh<DIM>(x, t->log_sum[0], first, b.base2_scale);
    /* Ends the step at row `at` of a tile, and begins the next, of which this leaves p and dP. */
    auto step = [&](int stage, int at, int next, int next_at, auto between) {
        products_begin();
        x.k.multiply_by(x.s, &t->q[next], next_at);
        products_commit();
        add_product<DIM>(x.dv, x.p, &t->dout[stage], at);
        products_commit();
        score_gradients<DIM>(x, t->d[stage] + at);
        products_begin();
        add_product<DIM>(x.dk, x.ds, &t->q[stage], at);
        x.v.multiply_by(x.dp, &t->dout[next], next_at);
        products_commit();
        between();
        products_wait<1>(x.s); /* and for p's */
        weigh<DIM>(x, t->log_sum[next] + next_at, taken.query + next_at, b.base2_scale);
        products_wait<0>(x.dp, x.dk, x.dv);
    };
    constexpr int LAST = TILE_ROWS<DIM> - STEP; /* the first row of a tile's last step */
    int stage = 0;
#pragma unroll 1
    for (;;) {
        if constexpr (LAST > 0) step(stage, 0, stage, LAST, [] {});
        taken.advance();
        if (!taken.more()) break;
        copy_wait<0>();
        shared_written();
        __syncthreads(); /* the next tile has come, and all are done with the one before this */
        int next = next_stage(stage);
        step(stage, LAST, next, 0, [&] { loaded.load(t, next_stage(next)); });
        stage = next;
    }
    score_gradients<DIM>(x, t->d[stage] + LAST);
    products_begin();
    add_product<DIM>(x.dv, x.p, &t->dout[stage], LAST);
    add_product<DIM>(x.dk, x.ds, &t->q[stage], LAST);
    products_commit();
    products_wait<0>(x.dk, x.dv);
    __syncthreads();
    store_scaled<DIM, VECTORS>(head_of(b.dk, b.keys, sequence, kv_head).from(x.key), own_k, x.dk, b.scale);
    store_scaled<DIM, VECTORS>(head_of(b.dv, b.keys, sequence, kv_head).from(x.key), own_v, x.dv, 1);
}

/* --- dq ----------------------------------------------------------------------------------------------------------- */

template <int DIM> constexpr int QUERY_GROUPS = DIM <= 64 ? 2 : 1;
template <int DIM> constexpr int QUERY_THREADS = QUERY_GROUPS<DIM> *WARPGROUP;

template <int DIM> struct query_tiles {
    own_tile<DIM> q[QUERY_GROUPS<DIM>], dout[QUERY_GROUPS<DIM>];
    other_tile<DIM> k[STAGES], v[STAGES];
};

/* A warpgroup's queries, their gradient so far, and its step; a thread has two rows, as fragment_row has them. */
template <int DIM> struct query_group {
    own_rows<DIM, DIM <= 64> q; /* both held would be too many registers for two blocks of a multiprocessor */
    own_rows<DIM, false> dout;
    row_sums<DIM> dq;
    row_sums<STEP> s, dp;
    operand<STEP> ds;
    float log_sum[2], d[2]; /* figures */
    int query;              /* first */
};

/* Scores of keys from `key` on become probabilities. */
template <int DIM> __device__ void weigh(query_group<DIM> &x, int key, float scale) {
#pragma unroll
    for (int at = 0; at < STEP / 2; at++) {
        float &score = x.s[at / 4][at % 4];
        score = fast_exp2(score * scale - x.log_sum[at % 4 / 2]);
    }
    if (key + STEP - 1 > x.query)
#pragma unroll
        for (int at = 0; at < STEP / 2; at++)
            if (key + fragment_column(at / 4, at % 4) > x.query + fragment_row(at % 4)) x.s[at / 4][at % 4] = 0;
}

template <int DIM> __device__ void score_gradients(query_group<DIM> &x) {
#pragma unroll
    for (int i = 0; i < STEP / 4; i++) {
        int n = i / 2, half = i % 2, e = 2 * half;
        x.ds[n / 2][n % 2 * 2 + half] =
            pack_bf16(x.s[n][e] * (x.dp[n][e] - x.d[half]), x.s[n][e + 1] * (x.dp[n][e + 1] - x.d[half]));
    }
}

template <int DIM, bool VECTORS>
__global__ void __launch_bounds__(QUERY_THREADS<DIM>, 2) attention_backward_queries_kernel(backward b) {
    constexpr int ROWS = TILE_ROWS<DIM>;
    auto *t = shared_memory<query_tiles<DIM>>();
    int kv_heads = b.heads / b.group, sequence = (int)blockIdx.x / kv_heads, kv_head = (int)blockIdx.x % kv_heads;
    int thread = (int)threadIdx.x, warpgroup = thread / WARPGROUP, time = b.queries.rows;
    int first_unit = (int)(gridDim.y - 1 - blockIdx.y) * QUERY_GROUPS<DIM>, unit = first_unit + warpgroup;
    int last_query = (first_unit + QUERY_GROUPS<DIM> - 1) / b.group * OWN_ROWS + OWN_ROWS - 1;
    int head = kv_head * b.group + unit % b.group, count = min(last_query, time - 1) / ROWS + 1; /* of tiles */
    own_tile<DIM> *own_q = &t->q[warpgroup], *own_dout = &t->dout[warpgroup];
    auto k = head_of(b.k, b.keys, sequence, kv_head), v = head_of(b.v, b.keys, sequence, kv_head);
    auto load = [&](int tile, int stage) {
        if (tile < count) {
            load_rows<QUERY_THREADS<DIM>, VECTORS>(&t->k[stage], k, thread);
            load_rows<QUERY_THREADS<DIM>, VECTORS>(&t->v[stage], v, thread);
        }
        copy_commit();
        k = k.from(ROWS), v = v.from(ROWS);
    };
    query_group<DIM> x;
    x.query = unit / b.group * OWN_ROWS;

    load_rows<WARPGROUP, VECTORS>(own_q, head_of(b.q, b.queries, sequence, head).from(x.query), thread % WARPGROUP);
    load_rows<WARPGROUP, VECTORS>(own_dout, head_of(b.dout, b.queries, sequence, head).from(x.query),
                                  thread % WARPGROUP);
    load(0, 0);
    load(1, 1);
    clear(x.dq);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t token = x.query + fragment_row(2 * half), at = ((size_t)sequence * b.heads + head) * b.padded + token;
        bool wanted = token < b.padded;
        x.log_sum[half] = wanted ? b.base2_sum[at] : INFINITY;
        x.d[half] = wanted ? b.d[at] : 0;
    }
    copy_wait<1>();
    shared_written();
    __syncthreads();
    x.q.take(own_q), x.dout.take(own_dout);
    products_begin();
    x.q.multiply_by(x.s, &t->k[0], 0);
    x.dout.multiply_by(x.dp, &t->v[0], 0);
    products_commit();
    products_wait<0>(x.s, x.dp, x.dq);
    weigh<DIM>(x, 0, b.base2_scale);
    /* Ends the step at row `at` of a tile, and begins the next, of which this leaves P and dP. */
    auto step = [&](int stage, int at, int next, int next_at, int next_key, auto between) {
        score_gradients<DIM>(x);
        products_begin();
        x.q.multiply_by(x.s, &t->k[next], next_at);
        products_commit();
        add_product<DIM>(x.dq, x.ds, &t->k[stage], at);
        x.dout.multiply_by(x.dp, &t->v[next], next_at);
        products_commit();
        between();
        products_wait<1>(x.s);
        weigh<DIM>(x, next_key, b.base2_scale);
        products_wait<0>(x.dp, x.dq);
    };
    constexpr int LAST = ROWS - STEP; /* the first row of a tile's last step */
    int stage = 0;
#pragma unroll 1
    for (int tile = 0;; tile++) {
        if constexpr (LAST > 0) step(stage, 0, stage, LAST, tile * ROWS + LAST, [] {});
        if (tile + 1 == count) break;
        copy_wait<0>();
        shared_written();
        __syncthreads(); /* the next tile has come, and all are done with the one before this */
        int next = next_stage(stage);
        step(stage, LAST, next, 0, (tile + 1) * ROWS, [&] { load(tile + 2, next_stage(next)); });
        stage = next;
    }
    score_gradients<DIM>(x);
    products_begin();
    add_product<DIM>(x.dq, x.ds, &t->k[stage], LAST);
    products_commit();
    products_wait<0>(x.dq);
    __syncthreads();
    store_scaled<DIM, VECTORS>(head_of(b.dq, b.queries, sequence, head).from(x.query), own_q, x.dq, b.scale);
}

/* --- launches ----------------------------------------------------------------------------------------------------- */

template <int N> void launch_row_figures(const backward &b, const struct attention_shape *s) {
    int lanes = 1, threads = PADDING;
    while (lanes < WARP && (size_t)lanes * N < s->head_dim) lanes *= 2;
    size_t rows = s->batch * s->heads * b.padded;
    LAUNCH(row_figures_kernel<N>, (unsigned)(rows * lanes / threads), threads, 0, b, lanes);
}

template <int DIM, bool VECTORS> void launch_gradients(const backward &b, const struct attention_shape *s) {
    static_assert(sizeof(key_tiles<DIM>) <= LEAST_SHARED && sizeof(query_tiles<DIM>) <= LEAST_SHARED);
    unsigned heads = (unsigned)(s->batch * s->kv_heads);
    size_t rows = ceil_div(s->time, OWN_ROWS);
    dim3 keys(heads, (unsigned)ceil_div(rows, KEY_GROUPS<DIM>));
    dim3 queries(heads, (unsigned)ceil_div(rows * (size_t)b.group, QUERY_GROUPS<DIM>));
    LAUNCH((attention_backward_keys_kernel<DIM, VECTORS>), keys, KEY_THREADS<DIM>, sizeof(key_tiles<DIM>), b);
    LAUNCH((attention_backward_queries_kernel<DIM, VECTORS>), queries, QUERY_THREADS<DIM>, sizeof(query_tiles<DIM>), b);
}

} // namespace

/* For attention_backward the figures of its rows; for decoding q; for attention_prepare_backward a float a head. */
extern "C" size_t cuda_attention_scratch(const struct attention_shape *shape) {
    size_t figures = shape->batch * shape->heads * padded_time(shape) * 2 * sizeof(float);
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
                  .base2_sum = static_cast<float *>(lane->scratch),
                  .d = static_cast<float *>(lane->scratch) + shape->batch * shape->heads * padded_time(shape),
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
        return wide_attention_backward(b.dq, b.dk, b.dv, b.dout, b.base2_sum, b.d, b.padded, tape, shape);
    if (!vectors) return launch_gradients<128, false>(b, shape);
    if (shape->head_dim <= 64) return launch_gradients<64, true>(b, shape);
    launch_gradients<128, true>(b, shape);
}
