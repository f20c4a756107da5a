/* attention_decode: one token of each sequence, against the keys and values that the cache holds.
 *
 * The token's q, k and v are prepared as those of whole sequences, k and v straight into the cache; then a block takes
 * a head of a sequence. At position t it reads 4 t hd bytes a head of keys from the cache (those of its group find
 * them in the L2 cache): that is its limit, and with few sequences the number of blocks is.
 *
 * Published preset, 32 sequences as self-calibration samples them, t 4096: 134 MB, 31 us at 4.3 TB/s; 0.27 GFLOP
 * without tensor cores, 4 us at 67 TFLOP/s. */
#include "kernels/cuda/attention_prepare.cuh"
#include "kernels/cuda/attention_row.cuh"

namespace {

struct decode {
    bf16 *out;
    const bf16 *q, *k_cache, *v_cache;
    const int32_t *length;
    size_t sequence; /* elements of one sequence in a cache */
    int heads, kv_heads, dim;
    bool vectors;
};

__global__ void attention_decode_kernel(decode d) {
    int sequence = (int)blockIdx.x / d.heads, head = (int)blockIdx.x % d.heads, kv_head = head / (d.heads / d.kv_heads);
    size_t from = sequence * d.sequence + (size_t)kv_head * d.dim, at = (size_t)blockIdx.x * d.dim;
    attend_row(d.out + at, d.q + at, d.k_cache + from, d.v_cache + from, (size_t)d.kv_heads * d.dim, *d.length, d.dim,
               d.vectors);
}

} // namespace

extern "C" void cuda_attention_decode(struct lane *lane, act *out, act *k_cache, act *v_cache, const act *q,
                                      const act *k, const act *v, const real *q_gain, const real *cosine,
                                      const real *sine, const int32_t *length, size_t capacity,
                                      const struct attention_shape *shape) {
    size_t width = shape->kv_heads * shape->head_dim;
    bf16 *prepared = static_cast<bf16 *>(lane->scratch);
    launch_head_preparation({.q = acts(q),
                             .k = acts(k),
                             .v = acts(v),
                             .to_q = prepared,
                             .to_k = acts(k_cache),
                             .to_v = acts(v_cache),
                             .q_stride = shape->heads * shape->head_dim,
                             .kv_stride = capacity * width,
                             .inv_q = NULL,
                             .inv_k = NULL,
                             .gain = q_gain,
                             .cosine = cosine,
                             .sine = sine,
                             .length = length,
                             .rows = (int)shape->batch,
                             .time = 1,
                             .heads = (int)shape->heads,
                             .kv_heads = (int)shape->kv_heads,
                             .dim = (int)shape->head_dim,
                             .rope = (int)shape->rope_dims});
    decode d = {.out = acts(out),
                .q = prepared,
                .k_cache = acts(k_cache),
                .v_cache = acts(v_cache),
                .length = length,
                .sequence = capacity * width,
                .heads = (int)shape->heads,
                .kv_heads = (int)shape->kv_heads,
                .dim = (int)shape->head_dim,
                .vectors = shape->head_dim % ACTS == 0 && aligned(k_cache)};
    LAUNCH(attention_decode_kernel, (unsigned)(shape->batch * shape->heads), ROW_THREADS,
           attend_row_floats(shape->head_dim) * sizeof(float), d);
}
