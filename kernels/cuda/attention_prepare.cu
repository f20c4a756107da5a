/* attention_prepare: raw q, k, v to what attention uses, and back; formulas in kernels/cpu/attention_prepare.c.
 *
 * A few threads take one head of one row: of q, of k or of v. Each holds RoPE's pairs (i, i + rope/2), so a rotation
 * stays in the thread; dimensions that are not rotated are paired in halves too. Where sizes and alignment allow it, a
 * thread holds 8 pairs, 16 bytes from each half, of several heads of a row, all read before the first is used; what the
 * row's token turns them by is read once. Elsewhere it takes one pair after the other. Sums over a head are shuffled in
 * a fixed order; dq_gain's over rows leave a figure a block and head in scratch, which tile_sums adds.
 *
 * Published preset, a call: forward reads and writes 134 MB each (62 us at 4.3 TB/s), backward reads 268 MB and
 * writes 134 MB (94 us); a few operations a byte. */
#include "kernels/cuda/attention_prepare.cuh"
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/tile_sums.cuh"
#include "kernels/cuda/vectors.cuh"

namespace {

enum { THREADS = 256, WIDE_THREADS = 128, WIDE_WARPS = WIDE_THREADS / WARP, FORWARD_HEADS = 4, BACKWARD_HEADS = 2 };

/* --- pairs of a head ---------------------------------------------------------------------------------------------- */

/* Where pairs stand, from pair `first` on: rotated ones before the others. */
struct pair_place {
    int low, high;          /* element of the first of each half */
    bool rotated, has_high; /* false where a head of odd size has no upper half */

    __device__ pair_place(int first, int dim, int rope) {
        int rest = (dim - rope + 1) / 2;
        rotated = first < rope / 2;
        low = rotated ? first : first + rope / 2;
        high = low + (rotated ? rope / 2 : rest);
        has_high = high < dim;
    }
};

struct pair {
    float x, y;
};

__device__ pair read_pair(const bf16 *head, const pair_place &at) {
    return {to_float(head[at.low]), at.has_high ? to_float(head[at.high]) : 0};
}
__device__ void write_pair(bf16 *head, const pair_place &at, pair p) {
    head[at.low] = to_bf16(p.x);
    if (at.has_high) head[at.high] = to_bf16(p.y);
}
__device__ pair turned(pair p, float cosine, float sine) {
    return {p.x * cosine + p.y * sine, p.y * cosine - p.x * sine};
}

__device__ float silu(float x) { return x * fast_sigmoid(x); }
__device__ float silu_slope(float x) {
    float s = fast_sigmoid(x);
    return s * (1 + x * (1 - s));
}

__host__ __device__ int pair_count(int dim, int rope) { return rope / 2 + (dim - rope + 1) / 2; }

__device__ float group_sum(float x, int lanes) {
    for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}
__device__ float inverse_rms(float squares, int dim) { return 1 / sqrtf(squares / (float)dim + (float)RMS_EPSILON); }

enum head_kind { QUERY, KEY, VALUE, NOTHING };

struct head_gradients {
    bf16 *dq, *dk, *dv;
    const bf16 *q, *k, *raw_v;
    const float *inv_q, *inv_k, *gain, *cosine, *sine;
    float *dgain; /* what each row, or each block of rows, adds to the gain's gradient: (rows or blocks, heads) */
    int rows, time, heads, kv_heads, dim, rope;
};

/* --- pair by pair ------------------------------------------------------------------------------------------------- */

/* The head that a group of `lanes` threads takes: query heads of a row first, then keys, then values. */
struct head_task {
    head_kind kind;
    int row, head, lane;
    size_t at; /* of the head, among (rows, heads) or (rows, kv_heads) */

