/* ssd_backward_sums: the last part of ssd_backward: what one tile finds for the next, and the weights' gradients.
 *
 * Published preset, a call: 8 KB, and tile_sums: the time of two launches. */
#include "kernels/cuda/ssd_backward.cuh"
#include "kernels/cuda/tile_sums.cuh"

/* One thread for the first token of each tile of each head: kappa of the token before reaches it. */
__global__ void __launch_bounds__(SSD_THREADS)
    join_tiles(mamba_tape_gradients dtape, const float *last, mamba_shape s, size_t count) {
    size_t index = (size_t)blockIdx.x * SSD_THREADS + threadIdx.x, head = index % s.heads, tile = index / s.heads;
    size_t tiles = ceil_div(s.time, s.chunk), batch = tile / tiles;
    if (index >= count || tile % tiles == 0) return;
    size_t at = (batch * s.heads + head) * s.time + tile % tiles * s.chunk;
    float before = last[index - s.heads];
    dtape.delta[at] += before;
    dtape.gamma[at] -= before;
}

void ssd_join(const backward_arguments &a, const mamba_gradients &to) {
    const mamba_shape &s = a.t.s;
    size_t tiles = s.batch * mamba_chunks(&s), biases = s.heads * s.state, norms = s.groups * s.state;
    LAUNCH(join_tiles, (unsigned)ceil_div(tiles * s.heads, SSD_THREADS), SSD_THREADS, 0, a.dtape, a.last, s,
           tiles * s.heads);
    all_tile_sums all = {{{to.b_bias, a.biases, 2 * biases, biases, 1, 0},
                          {to.c_bias, a.biases + biases, 2 * biases, biases, 1, 0},
                          {to.b_norm, a.norms, 2 * norms, s.state, s.groups, s.state},
                          {to.c_norm, a.norms + norms, 2 * norms, s.state, s.groups, s.state},
                          {to.d, a.dd, s.heads, s.heads, 1, 0}}};
    add_tile_sums(all, tiles);
}
