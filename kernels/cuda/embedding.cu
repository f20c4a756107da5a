/* embedding: token and bigram lookups, and smear; the mathematics is in kernels/cpu/embedding.c.
 *
 * Bytes at the published preset (R 65,536, D 512), at 4.3 TB/s:
 *   embedding_forward  67 MB written, the table from cache, 0.016 ms     smear_forward   2 x 67 MB, 0.031 ms
 *   bigram_ids         0.5 MB                                            smear_backward  3 x 67 MB, 0.047 ms
 * The gradient of the table is in embedding_backward.cu. */
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/functions.cuh"

enum { ID_THREADS = 256 };

struct embedding {
    enum { SUMS = 0 };
    bf16 *x;
    const int32_t *ids;
    const float *table;
    size_t dim;
    template <int N> struct columns {};
    template <int N> __device__ void begin(columns<N> &, size_t) const {}
    template <int N> __device__ void row(columns<N> &, size_t r, size_t c) const {
        store<N>(x + r * dim + c, load<N>(table + (size_t)ids[r] * dim + c));
    }
};

extern "C" void cuda_embedding_forward(struct lane *lane, act *x, const int32_t *ids, const real *table, size_t rows,
                                       size_t dim) {
    for_each_column("embedding_forward", lane, embedding{acts(x), ids, table, dim}, NULL, rows, dim,
                    aligned(acts(x)) && aligned(table));
}

static __global__ void __launch_bounds__(ID_THREADS)
    bigram_kernel(int32_t *buckets, const int32_t *ids, size_t count, size_t time, size_t bucket_count) {
    size_t i = blockIdx.x * (size_t)ID_THREADS + threadIdx.x;
    if (i >= count) return;
    buckets[i] = bucket_of(i % time ? ids[i - 1] : 0, ids[i], bucket_count);
}

extern "C" void cuda_bigram_ids(struct lane *, int32_t *buckets, const int32_t *ids, size_t batch, size_t time,
                                size_t bucket_count) {
    LAUNCH(bigram_kernel, (unsigned)ceil_div(batch * time, ID_THREADS), ID_THREADS, 0, buckets, ids, batch * time, time,
           bucket_count);
}

template <int N> __device__ static inline pack<N> open_gate(const float *gate) {
    pack<N> g = load_any<N>(gate);
    for (int i = 0; i < N; i++) g.at[i] = fast_sigmoid(g.at[i]);
    return g;
}

struct smear {
    enum { SUMS = 0, AHEAD = 4 /* rows that a thread reads together */ };
    bf16 *y;
    const bf16 *x;
    const float *gate;
    size_t time, dim;
    template <int N> struct columns { pack<N> gate; };
    template <int N> __device__ void begin(columns<N> &mine, size_t c) const { mine.gate = open_gate<N>(gate + c); }
    template <int N> __device__ void run(columns<N> &mine, size_t r, size_t end, size_t c) const {
        if (r >= end) return;
        size_t t = r % time;
        const bf16 *from = x + r * dim + c;
        held<N> before = t ? hold<N>(from - dim) : held<N>{};
        held<N> ahead[AHEAD];
        for (; r < end; r += AHEAD) {
#pragma unroll
            for (unsigned k = 0; k < AHEAD; k++)
                if (r + k < end) ahead[k] = hold<N>(x + (r + k) * dim + c);
#pragma unroll
            for (unsigned k = 0; k < AHEAD; k++) {
                if (r + k >= end) break;
                pack<N> now = unpack(ahead[k]), old = unpack(before), sum;
                for (int i = 0; i < N; i++) sum.at[i] = mine.gate.at[i] * now.at[i] + (1 - mine.gate.at[i]) * old.at[i];
                store<N>(y + (r + k) * dim + c, sum);
                t = t + 1 == time ? 0 : t + 1;
                before = t ? ahead[k] : held<N>{};
            }
        }
    }
};

extern "C" void cuda_smear_forward(struct lane *lane, act *y, const act *x, const real *gate, size_t batch, size_t time,
                                   size_t dim) {
    for_each_column("smear_forward", lane, smear{acts(y), acts(x), gate, time, dim}, NULL, batch * time, dim,
                    aligned(y, x));
}

struct smear_slope {
    enum { SUMS = 1, AHEAD = 8 };
    bf16 *dx;
    const bf16 *dy, *x;
    const float *gate;
    size_t rows, time, dim;
    template <int N> struct columns { pack<N> gate, sum[SUMS]; };
    template <int N> __device__ void begin(columns<N> &mine, size_t c) const { mine.gate = open_gate<N>(gate + c); }
    template <int N> __device__ void run(columns<N> &mine, size_t r, size_t end, size_t c) const {
        if (r >= end) return;
        size_t t = r % time;
        held<N> before = t ? hold<N>(x + (r - 1) * dim + c) : held<N>{}, first = hold<N>(dy + r * dim + c);
        held<N> of_x[AHEAD] = {}, of_dy[AHEAD] = {};
        pack<N> sum = {};
        for (; r < end; r += AHEAD) {
#pragma unroll
            for (unsigned k = 0; k < AHEAD; k++) {
                if (r + k < end) of_x[k] = hold<N>(x + (r + k) * dim + c);
                if (r + k < end && r + k + 1 < rows) of_dy[k] = hold<N>(dy + (r + k + 1) * dim + c);
            }
#pragma unroll
            for (unsigned k = 0; k < AHEAD; k++) {
                if (r + k >= end) break;
                const bool last = t + 1 == time;
                pack<N> now = unpack(of_x[k]), old = unpack(before), d = unpack(first), next = unpack(of_dy[k]), to;
                for (int i = 0; i < N; i++) {
                    float g = mine.gate.at[i];
                    sum.at[i] += d.at[i] * (now.at[i] - old.at[i]);
                    to.at[i] = g * d.at[i] + (last ? 0 : (1 - g) * next.at[i]);
                }
                store<N>(dx + (r + k) * dim + c, to);
                before = last ? held<N>{} : of_x[k], first = of_dy[k];
                t = last ? 0 : t + 1;
            }
        }
        for (int i = 0; i < N; i++) mine.sum[0].at[i] = mine.gate.at[i] * (1 - mine.gate.at[i]) * sum.at[i];
    }
};

extern "C" void cuda_smear_backward(struct lane *lane, act *dx, real *dgate, const act *dy, const act *x,
                                    const real *gate, size_t batch, size_t time, size_t dim) {
    for_each_column("smear_backward", lane, smear_slope{acts(dx), acts(dy), acts(x), gate, batch * time, time, dim},
                    dgate, batch * time, dim, aligned(dx, dy, x));
}
