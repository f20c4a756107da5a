/* ssd: the Mamba-3 recurrence for whole sequences, forward; the mathematics is in kernels/cpu/ssd.c.
 *
 * One block walks the tiles of one (sequence, head): while it works on a tile, the next one's B, C and x are on their
 * way to shared memory. The state stays in float registers; its rounded form goes to shared memory, where the tile's
 * product with C finds it, and to tape.states. One barrier a tile.
 *
 * Why no split of the sequence: the published preset has 256 (sequence, head) pairs, two blocks on each of 132 SMs, so
 * the chip is full, and splitting would read x and B a second time (268 MB, 62 us) to have the states first. With
 * fewer sequences than that the chip is not full; nothing of the published preset runs so.
 *
 * Published preset, a call: 34 GFLOP (43 us); B, C, x read, y and states written: 684 MB (159 us): limit 159 us. */
#include "kernels/cuda/ssd.cuh"

/* Two of each tile, but for the largest state: there the next tile is fetched after this one. */
template <int P, int N> struct forward_tiles {
    static constexpr int BUFFERS = N <= 128 ? 2 : 1;
    tile_row<N> b[BUFFERS][TILE], c[BUFFERS][TILE];
    tile_row<P> x[BUFFERS][TILE];
    tile_row<N> state[2][P];
    tile_row<P> y[TILE];
    tile_weights weights[2];
};

template <int P, int N>
__device__ static inline void fetch(forward_tiles<P, N> *m, int buffer, const head_view &v, size_t start, int length,
                                    int channels, int state) {
    load_tile<TILE, N>(m->b[buffer], v.b + start * v.bc_stride, v.bc_stride, length, state);
    load_tile<TILE, N>(m->c[buffer], v.c + start * v.bc_stride, v.bc_stride, length, state);
    load_tile<TILE, P>(m->x[buffer], v.x + start * v.x_stride, v.x_stride, length, channels);
    copy_commit();
}

/* y = diag(r) C H'^T + (G o weights) x: the warp's 16 tokens from `row` on, all P channels. */
template <int P, int N>
__device__ static inline void tile_outputs(float (&y)[P / 8][4], const tile_row<N> *b, const tile_row<N> *c,
                                           const tile_row<P> *x, const tile_row<N> *entering, const tile_weights &w,
                                           int row, int channels, int state) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4, lower = upper + 8, block = row / 16;
    float g[TILE / 8][4];
    clear_rows(g);
    clear_rows(y);
    for (int k = 0; k < state; k += 16) {
        uint32_t a[4];
        load_a(a, c, row, k);
        multiply(g, a, b, k, {0, block + 1}); /* tokens up to the warp's own */
        multiply(y, a, entering, k, blocks_of(channels));
    }
    scale_rows(y, w.r[upper], w.r[lower]);
#pragma unroll
    for (int i = 0; i < TILE / 16; i++) {
        if (i > block) continue;
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; j++) {
            int from = 8 * j + lane % 4 * 2;
            g[j][0] *= token_weight(w, upper, from), g[j][1] *= token_weight(w, upper, from + 1);
            g[j][2] *= token_weight(w, lower, from), g[j][3] *= token_weight(w, lower, from + 1);
        }
        uint32_t a[4];
        pack_a(a, g, i);
        multiply_across(y, a, x, 16 * i, 0, blocks_of(channels));
    }
}

/* Grid: sequences x heads, slices of P channels. states: NULL, or (batch, heads, tiles, head_dim, state). */
template <int P, int N>
__global__ void __launch_bounds__(SSD_THREADS)
    ssd_forward_tiles(bf16 *y, bf16 *states, mamba_shape s, struct mamba_columns columns, mamba_tape tape,
                      const bf16 *proj, const float *d) {
    using tiles = forward_tiles<P, N>;
    tiles *m = shared_memory<tiles>();
    size_t batch = blockIdx.x / s.heads, head = blockIdx.x % s.heads, slice = blockIdx.y * (size_t)P;
    size_t length = ssd_tile(s), count = ssd_tiles(s), y_stride = s.heads * s.head_dim;
    int channels = (int)(s.head_dim - slice), state = (int)s.state, warp = (int)threadIdx.x / WARP, row = 16 * warp;
    head_view v = view_head(s, columns, tape, proj, batch, head);
    v.x += slice;
    y += batch * s.time * y_stride + head * s.head_dim + slice;
    if (states) states += (blockIdx.x * count * s.head_dim + slice) * s.state;
    channels = channels < P ? channels : P;

    state_part<P, N> carried;
    carried.write(m->state[0]);
    if (states) carried.store(states, s.state, m->state[0], channels, state);
    int first = (int)(length < s.time ? length : s.time);
    fetch(m, 0, v, 0, first, channels, state);
    if (warp == 0) make_weights(&m->weights[0], read_weights(v, 0, length, s.time), first);
    for (size_t i = 0; i < count; i++) {
        size_t start = i * length, next = start + length;
        int now = (int)(s.time - start < length ? s.time - start : length), buffer = (int)(i % tiles::BUFFERS);
        int then = next < s.time ? (int)(s.time - next < length ? s.time - next : length) : 0;
        copy_wait<0>();
        __syncthreads(); /* this tile, its weights and its state are there; nobody reads the tile before any more */
        if (tiles::BUFFERS == 2 && then > 0) fetch(m, 1 - buffer, v, next, then, channels, state);
        raw_weights raw;
        if (warp == 0 && then > 0) raw = read_weights(v, next, length, s.time);
        const tile_weights &w = m->weights[i % 2];
        if (row < now) {
            float out[P / 8][4];
            tile_outputs<P, N>(out, m->b[buffer], m->c[buffer], m->x[buffer], m->state[i % 2], w, row, channels, state);
            add_rows(out, d[head], m->x[buffer], row);
            write_rows(m->y, row, 0, out);
            store_rows<P>(y + (start + (size_t)row) * y_stride, y_stride, &m->y[row], now - row, channels);
        }
        if (then == 0) break;
        carried.advance(w.whole, m->x[buffer], w.fall, m->b[buffer], now, state);
        tile_row<N> *leaving = m->state[(i + 1) % 2];
        carried.write(leaving);
        if (states) carried.store(states + (i + 1) * s.head_dim * s.state, s.state, leaving, channels, state);
        if (warp == 0) make_weights(&m->weights[(i + 1) % 2], raw, then);
        if (tiles::BUFFERS == 1) {
            __syncthreads();
            fetch(m, 0, v, next, then, channels, state);
        }
    }
}

template <int P, int N>
static void launch_forward(bf16 *y, struct mamba_tape *tape, const bf16 *proj, const real *d,
                           const struct mamba_shape *s) {
    bf16 *states = s->chunk <= TILE ? acts(tape->states) : NULL;
    dim3 grid((unsigned)(s->batch * s->heads), (unsigned)ceil_div(s->head_dim, P));
    LAUNCH((ssd_forward_tiles<P, N>), grid, SSD_THREADS, sizeof(forward_tiles<P, N>), y, states, *s, mamba_columns(s),
           *tape, proj, d);
}

/* Chunks of more than 64 tokens are cut into tiles here, and their states are left to the backward pass to make. */
extern "C" void cuda_ssd_forward(struct lane *, act *y, struct mamba_tape *tape, const act *proj, const real *d,
                                 const struct mamba_shape *shape) {
    SSD_DISPATCH(shape, launch_forward, acts(y), tape, acts(proj), d, shape);
}
