/* ssd_carry: the gradient K of the state behind every tile, for ssd_backward; the mathematics is in kernels/cpu/ssd.c.
 *
 * One block walks the tiles of one (sequence, head) from last to first with K in float, K' = r_L K + (diag(r) dy)^T C,
 * and leaves its rounded form for every tile: with that, tiles no longer depend on each other.
 *
 * Published preset, a call: 9 GFLOP; dy read, K written: 268 MB, the rest 30 MB: limit 69 us. */
#include "kernels/cuda/ssd_head.cuh"

template <class F> struct carry_tiles {
    static constexpr int P = F::P, N = F::N;
    static constexpr int BUFFERS = N <= 64 ? 2 : 1;
    tile_row<N> c[BUFFERS][TILE];
    tile_row<P> dy[BUFFERS][TILE];
    tile_row<N> gradient[P];
    vector_parameters<N> parameters;
    tile_weights weights;
};

template <class F> static size_t carry_bytes(size_t angles) {
    return sizeof(carry_tiles<F>) +
           (turn_floats(angles) + carry_tiles<F>::BUFFERS * step_floats(angles)) * sizeof(float);
}

template <class F>
__device__ static inline void fetch(carry_tiles<F> *m, int buffer, const step_lines &steps, const head_view &v,
                                    const bf16 *dy, size_t dy_stride, int tile, int channels, int warp) {
    size_t first = (size_t)tile * (size_t)v.tile;
    int length = tile_length(v, tile);
    load_tile<TILE, F::N, F::WHOLE>(m->c[buffer], v.c + first * v.width, v.width, length, v.state);
    load_tile<TILE, F::P, F::WHOLE>(m->dy[buffer], dy + first * dy_stride, dy_stride, length, channels);
    load_steps<F::WHOLE>(steps, v, tile, warp);
    copy_commit();
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
    int channels = F::WHOLE || s.head_dim - slice >= F::P ? F::P : (int)(s.head_dim - slice);
    head_view v = view_head(a, batch, head);
    dy += batch * s.time * stride + head * s.head_dim + slice;
    gradients += blockIdx.x * (size_t)v.tiles * state_size + slice * s.state;
    float *lines = reinterpret_cast<float *>(m + 1), *turns = lines + tiles::BUFFERS * step_floats(s.angles);
    rotation *turn = reinterpret_cast<rotation *>(turns);
    size_t own = step_floats(s.angles); /* floats of one tile's steps */

    load_parameters(&m->parameters, a.weights.c_norm, v.c_bias, v.state);
    state_part<F> carried(place, v.state);
    int buffer = 0;
    fetch(m, 0, lay_out_steps(lines, v.angles), v, dy, stride, v.tiles - 1, channels, place.warp);
    for (int i = v.tiles - 1; i >= 0; i--) {
        int length = tile_length(v, i);
        step_lines steps = lay_out_steps(lines + buffer * own, v.angles);
        copy_wait<0>();
        __syncthreads(); /* this tile is there; nobody reads the tile behind it any more */
        carried.write(m->gradient, gradients + (size_t)i * state_size, channels);
        if (i == 0) break;
        make_rotations(turn, steps, v.angles, place.warp);
        if (place.warp == SSD_WARPS - 1) make_weights(&m->weights, steps, length);
        __syncthreads();
        make_vectors(m->c[buffer], steps.inv_c, m->parameters, turn, v.angles, length, place.warp);
        int next = tiles::BUFFERS - 1 - buffer;
        if (tiles::BUFFERS == 2)
            fetch(m, next, lay_out_steps(lines + next * own, v.angles), v, dy, stride, i - 1, channels, place.warp);
        __syncthreads();
        carried.advance(m->weights.whole, m->dy[buffer], m->weights.r, m->c[buffer], length);
        if (tiles::BUFFERS == 1) {
            __syncthreads();
            fetch(m, next, lay_out_steps(lines, v.angles), v, dy, stride, i - 1, channels, place.warp);
        }
        buffer = next;
    }
}

template <class F> static void launch_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    dim3 grid((unsigned)(a.s.batch * a.s.heads), (unsigned)ceil_div(a.s.head_dim, F::P));
    LAUNCH((ssd_carry_gradients<F>), grid, SSD_THREADS, (carry_bytes<F>(a.s.angles)), gradients, a, dy);
}

void ssd_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    SSD_DISPATCH(&a.s, fills_tiles(a), launch_carry, gradients, a, dy);
}
