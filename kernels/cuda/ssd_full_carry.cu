/* ssd_full_carry: ssd_carry for heads that fill their tiles.
 *
 * A block walks the tiles of one (sequence, head) from last to first. Of each tile one warpgroup has K, and the other
 * makes the rotations of the tile after the next and the weights of the next; both make the next one's C.
 *
 * Published preset, a call: 9 GFLOP; dy read, K written: 268 MB, the rest 30 MB: limit 69 us. */
#include "kernels/cuda/ssd_full.cuh"

struct carry_squares {
    square c[2], dy[2], gradient; /* of tile i: i % 2 */
    turn_table turn[2];
    tile_weights weights[2];
};

struct dy_rows {
    const bf16 *rows; /* of token 0 */
    unsigned stride;
};

/* What both warpgroups do between tiles: waits until all of tile i is there, and begins the copy of the next dy. Of
 * tile 0 nothing is needed but its gradient's place. */
__device__ static inline void next_tile(carry_squares *m, const dy_rows &dy, int i, const group_place &place) {
    copy_wait<0>();
    shared_written();
    __syncthreads(); /* all of this tile is there; nobody reads the tile behind it any more */
    if (i > 1)
        load_square(m->dy, (unsigned)(i - 1) % 2, dy.rows + (size_t)(i - 1) * TILE * dy.stride, dy.stride, place);
    copy_commit();
}
/* And at the end of tile i: C of the next. */
__device__ static inline void next_vectors(carry_squares *m, own_vectors<false> &vectors, int i,
                                           const group_place &place) {
    if (i > 1) vectors.make(m->c, m->c, m->turn, (unsigned)(i - 1) % 2, place);
    if (i > 2) vectors.move(-1), vectors.fetch();
}

__device__ static inline void walk_steps(carry_squares *m, const head_view &v, const dy_rows &dy,
                                         own_vectors<false> &vectors, int last, const group_place &own) {
    angle_steps<BAND_ANGLES> angles;
    weight_steps steps;
    unsigned angle = own.band * BAND_ANGLES;
    if (last > 2) angles.fetch_rates(v, last - 2, angle, own.lane), angles.fetch(v, last - 2, angle, own.lane);
    if (own.band == 0 && last > 1) steps.fetch(v, last - 1, own.lane);
#pragma unroll 1
    for (int i = last; i > 0; i--) {
        group_place place = afresh(own);
        next_tile(m, dy, i, place);
        if (i > 2) angles.make(m->turn, (unsigned)i % 2, angle, place.lane);
        if (place.band == 0 && i > 1) steps.make(&m->weights[(i - 1) % 2]);
        next_vectors(m, vectors, i, place);
        if (i > 3) angles.fetch_rates(v, i - 3, angle, place.lane), angles.fetch(v, i - 3, angle, place.lane);
        if (place.band == 0 && i > 2) steps.fetch(v, i - 2, place.lane);
    }
}

__device__ static inline void walk_gradients(carry_squares *m, const dy_rows &dy, own_vectors<false> &vectors,
                                             bf16 *gradients, int last, const group_place &own) {
    float carried[FRAGMENTS][4];
    clear_rows(carried);
    gradients += (size_t)last * (TILE * TILE);
#pragma unroll 1
    for (int i = last; i > 0; i--, gradients -= TILE * TILE) {
        group_place place = afresh(own);
        unsigned here = (unsigned)i % 2;
        next_tile(m, dy, i, place);
        const tile_weights &w = m->weights[here];
        uint32_t left[STEPS][4];
        load_left_across(left, m->dy, here, place);
        scale_steps(left, w.r, place.lane);
        store_band(gradients, TILE, &m->gradient, 0, carried, place);
        scale_rows(carried, w.whole, w.whole);
        products_begin();
        multiply_all<BY_COLUMNS>(carried, left, &m->c[here], true);
        products_commit();
        next_vectors(m, vectors, i, place);
        products_wait<0>(carried);
    }
    __syncwarp();
    store_band(gradients, TILE, &m->gradient, 0, carried, own);
}

/* Grid: sequences x heads. gradients: (batch, heads, chunks, head_dim, state). */
__global__ void __launch_bounds__(SSD_THREADS, 2) ssd_full_carried(bf16 *gradients, scan_tensors a, const bf16 *dy) {
    auto *m = shared_memory<carry_squares>();
    const mamba_shape &s = a.s;
    group_place place = place_in_group();
    unsigned heads = (unsigned)s.heads, batch = blockIdx.x / heads, head = blockIdx.x % heads, stride = heads * TILE;
    head_view v =
        view_head<full_head>(a, batch, head, head / (heads / (unsigned)s.groups), (unsigned)s.time / (unsigned)TILE);
    dy_rows rows = {dy + batch * s.time * stride + head * TILE, stride};
    gradients += blockIdx.x * (size_t)v.tiles * (TILE * TILE) + place.row * TILE;
    int last = v.tiles - 1, first_turned = last - (int)place.group;
    own_vectors<false> vectors(v, last, place);
    vectors.fetch_parameters(v, a.weights, place);

    load_square(m->dy, (unsigned)last % 2, rows.rows + (size_t)last * TILE * stride, stride, place);
    copy_commit();
    vectors.fetch();
    if (first_turned >= 0) {
        unsigned angle = place.band * BAND_ANGLES;
        angle_steps<BAND_ANGLES> angles;
        angles.fetch_rates(v, first_turned, angle, place.lane);
        angles.fetch(v, first_turned, angle, place.lane);
        angles.make(m->turn, (unsigned)first_turned % 2, angle, place.lane);
    }
    if (place.group == 0 && place.band == 0) {
        weight_steps steps;
        steps.fetch(v, last, place.lane);
        steps.make(&m->weights[last % 2]);
    }
    __syncthreads();
    vectors.make(m->c, m->c, m->turn, (unsigned)last % 2, place);
    if (last > 1) vectors.move(-1), vectors.fetch();
    if (place.group == 0)
        walk_steps(m, v, rows, vectors, last, place);
    else
        walk_gradients(m, rows, vectors, gradients, last, place);
}

void ssd_full_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    LAUNCH(ssd_full_carried, (unsigned)(a.s.batch * a.s.heads), SSD_THREADS, sizeof(carry_squares), gradients, a, dy);
}
