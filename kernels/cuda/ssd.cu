/* ssd: the Mamba-3 recurrence for whole sequences, forward; the mathematics is in kernels/cpu/ssd.c. Here for heads,
 * states and chunks of any size; those that fill their tiles are in ssd_full.cu.
 *
 * One block walks the tiles of one (sequence, head): while it works on a tile, the next one's columns of proj and its
 * steps are on their way to shared memory, where B and C are then made. The state stays in float registers; its
 * rounded form goes to shared memory, where the tile's product with C finds it, and to tape.states. */
#include "kernels/cuda/ssd_full.cuh"

/* Behind this lie the rotations and the steps. */
template <class F> struct forward_tiles : tile_walk<F> {
    static constexpr int P = F::P, N = F::N, BUFFERS = tile_walk<F>::BUFFERS;
    tile_row<N> b[BUFFERS][TILE], c[BUFFERS][TILE];
    tile_row<P> x[BUFFERS][TILE];
    tile_row<N> state[2][P];
    tile_row<TILE> weighed[TILE]; /* G o weights */
    vector_parameters<N> b_parameters, c_parameters;
    tile_weights weights[BUFFERS];
};

template <class F> static size_t forward_bytes(size_t angles) {
    return sizeof(forward_tiles<F>) + line_bytes<F>(angles);
}

/* Begins the copy of a tile; its steps are fetched for themselves. */
template <class F>
__device__ static inline void fetch(forward_tiles<F> *m, const head_view &v, int tile, int channels) {
    size_t first = (size_t)tile * (size_t)v.tile * v.width;
    int length = tile_length<F>(v, tile), buffer = tile % forward_tiles<F>::BUFFERS;
    load_tile<TILE, F::N>(m->b[buffer], v.b + first, v.width, length, v.state);
    load_tile<TILE, F::N>(m->c[buffer], v.c + first, v.width, length, v.state);
    load_tile<TILE, F::P>(m->x[buffer], v.x + first, v.width, length, channels);
}

/* The fragment g of tokens `to` (upper, lower) by from, from + 1, times what those weigh; before: all come before. */
__device__ static inline void weigh(float (&g)[4], const tile_weights &w, int upper, int lower, int from, bool before) {
    if (before) {
        float2 l = two_at(w.l, from), kappa = two_at(w.kappa, from);
        float l_upper = w.l[upper], l_lower = w.l[lower];
        g[0] *= fast_exp2(l_upper - l.x) * kappa.x, g[1] *= fast_exp2(l_upper - l.y) * kappa.y;
        g[2] *= fast_exp2(l_lower - l.x) * kappa.x, g[3] *= fast_exp2(l_lower - l.y) * kappa.y;
    } else {
        g[0] *= token_weight(w, upper, from), g[1] *= token_weight(w, upper, from + 1);
        g[2] *= token_weight(w, lower, from), g[3] *= token_weight(w, lower, from + 1);
    }
}

/* The warp's blocks of y = diag(r) C H'^T and of G o weights, which goes to `weighed`. */
template <class F>
__device__ static inline void tile_scores(float (&y)[OWN<F::P>][4], forward_tiles<F> *m, const tile_row<F::N> *b,
                                          const tile_row<F::N> *c, const tile_row<F::N> *entering,
                                          const tile_weights &w, warp_place place, int channels, int state) {
    int row = place.row, upper = row + (int)threadIdx.x % WARP / 4, lower = upper + 8;
    column_blocks<false> earlier = columns_between(place, 0, row + 16); /* tokens up to the warp's own */
    float g[OWN<TILE>][4];
    clear_rows(g);
    clear_rows(y);
#pragma unroll
    for (int k = 0; k < F::N; k += 16) {
        if (k >= state) break;
        uint32_t a[4];
        load_a(a, c, row, k);
        multiply(g, a, b, k, earlier);
        multiply(y, a, entering, k, columns_to<false>(place, channels));
    }
    scale_rows(y, w.r[upper], w.r[lower]);
#pragma unroll
    for (int i = 0; i < OWN<TILE>; i++)
        if (earlier.wanted(i / 2)) weigh(g[i], w, upper, lower, earlier.pair(i), earlier.at(i / 2) < row);
    write_rows(m->weighed, row, g, earlier);
}

/* y += (G o weights) x + d x, to global memory by way of the rows of c, which nobody reads any more. */
template <class F>
__device__ static inline void tile_outputs(float (&y)[OWN<F::P>][4], forward_tiles<F> *m, tile_row<F::N> *c,
                                           const tile_row<F::P> *x, float d, bf16 *to, size_t stride, warp_place place,
                                           int length, int channels) {
    column_blocks<false> columns = columns_to<false>(place, channels);
    int row = place.row;
#pragma unroll
    for (int k = 0; k < TILE; k += 16) {
        if (k > row) break;
        uint32_t a[4];
        load_a(a, m->weighed, row, k);
        multiply_across(y, a, x, k, columns);
    }
    add_rows(y, d, x, row, columns);
    write_rows(c, row, y, columns);
    store_rows<OWN<F::P>>(to, stride, c, row, length - row, columns);
}

