/* attention_wide: attention for heads of more than 128 dimensions, a block a row; formulas in attention.cu and
 * attention_backward.cu. Every row of keys or queries is read again for every row of the other side.
 *
 * No published model has such heads. Forward, a pair of rows is 4 hd FLOPs and reads 4 hd bytes: T 4096, 8 heads of
 * 192: 52 GFLOP and 52 GB a sequence, from the second level of cache: 10 ms at its 5 TB/s or so, 0.07 ms by the tensor
 * cores that this path does not use. Backward reads and multiplies two and a half times that. */
#include "kernels/cuda/attention_wide.cuh"

#include "kernels/cuda/attention_row.cuh"

namespace {

struct wide {
    const bf16 *q, *k, *v, *dout;
    bf16 *out, *dq, *dk, *dv;
    float *log_sum;
    const float *base2_sum, *d;
    size_t padded, q_stride, kv_stride;
    int time, heads, kv_heads, dim;
    float scale; /* 1/sqrt(hd) */
    bool vectors;

    /* Elements before a row of q or out, and of k or v. */
    __device__ size_t query_at(int sequence, int token, int head) const {
        return ((size_t)sequence * time + token) * q_stride + (size_t)head * dim;
    }
    __device__ size_t key_at(int sequence, int token, int kv_head) const {
        return ((size_t)sequence * time + token) * kv_stride + (size_t)kv_head * dim;
    }
};

__global__ void wide_forward_kernel(wide w) {
    int token = (int)(blockIdx.x % w.time), row = (int)(blockIdx.x / w.time);
    int sequence = row / w.heads, head = row % w.heads, kv_head = head / (w.heads / w.kv_heads);
    size_t at = w.query_at(sequence, token, head), from = w.key_at(sequence, 0, kv_head);
    float log_sum = attend_row(w.out + at, w.q + at, w.k + from, w.v + from, w.kv_stride, token + 1, w.dim, w.vectors);
    if (threadIdx.x == 0) w.log_sum[blockIdx.x] = log_sum;
}

/* Shared memory of the two kernels below: a row of each of two tensors, a sum of each warp for `results` gradients, and
 * `results` weights of each thread. */
size_t shared_bytes(size_t dim, size_t results) {
    return ((2 + results * ROW_WARPS) * dim + results * ROW_THREADS) * sizeof(float);
}

/* to (dim) = scale times the sum of the warps' sums. */
__device__ void store_sum(bf16 *to, const float *sums, int dim, float scale) {
    for (int i = (int)threadIdx.x; i < dim; i += ROW_THREADS) {
        float sum = 0;
        for (int warp = 0; warp < ROW_WARPS; warp++) sum += sums[warp * dim + i];
        to[i] = to_bf16(sum * scale);
    }
}

__global__ void wide_dq_kernel(wide w) {
    int token = (int)(blockIdx.x % w.time), row = (int)(blockIdx.x / w.time), dim = w.dim;
    int sequence = row / w.heads, head = row % w.heads, kv_head = head / (w.heads / w.kv_heads);
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float *q = shared_memory<float>(), *dout = q + dim, *sums = dout + dim;
    float *weights = sums + ROW_WARPS * dim + warp * WARP;
    size_t at = w.query_at(sequence, token, head);
    float log_sum = w.base2_sum[row * w.padded + token], d = w.d[row * w.padded + token];
    read_row(q, w.q + at, dim, w.scale * LOG2_E);
    read_row(dout, w.dout + at, dim, 1);
    for (int i = lane; i < dim; i += WARP) sums[warp * dim + i] = 0;
    __syncthreads();
    for (int first = warp * WARP; first <= token; first += ROW_THREADS) {
        size_t from = w.key_at(sequence, first, kv_head), own = from + lane * w.kv_stride;
        float weight = 0;
        if (first + lane <= token)
            weight = fast_exp2(row_dot(q, w.k + own, dim, w.vectors) - log_sum) *
                     (row_dot(dout, w.v + own, dim, w.vectors) - d);
        weights[lane] = weight;
        add_rows(sums + warp * dim, 1, weights, w.k + from, w.kv_stride, min(WARP, token + 1 - first), dim);
    }
    __syncthreads();
    store_sum(w.dq + at, sums, dim, w.scale);
}

/* The share of the queries of one head in dk and dv of key `token`. */
__device__ void add_queries(const wide &w, const float *k, const float *v, float *dk, float *dv, float *weights,
                            int sequence, int head, int token) {
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, dim = w.dim;
    const float *base2_sum = w.base2_sum + ((size_t)sequence * w.heads + head) * w.padded;
    const float *d = w.d + ((size_t)sequence * w.heads + head) * w.padded;
    for (int first = token + warp * WARP; first < w.time; first += ROW_THREADS) {
        size_t from = w.query_at(sequence, first, head), own = from + lane * w.q_stride;
        float p = 0, ds = 0;
        if (first + lane < w.time) {
            p = fast_exp2(row_dot(k, w.q + own, dim, w.vectors) - base2_sum[first + lane]);
            ds = p * (row_dot(v, w.dout + own, dim, w.vectors) - d[first + lane]);
        }
        weights[lane] = p, weights[ROW_THREADS + lane] = ds;
        int count = min(WARP, w.time - first);
        add_rows(dv, 1, weights, w.dout + from, w.q_stride, count, dim);
        add_rows(dk, 1, weights + ROW_THREADS, w.q + from, w.q_stride, count, dim);
    }
}

__global__ void wide_dk_dv_kernel(wide w) {
    int token = (int)(blockIdx.x % w.time), row = (int)(blockIdx.x / w.time), dim = w.dim;
    int sequence = row / w.kv_heads, kv_head = row % w.kv_heads, group = w.heads / w.kv_heads;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float *k = shared_memory<float>(), *v = k + dim, *dk = v + dim, *dv = dk + ROW_WARPS * dim;
    float *weights = dv + ROW_WARPS * dim + warp * WARP;
    size_t at = w.key_at(sequence, token, kv_head);
    read_row(k, w.k + at, dim, w.scale * LOG2_E);
    read_row(v, w.v + at, dim, 1);
    for (int i = lane; i < dim; i += WARP) dk[warp * dim + i] = dv[warp * dim + i] = 0;
    __syncthreads();
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++)
        add_queries(w, k, v, dk + warp * dim, dv + warp * dim, weights, sequence, head, token);
    __syncthreads();
    store_sum(w.dk + at, dk, dim, w.scale);
    store_sum(w.dv + at, dv, dim, 1);
}

