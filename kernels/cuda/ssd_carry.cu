/* ssd_carry: the gradient K of the state behind every tile, for ssd_backward; the mathematics is in kernels/cpu/ssd.c.
 *
 * One block walks the tiles of one (sequence, head) from last to first with K in float, K' = r_L K + (diag(r) dy)^T C,
 * and leaves its rounded form for every tile: with that, tiles no longer depend on each other.
 *
 * Published preset, a call: 9 GFLOP; dy read, K written: 268 MB, the rest 30 MB: limit 69 us. */
#include "kernels/cuda/ssd_head.cuh"

template <int P, int N> struct carry_tiles {
    static constexpr int BUFFERS = N <= 64 ? 2 : 1;
    tile_row<N> c[BUFFERS][TILE];
    tile_row<P> dy[BUFFERS][TILE];
    tile_row<N> gradient[P];
    vector_parameters<N> parameters;
    tile_weights weights;
};

template <int P, int N> static size_t carry_bytes(size_t angles) {
    return sizeof(carry_tiles<P, N>) +
           (turn_floats(angles) + carry_tiles<P, N>::BUFFERS * step_floats(angles)) * sizeof(float);
}

template <int P, int N>
__device__ static inline void fetch(carry_tiles<P, N> *m, int buffer, const step_lines &steps, const head_view &v,
                                    const bf16 *dy, size_t dy_stride, int tile, int channels) {
    size_t first = (size_t)tile * (size_t)v.tile;
    int length = tile_length(v, tile);
    load_tile<TILE, N>(m->c[buffer], v.c + first * v.width, v.width, length, v.state);
    load_tile<TILE, P>(m->dy[buffer], dy + first * dy_stride, dy_stride, length, channels);
    load_steps(steps, v, tile);
    copy_commit();
}

/* Grid: sequences x heads, slices of P channels. gradients: (batch, heads, chunks, head_dim, state). */
template <int P, int N>
__global__ void __launch_bounds__(SSD_THREADS, N <= 64 ? 2 : 1) ssd_carry_gradients(bf16 *gradients, scan_tensors a, const bf16 *dy) {
    using tiles = carry_tiles<P, N>;
    tiles *m = shared_memory<tiles>();
    const mamba_shape &s = a.s;
    size_t batch = blockIdx.x / s.heads, head = blockIdx.x % s.heads, slice = blockIdx.y * (size_t)P;
    size_t stride = s.heads * s.head_dim, state_size = s.head_dim * s.state;
    int channels = s.head_dim - slice < P ? (int)(s.head_dim - slice) : P, warp = (int)threadIdx.x / WARP;
    head_view v = view_head(a, batch, head);
    dy += batch * s.time * stride + head * s.head_dim + slice;
    gradients += blockIdx.x * (size_t)v.tiles * state_size + slice * s.state;
    float *lines = reinterpret_cast<float *>(m + 1), *turns = lines + tiles::BUFFERS * step_floats(s.angles);
    rotation *turn = reinterpret_cast<rotation *>(turns);
    size_t own = step_floats(s.angles); /* floats of one tile's steps */

    load_parameters(&m->parameters, a.weights.c_norm, v.c_bias, v.state);
    state_part<P, N> carried(v.state);
    int buffer = 0;
    fetch(m, 0, lay_out_steps(lines, v.angles), v, dy, stride, v.tiles - 1, channels);
    for (int i = v.tiles - 1; i >= 0; i--) {
        int length = tile_length(v, i);
        tile_row<N> *c = m->c[buffer];
        step_lines steps = lay_out_steps(lines + buffer * own, v.angles);
        copy_wait<0>();
        __syncthreads(); /* this tile is there; nobody reads the tile behind it any more */
        carried.write(m->gradient, gradients + (size_t)i * state_size, channels);
        if (i == 0) break;
        make_rotations(turn, steps, v.angles);
        if (warp == SSD_WARPS - 1) make_weights(&m->weights, steps, length);
        __syncthreads();
        make_vectors(c, c, steps.inv_c, m->parameters, turn, v.angles, length);
        if (tiles::BUFFERS == 2)
            fetch(m, 1 - buffer, lay_out_steps(lines + (1 - buffer) * own, v.angles), v, dy, stride, i - 1, channels);
        __syncthreads();
        carried.advance(m->weights.whole, m->dy[buffer], m->weights.r, c, length);
        if (tiles::BUFFERS == 2) {
            buffer = 1 - buffer;
        } else {
            __syncthreads();
            fetch(m, 0, lay_out_steps(lines, v.angles), v, dy, stride, i - 1, channels);
        }
    }
}

template <int P, int N> static void launch_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    dim3 grid((unsigned)(a.s.batch * a.s.heads), (unsigned)ceil_div(a.s.head_dim, P));
    LAUNCH((ssd_carry_gradients<P, N>), grid, SSD_THREADS, (carry_bytes<P, N>(a.s.angles)), gradients, a, dy);
}

void ssd_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    SSD_DISPATCH(&a.s, launch_carry, gradients, a, dy);
}
