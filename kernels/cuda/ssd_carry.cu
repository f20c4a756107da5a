/* ssd_carry: the gradient K of the state behind every tile, for ssd_backward; the mathematics is in kernels/cpu/ssd.c.
 * Here for heads, states and chunks of any size; those that fill their tiles are in ssd_full_carry.cu.
 *
 * One block walks the tiles of one (sequence, head) from last to first with K in float, K' = r_L K + (diag(r) dy)^T C,
 * and leaves its rounded form for every tile: with that, tiles no longer depend on each other. */
#include "kernels/cuda/ssd_full.cuh"

/* Behind this lie the rotations and the steps. */
template <class F> struct carry_tiles : tile_walk<F> {
    static constexpr int P = F::P, N = F::N, BUFFERS = tile_walk<F>::BUFFERS;
    tile_row<N> c[BUFFERS][TILE];
    tile_row<P> dy[BUFFERS][TILE];
    tile_row<N> gradient[P];
    vector_parameters<N> parameters;
    tile_weights weights[BUFFERS];
};

template <class F> static size_t carry_bytes(size_t angles) { return sizeof(carry_tiles<F>) + line_bytes<F>(angles); }

/* dy of a head, rows `stride` apart. */
struct carried_rows {
    const bf16 *dy;
    size_t stride;
    int channels;
};

/* Begins the copy of a tile; its steps are fetched for themselves. */
template <class F>
__device__ static inline void fetch(carry_tiles<F> *m, const head_view &v, const carried_rows &rows, int tile) {
    size_t first = (size_t)tile * (size_t)v.tile;
    int length = tile_length<F>(v, tile), buffer = tile % carry_tiles<F>::BUFFERS;
    load_tile<TILE, F::N>(m->c[buffer], v.c + first * v.width, v.width, length, v.state);
    load_tile<TILE, F::P>(m->dy[buffer], rows.dy + first * rows.stride, rows.stride, length, rows.channels);
}

/* Grid: sequences x heads, slices of P channels. gradients: (batch, heads, chunks, head_dim, state). */
template <class F>
__global__ void __launch_bounds__(SSD_THREADS, F::BLOCKS)
    ssd_carry_gradients(bf16 *gradients, scan_tensors a, const bf16 *dy) {
    using tiles = carry_tiles<F>;
    tiles *m = shared_memory<tiles>();
    const mamba_shape &s = a.s;
    warp_place place = place_of_warp();
    size_t batch = blockIdx.x / s.heads, head = blockIdx.x % s.heads, slice = blockIdx.y * (size_t)F::P;
    size_t stride = s.heads * s.head_dim, state_size = s.head_dim * s.state;
    int channels = s.head_dim - slice >= F::P ? F::P : (int)(s.head_dim - slice);
    head_view v = view_head<F>(a, batch, head);
    carried_rows rows = {dy + batch * s.time * stride + head * s.head_dim + slice, stride, channels};
    gradients += blockIdx.x * (size_t)v.tiles * state_size + slice * s.state;
    tile_lines l = lay_out_lines(m + 1, v.angles);
    int last = v.tiles - 1;

    load_parameters(&m->parameters, a.weights.c_norm, v.c_bias, v.state);
    state_part<F> carried(place, v.state);
    load_steps<F>(steps_of<F>(l, last), v, last, place.warp);
    copy_commit();
    fetch(m, v, rows, last);
    if (tiles::AHEAD && last > 0) load_steps<F>(steps_of<F>(l, last - 1), v, last - 1, place.warp);
    copy_commit();
    if (tiles::AHEAD) {
        copy_wait<1>();
        __syncthreads();
        begin_tile<F>(m, l, v, last, place.warp);
    }
    for (int i = last; i >= 0; i--) {
        int length = tile_length<F>(v, i), buffer = i % tiles::BUFFERS;
        const tile_weights &weights = m->weights[buffer];
        copy_wait<0>();
        __syncthreads(); /* this tile is there; nobody reads the tile behind it any more */
        carried.write(m->gradient, gradients + (size_t)i * state_size, channels);
        if (i == 0) break;
        if (!tiles::AHEAD) {
            begin_tile<F>(m, l, v, i, place.warp);
            __syncthreads();
        }
        make_vectors<F>(m->c[buffer], steps_of<F>(l, i).inv_c, m->parameters, l.turn, v.angles, length, place.warp);
        if (tiles::AHEAD && i > 1) { /* of tile 0 nothing is needed but its gradient's place */
            fetch(m, v, rows, i - 1);
            load_steps<F>(steps_of<F>(l, i - 2), v, i - 2, place.warp);
            copy_commit();
        }
        __syncthreads();
        if (tiles::AHEAD && i > 1) begin_tile<F>(m, l, v, i - 1, place.warp);
        carried.advance(weights.whole, m->dy[buffer], weights.r, m->c[buffer], length);
        if (!tiles::AHEAD && i > 1) {
            __syncthreads();
            fetch(m, v, rows, i - 1);
            load_steps<F>(steps_of<F>(l, i - 1), v, i - 1, place.warp);
            copy_commit();
        }
    }
}

template <class F> static void launch_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    dim3 grid((unsigned)(a.s.batch * a.s.heads), (unsigned)ceil_div(a.s.head_dim, F::P));
    LAUNCH((ssd_carry_gradients<F>), grid, SSD_THREADS, (carry_bytes<F>(a.s.angles)), gradients, a, dy);
}

void ssd_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    if (fills_tiles(a))
        ssd_full_carry(gradients, a, dy);
    else
        SSD_DISPATCH(&a.s, launch_carry, gradients, a, dy);
}
