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
 * of dq in float for each block of keys. P and dS are rounded to bf16 as operands; sums are float, in order. For dk, dS
 * is the product of P and dP - D each rounded, two at a time.
 *
 * In both, a step's S is multiplied before the sums of the step before, and its dP behind them, so that the tensor
 * cores have these while its scores become probabilities. Nothing is under way where a loop turns, and what a product
 * leaves is changed elsewhere only once nothing is: else ptxas makes the products wait for each other. Tiles come by a
 * ring (attention_ring.cuh), in which a warpgroup passes over queries that see none of its keys.
 *
 * Published preset, a call: 6.9e11 FLOPs counted as 5 products (9.6e11 done) and 0.5 GB: 0.87 ms at 790 TFLOP/s; those
 * done, 0.70 ms for dk and dv and 0.52 for dq, of which each alone took 0.88 and 0.69 on an H200. */
#include "kernels/cuda/attention_ring.cuh"
#include "kernels/cuda/attention_wide.cuh"

namespace {

constexpr int PADDING = 128; /* a head's rows of figures are a multiple of it */

struct backward {
    const bf16 *q, *k, *v, *dout, *out;
    bf16 *dq, *dk, *dv;
    const float *log_sum;
    float *base2_sum, *d; /* (batch, heads, padded): log_sum in base 2, D; infinity and 0 behind the last token */
    size_t padded;
    head_layout queries, keys;
    int heads, group;         /* of queries; of them for one of keys */
    float scale, base2_scale; /* 1/sqrt(hd), log2(e)/sqrt(hd) */
    tensor_map q_map, k_map, v_map, dout_map;
};

size_t padded_time(const attention_shape *s) { return ceil_div(s->time, PADDING) * PADDING; }

/* --- figures of a row --------------------------------------------------------------------------------------------- */

constexpr int FIGURE_THREADS = 128, FIGURE_ROWS = 4; /* rows that a thread has a share of, read together */

/* A block has neighbours among a sequence's rows (token, head) as they stand in memory, `lanes` threads a row, a power
 * of two. One lane of a row's writes its figures, each the next row's. */
template <int N>
__global__ void __launch_bounds__(FIGURE_THREADS, 7) row_figures_kernel(backward b, unsigned lanes, unsigned blocks) {
    const unsigned sequence = blockIdx.x / blocks, lane = threadIdx.x % lanes, apart = FIGURE_THREADS / lanes;
    const unsigned first = blockIdx.x % blocks * FIGURE_ROWS * apart + threadIdx.x / lanes;
    const unsigned heads = (unsigned)b.heads, rows = (unsigned)b.queries.rows * heads;
    const size_t start = sequence * b.queries.sequence, dim = (size_t)b.queries.dim;
    float d[FIGURE_ROWS] = {}, log_sum[FIGURE_ROWS];
    size_t to[FIGURE_ROWS];
    for (unsigned k = 0; k < FIGURE_ROWS; k++) {
        unsigned row = first + k * apart, token = row / heads, head = sequence * heads + row % heads;
        bool writes = k % lanes == lane;
        to[k] = writes && token < b.padded ? head * b.padded + token : SIZE_MAX;
        log_sum[k] = writes && row < rows ? b.log_sum[(size_t)head * b.queries.rows + token] * LOG2_E : INFINITY;
    }
    for (size_t i = lane * N; i < dim; i += lanes * N) {
        held<N> x[FIGURE_ROWS] = {}, y[FIGURE_ROWS] = {};
        for (unsigned k = 0; k < FIGURE_ROWS; k++) {
            unsigned row = first + k * apart;
            if (row >= rows) continue;
            x[k] = hold<N>(b.dout + start + row * dim + i);
            y[k] = hold<N>(b.out + start + row * dim + i);
        }
        for (unsigned k = 0; k < FIGURE_ROWS; k++) {
            pack<N> p = unpack(x[k]), q = unpack(y[k]);
            for (int j = 0; j < N; j++) d[k] += p.at[j] * q.at[j];
        }
    }
    for (unsigned k = 0; k < FIGURE_ROWS; k++) {
        for (unsigned offset = lanes / 2; offset > 0; offset /= 2) d[k] += __shfl_xor_sync(0xffffffffu, d[k], offset);
        if (to[k] == SIZE_MAX) continue;
        b.base2_sum[to[k]] = log_sum[k];
        b.d[to[k]] = d[k];
    }
}

/* --- what both kernels of gradients share ------------------------------------------------------------------------- */

constexpr int STEP = 32; /* rows of the other side at a step: a tile's, or half of them */

template <int DIM, bool VECTORS>
__device__ void store_scaled(const head_rows<bf16> &to, own_tile<DIM> *tile, const row_sums<DIM> &sums, float scale) {
    const float factor[2] = {scale, scale};
    store_rows<DIM, VECTORS>(to, tile, sums, factor);
}

/* --- dk and dv ---------------------------------------------------------------------------------------------------- */

template <int DIM> constexpr int KEY_GROUPS = DIM <= 64 ? 3 : 1;
template <int DIM> constexpr int KEY_THREADS = KEY_GROUPS<DIM> *WARPGROUP;
template <int DIM> constexpr int KEY_BLOCKS = DIM <= 64 ? 1 : 2; /* of a multiprocessor */

template <int DIM, bool IN_BULK> constexpr int KEY_STAGES = !IN_BULK ? 3 : DIM <= 64 ? 6 : 4;
template <bool IN_BULK> constexpr int KEYS_AHEAD = IN_BULK ? 3 : 2;

template <int DIM, bool IN_BULK> struct key_tiles {
    static constexpr int STAGES = KEY_STAGES<DIM, IN_BULK>;
    own_tile<DIM> k[KEY_GROUPS<DIM>], v[KEY_GROUPS<DIM>];
    other_tile<DIM> q[STAGES], dout[STAGES];
    float log_sum[STAGES][TILE_ROWS<DIM>], d[STAGES][TILE_ROWS<DIM>];
    ring_barriers<STAGES> barriers;
};

/* A warpgroup's keys and values, their gradients so far, and its step. */
template <int DIM> struct key_group {
    own_rows<DIM, DIM <= 64> k; /* there are no registers for v too */
    own_rows<DIM, false> v;
    row_sums<DIM> dk, dv;
    row_sums<STEP> s, dp;
    operand<STEP> p, ds; /* rounded; p serves dS too: there are no registers to keep the others until dP is known */
    /* Figures of the step's queries. Read only when they are wanted, they wait behind the products' own reads. */
    float2 log_sum[STEP / 8], d[STEP / 8];
    int key; /* first */
};

__device__ void read_figures(float2 (&to)[STEP / 8], const float *from) {
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) to[n] = *reinterpret_cast<const float2 *>(from + fragment_column(n, 0));
}