/* Grid: sequences x heads, slices of P channels. tape.states: (batch, heads, chunks, head_dim, state). */
template <class F>
__global__ void __launch_bounds__(SSD_THREADS, F::BLOCKS) ssd_forward_tiles(bf16 *y, scan_tensors a) {
    using tiles = forward_tiles<F>;
    tiles *m = shared_memory<tiles>();
    const mamba_shape &s = a.s;
    warp_place place = place_of_warp();
    size_t batch = blockIdx.x / s.heads, head = blockIdx.x % s.heads, slice = blockIdx.y * (size_t)F::P;
    size_t y_stride = s.heads * s.head_dim, state_size = s.head_dim * s.state;
    int channels = s.head_dim - slice >= F::P ? F::P : (int)(s.head_dim - slice), row = place.row;
    head_view v = view_head<F>(a, batch, head);
    v.x += slice;
    y += batch * s.time * y_stride + head * s.head_dim + slice;
    bf16 *states = acts(a.tape.states) + blockIdx.x * (size_t)v.tiles * state_size + slice * s.state;
    tile_lines l = lay_out_lines(m + 1, v.angles);
    int state = F::state(s.state);

    load_parameters(&m->b_parameters, a.weights.b_norm, v.b_bias, v.state);
    load_parameters(&m->c_parameters, a.weights.c_norm, v.c_bias, v.state);
    state_part<F> carried(place, state);
    carried.write(m->state[0], states, channels);
    load_steps<F>(steps_of<F>(l, 0), v, 0, place.warp);
    copy_commit();
    fetch(m, v, 0, channels);
    if (tiles::AHEAD && v.tiles > 1) load_steps<F>(steps_of<F>(l, 1), v, 1, place.warp);
    copy_commit();
    if (tiles::AHEAD) {
        copy_wait<1>();
        __syncthreads();
        begin_tile<F>(m, l, v, 0, place.warp);
    }
    for (int i = 0; i < v.tiles; i++) {
        int length = tile_length<F>(v, i), buffer = i % tiles::BUFFERS;
        tile_row<F::N> *b = m->b[buffer], *c = m->c[buffer];
        const tile_weights &weights = m->weights[buffer];
        copy_wait<0>();
        __syncthreads(); /* this tile and its state are there; nobody reads the tile before any more */
        if (!tiles::AHEAD) {
            begin_tile<F>(m, l, v, i, place.warp);
            __syncthreads();
        }
        make_vectors<F>(b, c, steps_of<F>(l, i), m->b_parameters, m->c_parameters, l.turn, v.angles, length,
                        place.warp);
        if (tiles::AHEAD && i + 1 < v.tiles) {
            fetch(m, v, i + 1, channels);
            if (i + 2 < v.tiles) load_steps<F>(steps_of<F>(l, i + 2), v, i + 2, place.warp);
            copy_commit();
        }
        __syncthreads();
        float out[OWN<F::P>][4];
        if (row < length) tile_scores(out, m, b, c, m->state[i % 2], weights, place, channels, state);
        if (tiles::AHEAD && i + 1 < v.tiles) begin_tile<F>(m, l, v, i + 1, place.warp);
        __syncthreads();
        if (row < length)
            tile_outputs(out, m, c, m->x[buffer], a.weights.d[head], y + ((size_t)i * s.chunk + (size_t)row) * y_stride,
                         y_stride, place, length, channels);
        if (i + 1 == v.tiles) break;
        carried.advance(weights.whole, m->x[buffer], weights.fall, b, length);
        carried.write(m->state[(i + 1) % 2], states + (size_t)(i + 1) * state_size, channels);
        if (!tiles::AHEAD) {
            __syncthreads();
            fetch(m, v, i + 1, channels);
            load_steps<F>(steps_of<F>(l, i + 1), v, i + 1, place.warp);
            copy_commit();
        }
    }
}

template <class F> static void launch_forward(bf16 *y, const scan_tensors &a) {
    dim3 grid((unsigned)(a.s.batch * a.s.heads), (unsigned)ceil_div(a.s.head_dim, F::P));
    LAUNCH((ssd_forward_tiles<F>), grid, SSD_THREADS, (forward_bytes<F>(a.s.angles)), y, a);
}

extern "C" void cuda_ssd_forward(struct lane *, act *y, struct mamba_tape *tape, const act *proj,
                                 const struct mamba_weights *weights, const struct mamba_shape *shape) {
    scan_tensors a = {*shape, mamba_columns(shape), *tape, *weights, acts(proj)};
    if (fills_tiles(a))
        ssd_full_forward(acts(y), a);
    else
        SSD_DISPATCH(shape, launch_forward, acts(y), a);
}

extern "C" void cuda_ssd_silu_gate_forward(struct lane *lane, act *gated, act *y, struct mamba_tape *tape,
                                           const act *proj, const struct mamba_weights *weights,
                                           const struct mamba_shape *shape) {
    scan_tensors a = {*shape, mamba_columns(shape), *tape, *weights, acts(proj)};
    if (fills_tiles(a)) {
        ssd_full_gated(acts(y), acts(gated), a);
        return;
    }
    cuda_ssd_forward(lane, y, tape, proj, weights, shape);
    cuda_silu_gate_forward(lane, gated, y, proj + a.columns.z, a.columns.width, shape->batch * shape->time,
                           shape->heads * shape->head_dim);
}