wide wide_of(const struct attention_tape *tape, const struct attention_shape *s) {
    wide w = {};
    w.q = acts(tape->q), w.k = acts(tape->k), w.v = acts(tape->v), w.log_sum = tape->log_sum;
    w.q_stride = s->heads * s->head_dim, w.kv_stride = s->kv_heads * s->head_dim;
    w.time = (int)s->time, w.heads = (int)s->heads, w.kv_heads = (int)s->kv_heads, w.dim = (int)s->head_dim;
    w.scale = 1 / sqrtf((float)s->head_dim);
    return w;
}

} // namespace

void wide_attention_forward(bf16 *out, const struct attention_tape *tape, const struct attention_shape *shape) {
    wide w = wide_of(tape, shape);
    w.out = out, w.vectors = w.dim % ACTS == 0 && aligned(w.q, w.k, w.v);
    LAUNCH(wide_forward_kernel, (unsigned)(shape->batch * shape->heads * shape->time), ROW_THREADS,
           attend_row_floats(shape->head_dim) * sizeof(float), w);
}

void wide_attention_backward(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const float *base2_sum, const float *d,
                             size_t padded, const struct attention_tape *tape, const struct attention_shape *shape) {
    wide w = wide_of(tape, shape);
    w.dq = dq, w.dk = dk, w.dv = dv, w.dout = dout, w.base2_sum = base2_sum, w.d = d, w.padded = padded;
    w.vectors = w.dim % ACTS == 0 && aligned(w.q, w.k, w.v, w.dout);
    LAUNCH(wide_dk_dv_kernel, (unsigned)(shape->batch * shape->kv_heads * shape->time), ROW_THREADS,
           shared_bytes(shape->head_dim, 2), w);
    LAUNCH(wide_dq_kernel, (unsigned)(shape->batch * shape->heads * shape->time), ROW_THREADS,
           shared_bytes(shape->head_dim, 1), w);
}