    __device__ head_task(int rows, int heads, int kv_heads, int lanes) {
        unsigned task = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes,
                 per_row = (unsigned)(heads + 2 * kv_heads);
        lane = (int)threadIdx.x % lanes, row = (int)(task / per_row), head = (int)(task % per_row);
        kind = row >= rows ? NOTHING : head < heads ? QUERY : head < heads + kv_heads ? KEY : VALUE;
        if (kind == QUERY)
            at = (size_t)row * heads + head;
        else
            head = (head - heads) % kv_heads, at = (size_t)row * kv_heads + head;
    }
};

__global__ void prepare_any_kernel(head_preparation p, int lanes) {
    head_task task(p.rows, p.heads, p.kv_heads, lanes);
    const bf16 *from = (task.kind == QUERY ? p.q : task.kind == KEY ? p.k : p.v) + task.at * p.dim;
    bf16 *to = task.kind == QUERY ? p.to_q : task.kind == KEY ? p.to_k : p.to_v;
    to += task.row * (task.kind == QUERY ? p.q_stride : p.kv_stride) + (size_t)task.head * p.dim;
    size_t before = p.length ? (size_t)*p.length - 1 : 0, angle = (task.row % p.time + before) * (p.rope / 2);
    if (task.kind != QUERY) to += before * p.kv_heads * p.dim;
    const int pairs = task.kind == NOTHING ? 0 : pair_count(p.dim, p.rope);
    float sum = 0;
    for (int i = task.lane; i < pairs; i += lanes) {
        pair x = read_pair(from, pair_place(i, p.dim, p.rope));
        sum += x.x * x.x + x.y * x.y;
    }
    float inv = inverse_rms(group_sum(sum, lanes), p.dim), scale = task.kind == QUERY ? p.gain[task.head] * inv : inv;
    for (int i = task.lane; i < pairs; i += lanes) {
        pair_place at(i, p.dim, p.rope);
        pair x = read_pair(from, at);
        x = task.kind == VALUE ? pair{silu(x.x), silu(x.y)} : pair{x.x * scale, x.y * scale};
        if (at.rotated && task.kind != VALUE) x = turned(x, p.cosine[angle + i], p.sine[angle + i]);
        write_pair(to, at, x);
    }
    float *kept = task.kind == QUERY ? p.inv_q : task.kind == KEY ? p.inv_k : NULL;
    if (kept && task.lane == 0) kept[task.at] = inv;
}

__device__ void values_backward(bf16 *dv, const bf16 *v, const head_task &task, int lanes, int dim, int rope) {
    for (int i = task.lane; i < pair_count(dim, rope); i += lanes) {
        pair_place at(i, dim, rope);
        pair g = read_pair(dv, at), x = read_pair(v, at);
        write_pair(dv, at, {g.x * silu_slope(x.x), g.y * silu_slope(x.y)});
    }
}

__global__ void prepare_backward_any_kernel(head_gradients h, int lanes) {
    head_task task(h.rows, h.heads, h.kv_heads, lanes);
    bool query = task.kind == QUERY, normed = query || task.kind == KEY;
    bf16 *gradient = (query ? h.dq : task.kind == KEY ? h.dk : h.dv) + task.at * h.dim;
    const bf16 *tape = (query ? h.q : h.k) + task.at * h.dim;
    const int pairs = normed ? pair_count(h.dim, h.rope) : 0;
    float sum = 0;
    for (int i = task.lane; i < pairs; i += lanes) {
        pair_place at(i, h.dim, h.rope);
        pair g = read_pair(gradient, at), x = read_pair(tape, at);
        sum += g.x * x.x + g.y * x.y;
    }
    sum = group_sum(sum, lanes);
    if (task.kind == VALUE) values_backward(gradient, h.raw_v + task.at * h.dim, task, lanes, h.dim, h.rope);
    if (!normed) return;
    float gain = query ? h.gain[task.head] : 1, undo = gain != 0 ? 1 / gain : 0, mean = sum / h.dim * undo;
    float inv = (query ? h.inv_q : h.inv_k)[task.at];
    size_t angle = (size_t)(task.row % h.time) * (h.rope / 2);
    for (int i = task.lane; i < pairs; i += lanes) {
        pair_place at(i, h.dim, h.rope);
        pair g = read_pair(gradient, at), x = read_pair(tape, at);
        g = {inv * (gain * g.x - x.x * mean), inv * (gain * g.y - x.y * mean)};
        if (at.rotated) g = turned(g, h.cosine[angle + i], -h.sine[angle + i]);
        write_pair(gradient, at, g);
    }
    if (query && task.lane == 0) h.dgain[task.at] = sum * undo;
}

/* --- eight pairs of several heads --------------------------------------------------------------------------------- */

/* What is a block's: up to HEADS heads of one kind, `at` elements into its tensor; and a thread's: one row of them, and
 * 8 pairs of each head. */
template <int HEADS> struct head_group {
    head_kind kind;
    unsigned block; /* of rows; those that have different heads of the same rows are neighbours */
    int row, first, count, lane;
    bool inside; /* whether the thread has pairs */
    size_t at;   /* of the first head, among (rows, heads) or (rows, kv_heads) */

    __device__ head_group(int rows, int heads, int kv_heads, int pairs, int lane_bits) {
        int of_queries = (heads + HEADS - 1) / HEADS, of_keys = (kv_heads + HEADS - 1) / HEADS;
        unsigned parts = (unsigned)(of_queries + 2 * of_keys);
        int part = (int)(blockIdx.x % parts);
        block = blockIdx.x / parts;
        kind = part < of_queries ? QUERY : part < of_queries + of_keys ? KEY : VALUE;
        part -= kind == QUERY ? 0 : kind == KEY ? of_queries : of_queries + of_keys;
        int all = kind == QUERY ? heads : kv_heads;
        first = part * HEADS, count = min(HEADS, all - first);
        row = (int)((block * WIDE_THREADS + threadIdx.x) >> lane_bits);
        lane = (int)threadIdx.x & ((1 << lane_bits) - 1);
        inside = row < rows && lane * (int)ACTS < pairs;
        at = (size_t)row * all + first;
    }
    /* Of head j. */
    __device__ bool has(int j) const { return inside && j < count; }
};

struct eight_pairs {
    uint4 x, y;
};

/* `head` NULL: zeros. */
__device__ eight_pairs read_eight(const bf16 *head, const pair_place &at) {
    if (!head) return {};
    return {*reinterpret_cast<const uint4 *>(head + at.low), *reinterpret_cast<const uint4 *>(head + at.high)};
}

__device__ float eight_products(const eight_pairs &a, const eight_pairs &b) {
    pack<ACTS> ax = unpack(a.x), ay = unpack(a.y), bx = unpack(b.x), by = unpack(b.y);
    float sum = 0;
    for (int i = 0; i < ACTS; i++) sum += ax.at[i] * bx.at[i] + ay.at[i] * by.at[i];
    return sum;
}

/* The angles of eight pairs of a token; none turn where the pairs are not rotated. */
struct eight_angles {
    pack<ACTS> cosine, sine;
    __device__ eight_angles(const float *cosines, const float *sines, size_t at, bool turns) {
        for (int i = 0; i < ACTS; i++) cosine.at[i] = 1, sine.at[i] = 0;
        if (turns) cosine = load<ACTS>(cosines + at), sine = load<ACTS>(sines + at);
    }
};

/* By the angles; `direction` -1 undoes 1. */
__device__ void write_turned(bf16 *head, const pair_place &at, pack<ACTS> x, pack<ACTS> y, const eight_angles &by,
                             float direction) {
    for (int i = 0; i < ACTS; i++) {
        pair p = turned({x.at[i], y.at[i]}, by.cosine.at[i], by.sine.at[i] * direction);
        x.at[i] = p.x, y.at[i] = p.y;
    }
    store<ACTS>(head + at.low, x);
    store<ACTS>(head + at.high, y);
}

template <int HEADS>
__global__ void __launch_bounds__(WIDE_THREADS) prepare_kernel(head_preparation p, int pairs, int lane_bits) {
    const head_group<HEADS> g(p.rows, p.heads, p.kv_heads, pairs, lane_bits);
    const pair_place place(g.lane * (int)ACTS, p.dim, p.rope);
    const bf16 *from = (g.kind == QUERY ? p.q : g.kind == KEY ? p.k : p.v) + g.at * p.dim;
    bf16 *to = g.kind == QUERY ? p.to_q : g.kind == KEY ? p.to_k : p.to_v;
    size_t before = p.length ? (size_t)*p.length - 1 : 0;
    to += (size_t)g.row * (g.kind == QUERY ? p.q_stride : p.kv_stride) + (size_t)g.first * p.dim;
    if (g.kind != QUERY) to += before * p.kv_heads * p.dim;

    eight_pairs x[HEADS];
    for (int j = 0; j < HEADS; j++) x[j] = read_eight(g.has(j) ? from + j * p.dim : NULL, place);
    if (g.kind == VALUE) {
        for (int j = 0; j < HEADS; j++) {
            pack<ACTS> low = unpack(x[j].x), high = unpack(x[j].y);
            for (int i = 0; i < ACTS; i++) low.at[i] = silu(low.at[i]), high.at[i] = silu(high.at[i]);
            if (!g.has(j)) continue;
            store<ACTS>(to + j * p.dim + place.low, low);
            store<ACTS>(to + j * p.dim + place.high, high);
        }
        return;
    }
    const eight_angles angles(p.cosine, p.sine, (g.row % p.time + before) * (p.rope / 2) + place.low,
                              g.inside && place.rotated);
    float *kept = g.kind == QUERY ? p.inv_q : p.inv_k;
    for (int j = 0; j < HEADS; j++) {
        float inv = inverse_rms(group_sum(eight_products(x[j], x[j]), 1 << lane_bits), p.dim);
        if (!g.has(j)) continue;
        float scale = g.kind == QUERY ? p.gain[g.first + j] * inv : inv;
        pack<ACTS> low = unpack(x[j].x), high = unpack(x[j].y);
        for (int i = 0; i < ACTS; i++) low.at[i] *= scale, high.at[i] *= scale;
        write_turned(to + j * p.dim, place, low, high, angles, 1);
        if (kept && g.lane == 0) kept[g.at + j] = inv;
    }
}

/* dgain[block of rows][head] = the sum of what the block's rows have found; each has it in its first lane. */
template <int HEADS>
__device__ void leave_gains(float *dgain, const head_group<HEADS> &g, const float (&found)[HEADS], int heads,
                            int lanes) {
    float *room = shared_memory<float>(); /* (warps, HEADS) */
    for (int j = 0; j < HEADS; j++) {
        float sum = g.lane == 0 ? found[j] : 0;
        for (int offset = WARP / 2; offset >= lanes; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP * HEADS + j] = sum;
    }
    __syncthreads();
    int j = (int)threadIdx.x;
    if (j >= g.count) return;
    float sum = 0;
    for (int warp = 0; warp < WIDE_WARPS; warp++) sum += room[warp * HEADS + j];
    dgain[(size_t)g.block * heads + g.first + j] = sum;
}

template <int HEADS>
__global__ void __launch_bounds__(WIDE_THREADS) prepare_backward_kernel(head_gradients h, int pairs, int lane_bits) {
    const head_group<HEADS> group(h.rows, h.heads, h.kv_heads, pairs, lane_bits);
    const pair_place place(group.lane * (int)ACTS, h.dim, h.rope);
    const bool query = group.kind == QUERY;
    bf16 *gradient = (query ? h.dq : group.kind == KEY ? h.dk : h.dv) + group.at * h.dim;
    const bf16 *tape = (query ? h.q : group.kind == KEY ? h.k : h.raw_v) + group.at * h.dim;

    eight_pairs g[HEADS], x[HEADS];
    for (int j = 0; j < HEADS; j++) {
        g[j] = read_eight(group.has(j) ? gradient + j * h.dim : NULL, place);
        x[j] = read_eight(group.has(j) ? tape + j * h.dim : NULL, place);
    }
    if (group.kind == VALUE) {
        for (int j = 0; j < HEADS; j++) {
            pack<ACTS> low = unpack(g[j].x), high = unpack(g[j].y), a = unpack(x[j].x), b = unpack(x[j].y);
            for (int i = 0; i < ACTS; i++) low.at[i] *= silu_slope(a.at[i]), high.at[i] *= silu_slope(b.at[i]);
            if (!group.has(j)) continue;
            store<ACTS>(gradient + j * h.dim + place.low, low);
            store<ACTS>(gradient + j * h.dim + place.high, high);
        }
        return;
    }
    const eight_angles angles(h.cosine, h.sine, (size_t)(group.row % h.time) * (h.rope / 2) + place.low,
                              group.inside && place.rotated);
    float found[HEADS] = {};
    for (int j = 0; j < HEADS; j++) {
        float sum = group_sum(eight_products(g[j], x[j]), 1 << lane_bits);
        if (!group.has(j)) continue;
        float gain = query ? h.gain[group.first + j] : 1, undo = gain != 0 ? 1 / gain : 0;
        float inv = (query ? h.inv_q : h.inv_k)[group.at + j], mean = sum / (float)h.dim * undo * inv;
        pack<ACTS> low = unpack(g[j].x), high = unpack(g[j].y), a = unpack(x[j].x), b = unpack(x[j].y);
        for (int i = 0; i < ACTS; i++) {
            low.at[i] = inv * gain * low.at[i] - mean * a.at[i];
            high.at[i] = inv * gain * high.at[i] - mean * b.at[i];
        }
        write_turned(gradient + j * h.dim, place, low, high, angles, -1);
        found[j] = sum * undo;
    }
    if (query) leave_gains<HEADS>(h.dgain, group, found, h.heads, 1 << lane_bits);
}

/* --- launches ----------------------------------------------------------------------------------------------------- */

bool whole_vectors(int dim, int rope) {
    return rope % (2 * ACTS) == 0 && dim % (2 * ACTS) == 0 && pair_count(dim, rope) <= (int)ACTS * WARP;
}

/* Threads a head, as a power of two: one for each n pairs, if 32 are enough. */
int lane_bits_of(int dim, int rope, int n) {
    int bits = 0;
    while (1 << bits < WARP && n << bits < pair_count(dim, rope)) bits++;
    return bits;
}

unsigned blocks_of(int rows, int heads, int kv_heads, int lanes) {
    return (unsigned)ceil_div((size_t)rows * (heads + 2 * kv_heads), THREADS / lanes);
}

/* Of the kernels that take several heads a thread: blocks of rows, and parts of a row. */
size_t row_blocks(int rows, int lane_bits) { return ceil_div((size_t)rows << lane_bits, WIDE_THREADS); }
size_t row_parts(int heads, int kv_heads, int at_once) {
    return ceil_div(heads, at_once) + 2 * ceil_div(kv_heads, at_once);
}

} // namespace