/* Probabilities of queries from `query` on; rows are keys. */
template <int DIM> __device__ void weigh(key_group<DIM> &x, int query, float scale) {
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
        float2 log_sum = x.log_sum[n];
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

template <int DIM> __device__ void score_gradients(key_group<DIM> &x) {
#pragma unroll
    for (int n = 0; n < STEP / 8; n++) {
        float2 d = x.d[n];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int i = n / 2, j = n % 2 * 2 + half;
            x.ds[i][j] = multiply_pairs(x.p[i][j], pack_bf16(x.dp[n][2 * half] - d.x, x.dp[n][2 * half + 1] - d.y));
        }
    }
}

/* A block goes over the queries of its group's heads, of each from the block's first key on. */
template <int DIM, bool VECTORS> struct query_stream {
    static constexpr int ROWS = TILE_ROWS<DIM>;
    using tiles = key_tiles<DIM, BULK<VECTORS>>;
    const backward &b;
    tiles *t;
    int sequence, first, head, heads_end, query; /* of the next tile */
    ring_place<BULK<VECTORS>, tiles::STAGES, KEY_GROUPS<DIM>> at;

    __device__ bool more() const { return head < heads_end; }
    __device__ void advance() {
        query += ROWS;
        if (query >= b.queries.rows) query = first, head++;
        at.advance();
    }
    __device__ size_t figures() const { return (sequence * b.heads + head) * b.padded + query; }
    /* Begins the copies of a tile of queries, of their dout and of their figures, if there is one. */
    __device__ void load() {
        if (more()) {
            if constexpr (BULK<VECTORS>)
                at.fetch(2 * (int)(sizeof(other_tile<DIM>) + ROWS * sizeof(float)),
                         [&](copy_barrier *here) { fetch(here); });
            else
                copy((int)threadIdx.x);
            advance();
        }
        if constexpr (!BULK<VECTORS>) copy_commit();
    }
    __device__ void fetch(copy_barrier *here) const {
        fetch_tile<DIM>(&t->q[at.stage], &b.q_map, sequence, head, query, here);
        fetch_tile<DIM>(&t->dout[at.stage], &b.dout_map, sequence, head, query, here);
        fetch_figures(t->log_sum[at.stage], b.base2_sum + figures(), here);
        fetch_figures(t->d[at.stage], b.d + figures(), here);
    }
    __device__ void copy(int thread) const {
        constexpr int THREADS = KEY_THREADS<DIM>, LOADS = ROWS / 4;
        int stage = at.stage;
        load_rows<THREADS, VECTORS>(&t->q[stage], head_of(b.q, b.queries, sequence, head).from(query), thread);
        load_rows<THREADS, VECTORS>(&t->dout[stage], head_of(b.dout, b.queries, sequence, head).from(query), thread);
        size_t from = figures() + thread % LOADS * 4;
        if (thread < LOADS)
            copy_16(&t->log_sum[stage][thread * 4], b.base2_sum + from, true);
        else if (thread < 2 * LOADS)
            copy_16(&t->d[stage][(thread - LOADS) * 4], b.d + from, true);
    }
};

