/* ssd: the Mamba-3 recurrence for whole sequences, forward; the mathematics is in kernels/cpu/ssd.c.
 *
 * One block walks the tiles of one (sequence, head): while it works on a tile, the next one's columns of proj and its
 * steps are on their way to shared memory, where B and C are then made. The state stays in float registers; its
 * rounded form goes to shared memory, where the tile's product with C finds it, and to tape.states.
 *
 * Why no split of the sequence: the published preset has 256 (sequence, head) pairs, two blocks on each of 132 SMs, so
 * the chip is full, and splitting would read x a second time and write and read the states to have them first (403 MB,
 * 94 us). With fewer sequences than that the chip is not full; nothing of the published preset runs so.
 *
 * Published preset, a call: 34 GFLOP (43 us); x read, y and states written: 403 MB, the rest 40 MB (103 us). Two blocks
 * of an SM move 0.4 MB through shared memory a tile, 128 bytes a cycle (120 us): limit 120 us. */
#include "kernels/cuda/ssd_head.cuh"

/* Two of each tile, but for large states: there the next tile is fetched after this one. Rotations and steps follow. */
template <int P, int N> struct forward_tiles {
    static constexpr int BUFFERS = N <= 64 ? 2 : 1;
    tile_row<N> b[BUFFERS][TILE], c[BUFFERS][TILE];
    tile_row<P> x[BUFFERS][TILE];
    tile_row<N> state[2][P];
    tile_row<TILE> weighed[TILE]; /* G o weights */
    vector_parameters<N> b_parameters, c_parameters;
    tile_weights weights;
};

template <int P, int N> static size_t forward_bytes(size_t angles) {
    return sizeof(forward_tiles<P, N>) +
           (turn_floats(angles) + forward_tiles<P, N>::BUFFERS * step_floats(angles)) * sizeof(float);
}

template <int P, int N>
__device__ static inline void fetch(forward_tiles<P, N> *m, int buffer, const step_lines &steps, const head_view &v,
                                    int tile, int channels) {
    size_t first = (size_t)tile * (size_t)v.tile * v.width;
    int length = tile_length(v, tile);
    load_tile<TILE, N>(m->b[buffer], v.b + first, v.width, length, v.state);
    load_tile<TILE, N>(m->c[buffer], v.c + first, v.width, length, v.state);
    load_tile<TILE, P>(m->x[buffer], v.x + first, v.width, length, channels);
    load_steps(steps, v, tile);
    copy_commit();
}

/* The warp's blocks of y = diag(r) C H'^T and of G o weights, which goes to `weighed`. */
template <int P, int N>
__device__ static inline void tile_scores(float (&y)[OWN<P>][4], forward_tiles<P, N> *m, const tile_row<N> *b,
                                          const tile_row<N> *c, const tile_row<N> *entering, int row, int channels,
                                          int state) {
    int upper = row + (int)threadIdx.x % WARP / 4, lower = upper + 8;
    const tile_weights &w = m->weights;
    column_blocks earlier = own_columns(row + 16); /* tokens up to the warp's own */
    float g[OWN<TILE>][4];
    clear_rows(g);
    clear_rows(y);
    for (int k = 0; k < state; k += 16) {
        uint32_t a[4];
        load_a(a, c, row, k);
        multiply(g, a, b, k, earlier);
        multiply(y, a, entering, k, own_columns(channels));
    }
    scale_rows(y, w.r[upper], w.r[lower]);
#pragma unroll
    for (int i = 0; i < OWN<TILE>; i++) {
        if (!earlier.wanted(i / 2)) continue;
        int from = earlier.pair(i);
        g[i][0] *= token_weight(w, upper, from), g[i][1] *= token_weight(w, upper, from + 1);
        g[i][2] *= token_weight(w, lower, from), g[i][3] *= token_weight(w, lower, from + 1);
    }
    write_rows(m->weighed, row, g, earlier);
}

/* y += (G o weights) x + d x, to global memory by way of the rows of c, which nobody reads any more. */
template <int P, int N>
__device__ static inline void tile_outputs(float (&y)[OWN<P>][4], forward_tiles<P, N> *m, tile_row<N> *c,
                                           const tile_row<P> *x, float d, bf16 *to, size_t stride, int row, int length,
                                           int channels) {
    column_blocks columns = own_columns(channels);
#pragma unroll 1
    for (int k = 0; k <= row; k += 16) {
        uint32_t a[4];
        load_a(a, m->weighed, row, k);
        multiply_across(y, a, x, k, columns);
    }
    add_rows(y, d, x, row, columns);
    write_rows(c, row, y, columns);
    store_rows<OWN<P>>(to, stride, c, row, length - row, columns);
}