void launch_head_preparation(const head_preparation &p) {
    bool wide = whole_vectors(p.dim, p.rope) && aligned(p.q, p.k, p.v, p.to_q, p.to_k, p.to_v, p.cosine, p.sine);
    int bits = lane_bits_of(p.dim, p.rope, wide ? ACTS : 1);
    if (wide)
        LAUNCH(prepare_kernel<FORWARD_HEADS>,
               (unsigned)(row_blocks(p.rows, bits) * row_parts(p.heads, p.kv_heads, FORWARD_HEADS)), WIDE_THREADS, 0, p,
               pair_count(p.dim, p.rope), bits);
    else
        LAUNCH(prepare_any_kernel, blocks_of(p.rows, p.heads, p.kv_heads, 1 << bits), THREADS, 0, p, 1 << bits);
}

extern "C" void cuda_attention_prepare_forward(struct lane *, struct attention_tape *tape, const act *q, const act *k,
                                               const act *v, const real *q_gain, const real *cosine, const real *sine,
                                               const struct attention_shape *shape) {
    launch_head_preparation({.q = acts(q),
                             .k = acts(k),
                             .v = acts(v),
                             .to_q = acts(tape->q),
                             .to_k = acts(tape->k),
                             .to_v = acts(tape->v),
                             .q_stride = shape->heads * shape->head_dim,
                             .kv_stride = shape->kv_heads * shape->head_dim,
                             .inv_q = tape->inv_q,
                             .inv_k = tape->inv_k,
                             .gain = q_gain,
                             .cosine = cosine,
                             .sine = sine,
                             .rows = (int)(shape->batch * shape->time),
                             .time = (int)shape->time,
                             .heads = (int)shape->heads,
                             .kv_heads = (int)shape->kv_heads,
                             .dim = (int)shape->head_dim,
                             .rope = (int)shape->rope_dims});
}

