/* attention_prepare: raw q, k, v to what attention uses, and back; formulas in kernels/cpu/attention_prepare.c.
 *
 * A few threads take one head of one row: of q, of k or of v. Each holds RoPE's pairs (i, i + rope/2), so a rotation
 * stays in the thread; dimensions that are not rotated are paired in halves too. Threads take 8 pairs at a time where
 * sizes and alignment allow it (16 bytes from each half), else one. Sums over a head are shuffled in a fixed order;
 * dq_gain is summed over rows by one block a head, from one figure a row and head in scratch.
 *
 * Published preset, a call: forward reads and writes 134 MB each (62 us at 4.3 TB/s), backward reads 268 MB and
 * writes 134 MB (94 us); a few operations a byte. */
#include "kernels/cuda/attention_prepare.cuh"
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/vectors.cuh"

namespace {

enum { THREADS = 256 };

/* --- pairs of a head ---------------------------------------------------------------------------------------------- */

/* N neighbouring pairs, from pair `first` on: rotated ones before the others. */
template <int N> struct pairs {
    int low, high; /* element of the first of each half */
    bool rotated, has_high;
    pack<N> x, y; /* lower and upper half; y is 0 where a head of odd size has none */

    __device__ pairs(int first, int dim, int rope) {
        int rest = (dim - rope + 1) / 2;
        rotated = first < rope / 2;
        low = rotated ? first : first + rope / 2;
        high = low + (rotated ? rope / 2 : rest);
        has_high = high < dim;
    }
    __device__ void read(const bf16 *head) {
        x = load<N>(head + low);
        y = has_high ? load<N>(head + high) : pack<N>{};
    }
    __device__ void write(bf16 *head) const {
        store(head + low, x);
        if (has_high) store(head + high, y);
    }
    /* By the angles of the token; `direction` -1 undoes 1. */
    __device__ void rotate(const float *cosine, const float *sine, float direction) {
        if (!rotated) return;
        pack<N> c = load<N>(cosine + low), s = load<N>(sine + low);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float a = x.at[i], b = y.at[i], turn = s.at[i] * direction;
            x.at[i] = a * c.at[i] + b * turn;
            y.at[i] = b * c.at[i] - a * turn;
        }
    }
};

__device__ int pair_count(int dim, int rope) { return rope / 2 + (dim - rope + 1) / 2; }