/* Grid: sequences x heads, slices of P channels. tape.states: (batch, heads, chunks, head_dim, state). */
template <int P, int N> __global__ void __launch_bounds__(SSD_THREADS, N <= 64 ? 2 : 1) ssd_forward_tiles(bf16 *y, scan_tensors a) {
    using tiles = forward_tiles<P, N>;
    tiles *m = shared_memory<tiles>();
    const mamba_shape &s = a.s;
    size_t batch = blockIdx.x / s.heads, head = blockIdx.x % s.heads, slice = blockIdx.y * (size_t)P;
    size_t y_stride = s.heads * s.head_dim, state_size = s.head_dim * s.state;
    int channels = s.head_dim - slice < P ? (int)(s.head_dim - slice) : P, row = place_of_warp().row;
    head_view v = view_head(a, batch, head);
    v.x += slice;
    y += batch * s.time * y_stride + head * s.head_dim + slice;
    bf16 *states = acts(a.tape.states) + blockIdx.x * (size_t)v.tiles * state_size + slice * s.state;
    float *lines = reinterpret_cast<float *>(m + 1), *turns = lines + tiles::BUFFERS * step_floats(s.angles);
    rotation *turn = reinterpret_cast<rotation *>(turns);
    size_t own = step_floats(s.angles); /* floats of one tile's steps */

    load_parameters(&m->b_parameters, a.weights.b_norm, v.b_bias, v.state);
    load_parameters(&m->c_parameters, a.weights.c_norm, v.c_bias, v.state);
    state_part<P, N> carried(v.state);
    carried.write(m->state[0], states, channels);
    fetch(m, 0, lay_out_steps(lines, v.angles), v, 0, channels);
    for (int i = 0; i < v.tiles; i++) {
        int length = tile_length(v, i), buffer = i % tiles::BUFFERS;
        tile_row<N> *b = m->b[buffer], *c = m->c[buffer];
        step_lines steps = lay_out_steps(lines + buffer * own, v.angles);
        copy_wait<0>();
        __syncthreads(); /* this tile and its state are there; nobody reads the tile before any more */
        make_rotations(turn, steps, v.angles);
        if (threadIdx.x / WARP == SSD_WARPS - 1) make_weights(&m->weights, steps, length);
        __syncthreads();
        make_vectors(b, b, steps.inv_b, m->b_parameters, turn, v.angles, length);
        make_vectors(c, c, steps.inv_c, m->c_parameters, turn, v.angles, length);
        if (tiles::BUFFERS == 2 && i + 1 < v.tiles)
            fetch(m, 1 - buffer, lay_out_steps(lines + (1 - buffer) * own, v.angles), v, i + 1, channels);
        __syncthreads();
        float out[OWN<P>][4];
        if (row < length) tile_scores<P, N>(out, m, b, c, m->state[i % 2], row, channels, v.state);
        __syncthreads();
        if (row < length)
            tile_outputs<P, N>(out, m, c, m->x[buffer], a.weights.d[head],
                               y + ((size_t)i * s.chunk + (size_t)row) * y_stride, y_stride, row, length, channels);
        if (i + 1 == v.tiles) break;
        carried.advance(m->weights.whole, m->x[buffer], m->weights.fall, b, length);
        carried.write(m->state[(i + 1) % 2], states + (size_t)(i + 1) * state_size, channels);
        if (tiles::BUFFERS == 1) {
            __syncthreads();
            fetch(m, 0, lay_out_steps(lines, v.angles), v, i + 1, channels);
        }
    }
}

template <int P, int N> static void launch_forward(bf16 *y, const scan_tensors &a) {
    dim3 grid((unsigned)(a.s.batch * a.s.heads), (unsigned)ceil_div(a.s.head_dim, P));
    LAUNCH((ssd_forward_tiles<P, N>), grid, SSD_THREADS, (forward_bytes<P, N>(a.s.angles)), y, a);
}

extern "C" void cuda_ssd_forward(struct lane *, act *y, struct mamba_tape *tape, const act *proj,
                                 const struct mamba_weights *weights, const struct mamba_shape *shape) {
    scan_tensors a = {*shape, mamba_columns(shape), *tape, *weights, acts(proj)};
    SSD_DISPATCH(shape, launch_forward, acts(y), a);
}