extern "C" void cuda_attention_prepare_backward(struct lane *lane, act *dq, act *dk, act *dv, real *dq_gain,
                                                const struct attention_tape *tape, const act *v, const real *q_gain,
                                                const real *cosine, const real *sine,
                                                const struct attention_shape *shape) {
    head_gradients h = {.dq = acts(dq),
                        .dk = acts(dk),
                        .dv = acts(dv),
                        .q = acts(tape->q),
                        .k = acts(tape->k),
                        .raw_v = acts(v),
                        .inv_q = tape->inv_q,
                        .inv_k = tape->inv_k,
                        .gain = q_gain,
                        .cosine = cosine,
                        .sine = sine,
                        .dgain = static_cast<float *>(lane->scratch),
                        .rows = (int)(shape->batch * shape->time),
                        .time = (int)shape->time,
                        .heads = (int)shape->heads,
                        .kv_heads = (int)shape->kv_heads,
                        .dim = (int)shape->head_dim,
                        .rope = (int)shape->rope_dims};
    bool wide = whole_vectors(h.dim, h.rope) && aligned(dq, dk, dv, tape->q, tape->k, v, cosine, sine);
    int bits = lane_bits_of(h.dim, h.rope, wide ? ACTS : 1);
    size_t parts = (size_t)h.rows; /* of the gain's gradient */
    if (wide) {
        parts = row_blocks(h.rows, bits);
        LAUNCH(prepare_backward_kernel<BACKWARD_HEADS>,
               (unsigned)(parts * row_parts(h.heads, h.kv_heads, BACKWARD_HEADS)), WIDE_THREADS,
               WIDE_WARPS * BACKWARD_HEADS * sizeof(float), h, pair_count(h.dim, h.rope), bits);
    } else {
        LAUNCH(prepare_backward_any_kernel, blocks_of(h.rows, h.heads, h.kv_heads, 1 << bits), THREADS, 0, h,
               1 << bits);
    }
    all_tile_sums gain = {{{dq_gain, h.dgain, shape->heads, shape->heads, 1, 0}}};
    add_tile_sums(gain, parts);
}