__device__ float group_sum(float x, int lanes) {
    for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

/* The head that a group of `lanes` threads takes: query heads of a row first, then keys, then values. */
enum head_kind { QUERY, KEY, VALUE, NOTHING };
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

/* --- forward ------------------------------------------------------------------------------------------------------ */

template <int N> __device__ void prepare_values(bf16 *to, const bf16 *from, int lane, int lanes, int dim, int rope) {
    for (int i = lane * N; i < pair_count(dim, rope); i += lanes * N) {
        pairs<N> p(i, dim, rope);
        p.read(from);
        for (int j = 0; j < N; j++) p.x.at[j] *= fast_sigmoid(p.x.at[j]), p.y.at[j] *= fast_sigmoid(p.y.at[j]);
        p.write(to);
    }
}

template <int N> __global__ void attention_prepare_forward_kernel(head_preparation p, int lanes) {
    head_task task(p.rows, p.heads, p.kv_heads, lanes);
    const bf16 *from = (task.kind == QUERY ? p.q : task.kind == KEY ? p.k : p.v) + task.at * p.dim;
    size_t to_at = task.row * (task.kind == QUERY ? p.q_stride : p.kv_stride) + (size_t)task.head * p.dim;
    size_t before = p.length ? (size_t)*p.length - 1 : 0;
    if (task.kind != QUERY) to_at += before * p.kv_heads * p.dim;
    bool normed = task.kind == QUERY || task.kind == KEY;
    float sum = 0;
    for (int i = task.lane * N; normed && i < pair_count(p.dim, p.rope); i += lanes * N) {
        pairs<N> x(i, p.dim, p.rope);
        x.read(from);
        for (int j = 0; j < N; j++) sum += x.x.at[j] * x.x.at[j] + x.y.at[j] * x.y.at[j];
    }
    float inv = 1 / sqrtf(group_sum(sum, lanes) / p.dim + (float)RMS_EPSILON);
    if (task.kind == VALUE) prepare_values<N>(p.to_v + to_at, from, task.lane, lanes, p.dim, p.rope);
    if (!normed) return;
    float scale = task.kind == QUERY ? p.gain[task.head] * inv : inv;
    size_t angle = (task.row % p.time + before) * (p.rope / 2);
    for (int i = task.lane * N; i < pair_count(p.dim, p.rope); i += lanes * N) {
        pairs<N> x(i, p.dim, p.rope);
        x.read(from);
        for (int j = 0; j < N; j++) x.x.at[j] *= scale, x.y.at[j] *= scale;
        x.rotate(p.cosine + angle, p.sine + angle, 1);
        x.write((task.kind == QUERY ? p.to_q : p.to_k) + to_at);
    }
    float *kept = task.kind == QUERY ? p.inv_q : p.inv_k;
    if (kept && task.lane == 0) kept[task.at] = inv;
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

struct head_gradients {
    bf16 *dq, *dk, *dv;
    const bf16 *q, *k, *raw_v;
    const float *inv_q, *inv_k, *gain, *cosine, *sine;
    float *row_dgain; /* (rows, heads): what each row adds to dgain */
    int rows, time, heads, kv_heads, dim, rope;
};

template <int N> __device__ void values_backward(bf16 *dv, const bf16 *v, int lane, int lanes, int dim, int rope) {
    for (int i = lane * N; i < pair_count(dim, rope); i += lanes * N) {
        pairs<N> g(i, dim, rope), x(i, dim, rope);
        g.read(dv), x.read(v);
        for (int j = 0; j < N; j++) {
            float s = fast_sigmoid(x.x.at[j]), t = fast_sigmoid(x.y.at[j]);
            g.x.at[j] *= s * (1 + x.x.at[j] * (1 - s)), g.y.at[j] *= t * (1 + x.y.at[j] * (1 - t));
        }
        g.write(dv);
    }
}

template <int N> __global__ void attention_prepare_backward_kernel(head_gradients h, int lanes) {
    head_task task(h.rows, h.heads, h.kv_heads, lanes);
    bool query = task.kind == QUERY, normed = query || task.kind == KEY;
    bf16 *gradient = (query ? h.dq : task.kind == KEY ? h.dk : h.dv) + task.at * h.dim;
    const bf16 *tape = (query ? h.q : h.k) + task.at * h.dim;
    float sum = 0;
    for (int i = task.lane * N; normed && i < pair_count(h.dim, h.rope); i += lanes * N) {
        pairs<N> g(i, h.dim, h.rope), x(i, h.dim, h.rope);
        g.read(gradient), x.read(tape);
        for (int j = 0; j < N; j++) sum += g.x.at[j] * x.x.at[j] + g.y.at[j] * x.y.at[j];
    }
    sum = group_sum(sum, lanes);
    if (task.kind == VALUE) values_backward<N>(gradient, h.raw_v + task.at * h.dim, task.lane, lanes, h.dim, h.rope);
    if (!normed) return;
    float gain = query ? h.gain[task.head] : 1, undo = gain != 0 ? 1 / gain : 0, mean = sum / h.dim * undo;
    float inv = (query ? h.inv_q : h.inv_k)[task.at];
    size_t angle = (size_t)(task.row % h.time) * (h.rope / 2);
    for (int i = task.lane * N; i < pair_count(h.dim, h.rope); i += lanes * N) {
        pairs<N> g(i, h.dim, h.rope), x(i, h.dim, h.rope);
        g.read(gradient), x.read(tape);
        for (int j = 0; j < N; j++) {
            g.x.at[j] = inv * (gain * g.x.at[j] - x.x.at[j] * mean);
            g.y.at[j] = inv * (gain * g.y.at[j] - x.y.at[j] * mean);
        }
        g.rotate(h.cosine + angle, h.sine + angle, -1);
        g.write(gradient);
    }
    if (query && task.lane == 0) h.row_dgain[task.at] = sum * undo;
}

__global__ void gain_gradient_kernel(float *dgain, const float *row_dgain, int rows, int heads) {
    float sum = 0;
    for (size_t row = threadIdx.x; row < (size_t)rows; row += blockDim.x) sum += row_dgain[row * heads + blockIdx.x];
    sum = block_sum(sum, shared_memory<float>());
    if (threadIdx.x == 0) dgain[blockIdx.x] += sum;
}

/* --- launches ----------------------------------------------------------------------------------------------------- */

bool whole_vectors(int dim, int rope) { return rope % (2 * ACTS) == 0 && dim % (2 * ACTS) == 0; }

/* Threads a head, so that each has one load of n pairs if 32 are enough. */
int lanes_of(int dim, int rope, int n) {
    int lanes = 1, loads = (rope / 2 + (dim - rope + 1) / 2 + n - 1) / n;
    while (lanes < WARP && lanes < loads) lanes *= 2;
    return lanes;
}

unsigned blocks_of(int rows, int heads, int kv_heads, int lanes) {
    return (unsigned)ceil_div((size_t)rows * (heads + 2 * kv_heads), THREADS / lanes);
}

} // namespace

void launch_head_preparation(const head_preparation &p) {
    bool wide = whole_vectors(p.dim, p.rope) && aligned(p.q, p.k, p.v, p.to_q, p.to_k, p.to_v, p.cosine, p.sine);
    int lanes = lanes_of(p.dim, p.rope, wide ? ACTS : 1);
    unsigned blocks = blocks_of(p.rows, p.heads, p.kv_heads, lanes);
    if (wide)
        LAUNCH(attention_prepare_forward_kernel<ACTS>, blocks, THREADS, 0, p, lanes);
    else
        LAUNCH(attention_prepare_forward_kernel<1>, blocks, THREADS, 0, p, lanes);
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
                        .row_dgain = static_cast<float *>(lane->scratch),
                        .rows = (int)(shape->batch * shape->time),
                        .time = (int)shape->time,
                        .heads = (int)shape->heads,
                        .kv_heads = (int)shape->kv_heads,
                        .dim = (int)shape->head_dim,
                        .rope = (int)shape->rope_dims};
    bool wide = whole_vectors(h.dim, h.rope) && aligned(dq, dk, dv, tape->q, tape->k, v, cosine, sine);
    int lanes = lanes_of(h.dim, h.rope, wide ? ACTS : 1);
    unsigned blocks = blocks_of(h.rows, h.heads, h.kv_heads, lanes);
    if (wide)
        LAUNCH(attention_prepare_backward_kernel<ACTS>, blocks, THREADS, 0, h, lanes);
    else
        LAUNCH(attention_prepare_backward_kernel<1>, blocks, THREADS, 0, h, lanes);
    int threads = 1024;
    LAUNCH(gain_gradient_kernel, (unsigned)h.heads, threads, threads / WARP * sizeof(float), dq_gain, h.row_dgain,
           h.rows, h.heads);
}