template <int DIM, bool VECTORS>
__global__ void __launch_bounds__(KEY_THREADS<DIM>, KEY_BLOCKS<DIM>)
    attention_backward_keys_kernel(const __grid_constant__ backward b) {
    constexpr bool IN_BULK = BULK<VECTORS>;
    constexpr int ROWS = TILE_ROWS<DIM>;
    auto *t = shared_memory<key_tiles<DIM, IN_BULK>>();
    int kv_heads = b.heads / b.group, sequence = (int)blockIdx.x / kv_heads, kv_head = (int)blockIdx.x % kv_heads;
    int thread = (int)threadIdx.x, warpgroup = uniform(thread / WARPGROUP),
        first = (int)blockIdx.y * KEY_GROUPS<DIM> * OWN_ROWS;
    query_stream<DIM, VECTORS> loaded = {
        b, t, sequence, first, kv_head * b.group, (kv_head + 1) * b.group, first, {&t->barriers}};
    query_stream<DIM, VECTORS> taken = loaded;
    own_tile<DIM> *own_k = &t->k[warpgroup], *own_v = &t->v[warpgroup];
    key_group<DIM> x;
    x.key = first + warpgroup * OWN_ROWS;

    load_rows<WARPGROUP, VECTORS>(own_k, head_of(b.k, b.keys, sequence, kv_head).from(x.key), thread % WARPGROUP);
    load_rows<WARPGROUP, VECTORS>(own_v, head_of(b.v, b.keys, sequence, kv_head).from(x.key), thread % WARPGROUP);
    copy_commit();
    loaded.at.begin();
    for (int i = 0; i < KEYS_AHEAD<IN_BULK>; i++) loaded.load();
    clear(x.dk), clear(x.dv);
    copy_wait<IN_BULK ? 0 : 1>();
    shared_written();
    __syncthreads();
    /* Passes over tiles of queries before all of the warpgroup's keys; not where a barrier of the block is a tile's. */
    auto pass_unseen = [&] {
        int seen = min(x.key, b.queries.rows - 1);
        while (IN_BULK && taken.more() && taken.query + ROWS <= seen) {
            taken.at.wait();
            taken.at.spend();
            taken.advance();
            loaded.load();
        }
    };
    pass_unseen();
    if constexpr (IN_BULK) taken.at.wait();
    int stage = taken.at.stage;
    x.k.take(own_k), x.v.take(own_v);
    products_begin();
    x.k.multiply_by(x.s, &t->q[stage], 0);
    x.v.multiply_by(x.dp, &t->dout[stage], 0);
    products_commit();
    read_figures(x.log_sum, t->log_sum[stage]);
    read_figures(x.d, t->d[stage]);
    products_wait<0>(x.s, x.dp, x.dk, x.dv);
    weigh<DIM>(x, taken.query, b.base2_scale);
    /* Ends the step at row `at` of a tile, and begins the next, of which this leaves p and dP. */
    auto step = [&](int at, int next, int next_at, auto between) {
        products_begin();
        x.k.multiply_by(x.s, &t->q[next], next_at);
        products_commit();
        add_product<DIM>(x.dv, x.p, &t->dout[stage], at);
        products_commit();
        read_figures(x.log_sum, t->log_sum[next] + next_at);
        score_gradients<DIM>(x);
        products_begin();
        add_product<DIM>(x.dk, x.ds, &t->q[stage], at);
        x.v.multiply_by(x.dp, &t->dout[next], next_at);
        products_commit();
        between();
        products_wait<1>(x.s); /* and for p's */
        weigh<DIM>(x, taken.query + next_at, b.base2_scale);
        read_figures(x.d, t->d[next] + next_at);
        products_wait<0>(x.dp, x.dk, x.dv);
    };
    constexpr int LAST = ROWS - STEP; /* the first row of a tile's last step */
#pragma unroll 1
    for (;;) {
        if constexpr (LAST > 0) step(0, stage, LAST, [] {});
        auto place = taken.at;
        taken.advance();
        pass_unseen();
        if (!taken.more()) break;
        taken.at.wait();
        step(LAST, taken.at.stage, 0, [&] { loaded.load(); });
        place.spend();
        stage = taken.at.stage;
    }
    score_gradients<DIM>(x);
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

template <bool IN_BULK> constexpr int QUERY_STAGES = IN_BULK ? 4 : 3;
template <bool IN_BULK> constexpr int QUERIES_AHEAD = IN_BULK ? 3 : 2;

template <int DIM, bool IN_BULK> struct query_tiles {
    static constexpr int STAGES = QUERY_STAGES<IN_BULK>;
    own_tile<DIM> q[QUERY_GROUPS<DIM>], dout[QUERY_GROUPS<DIM>];
    other_tile<DIM> k[STAGES], v[STAGES];
    ring_barriers<STAGES> barriers;
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
__global__ void __launch_bounds__(QUERY_THREADS<DIM>, 2)
    attention_backward_queries_kernel(const __grid_constant__ backward b) {
    constexpr int ROWS = TILE_ROWS<DIM>;
    constexpr bool IN_BULK = BULK<VECTORS>;
    using tiles = query_tiles<DIM, IN_BULK>;
    auto *t = shared_memory<tiles>();
    int kv_heads = b.heads / b.group, sequence = (int)blockIdx.x / kv_heads, kv_head = (int)blockIdx.x % kv_heads;
    int thread = (int)threadIdx.x, warpgroup = uniform(thread / WARPGROUP), time = b.queries.rows;
    int first_unit = (int)(gridDim.y - 1 - blockIdx.y) * QUERY_GROUPS<DIM>, unit = first_unit + warpgroup;
    int last_query = (first_unit + QUERY_GROUPS<DIM> - 1) / b.group * OWN_ROWS + OWN_ROWS - 1;
    int head = kv_head * b.group + unit % b.group, count = min(last_query, time - 1) / ROWS + 1; /* of tiles */
    auto loaded = keys_of<DIM, VECTORS, tiles::STAGES, QUERY_GROUPS<DIM>>(b, t, sequence, kv_head, count);
    auto taken = loaded.at;
    own_tile<DIM> *own_q = &t->q[warpgroup], *own_dout = &t->dout[warpgroup];
    query_group<DIM> x;
    x.query = unit / b.group * OWN_ROWS;

    load_rows<WARPGROUP, VECTORS>(own_q, head_of(b.q, b.queries, sequence, head).from(x.query), thread % WARPGROUP);
    load_rows<WARPGROUP, VECTORS>(own_dout, head_of(b.dout, b.queries, sequence, head).from(x.query),
                                  thread % WARPGROUP);
    copy_commit();
    loaded.at.begin();
    for (int i = 0; i < QUERIES_AHEAD<IN_BULK>; i++) loaded.load();
    clear(x.dq);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        size_t token = x.query + fragment_row(2 * half), at = ((size_t)sequence * b.heads + head) * b.padded + token;
        bool wanted = token < b.padded;
        x.log_sum[half] = wanted ? b.base2_sum[at] : INFINITY;
        x.d[half] = wanted ? b.d[at] : 0;
    }
    copy_wait<IN_BULK ? 0 : 1>();
    shared_written();
    __syncthreads();
    if constexpr (IN_BULK) taken.wait();
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
        auto place = taken;
        taken.advance();
        taken.wait();
        step(stage, LAST, taken.stage, 0, (tile + 1) * ROWS, [&] { loaded.load(); });
        place.spend();
        stage = taken.stage;
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
    unsigned lanes = 1;
    while (lanes < WARP && (size_t)lanes * N < s->head_dim) lanes *= 2;
    unsigned blocks = (unsigned)ceil_div(b.padded * s->heads, (size_t)FIGURE_ROWS * FIGURE_THREADS / lanes);
    LAUNCH(row_figures_kernel<N>, (unsigned)s->batch * blocks, FIGURE_THREADS, 0, b, lanes, blocks);
}

template <int DIM, bool VECTORS> void launch_gradients(backward b, const struct attention_shape *s) {
    using small_keys = key_tiles<DIM, false>;
    using small_queries = query_tiles<DIM, false>;
    static_assert(sizeof(small_keys) <= LEAST_SHARED && sizeof(small_queries) <= LEAST_SHARED);
    size_t key_bytes = sizeof(small_keys), query_bytes = sizeof(small_queries), rows = ceil_div(s->time, OWN_ROWS);
    unsigned heads = (unsigned)(s->batch * s->kv_heads);
    if (VECTORS && is_hopper()) {
        key_bytes = sizeof(key_tiles<DIM, true>), query_bytes = sizeof(query_tiles<DIM, true>);
        b.q_map = map_of_heads<DIM>(b.q, s, s->heads), b.dout_map = map_of_heads<DIM>(b.dout, s, s->heads);
        b.k_map = map_of_heads<DIM>(b.k, s, s->kv_heads), b.v_map = map_of_heads<DIM>(b.v, s, s->kv_heads);
    }
    dim3 keys(heads, (unsigned)ceil_div(rows, KEY_GROUPS<DIM>));
    dim3 queries(heads, (unsigned)ceil_div(rows * (size_t)b.group, QUERY_GROUPS<DIM>));
    LAUNCH((attention_backward_keys_kernel<DIM, VECTORS>), keys, KEY_THREADS<DIM>, key_bytes, b);
    LAUNCH((attention_backward_queries_kernel<DIM, VECTORS>), queries, QUERY_THREADS<DIM>, query_bytes, b);
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
