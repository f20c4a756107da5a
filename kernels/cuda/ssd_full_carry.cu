/* ssd_full_carry: ssd_carry for heads that fill their tiles.
 *
 * A block walks the tiles of one (sequence, head) from last to first. Of each tile one warpgroup has K and the weights
 * of the next, and the other makes the rotations of the tile after the next; both make the next one's C. dy and the
 * steps are copied to shared memory two tiles ahead: steps that were loaded to registers were waited for where the next
 * loads began.
 *
 * Published preset, a call: 9 GFLOP; dy read, K written: 268 MB, the rest 30 MB: limit 69 us. Measured on an H200: 109
 * us, in 70% of which the pipe of shared memory has work. */
#include "kernels/cuda/ssd_full.cuh"

struct carry_squares {
    square c[2], dy[3], gradient; /* of tile i: c[i % 2], dy[i % 3], turn[i % 2], weights[i % 2], steps[i % 4] */
    turn_table turn[2];
    tile_weights weights[2];
    tile_steps steps[4];
    float rate[4][ANGLES][TILE];
};

struct dy_rows {
    const bf16 *rows; /* of token 0 */
    unsigned stride;
};

/* Begin the copies of what a tile needs; the steps' by one warpgroup. */
__device__ static inline void fetch_dy(carry_squares *m, const dy_rows &dy, int tile, const group_place &place) {
    load_square(m->dy, (unsigned)tile % 3, dy.rows + (size_t)tile * TILE * dy.stride, dy.stride, place);
}
__device__ static inline void fetch_steps(carry_squares *m, const head_view &v, int tile, const group_place &place) {
    unsigned which = (unsigned)tile % 4, angle = place.band * 2 + place.lane / 16, token = place.lane % 16 * 4;
    const float *from = v.rate + angle * (unsigned)v.time + (unsigned)tile * TILE + token;
    m->steps[which].fetch(v, tile, place);
    copy_16(&m->rate[which][angle][token], from, true);
    copy_16(&m->rate[which][angle + ANGLES / 2][token], from + ANGLES / 2 * (unsigned)v.time, true);
}

/* The warp's rotations of a tile, and by one warp its weights. */
__device__ static inline void turn_tokens(carry_squares *m, int tile, const group_place &place) {
    angle_steps<BAND_ANGLES> angles;
    unsigned which = (unsigned)tile % 4, first = place.band * BAND_ANGLES;
    angles.delta = two_at(m->steps[which].delta, 2 * (int)place.lane);
#pragma unroll
    for (unsigned i = 0; i < BAND_ANGLES; i++) {
        angles.rate[i] = two_at(m->rate[which][first + i], 2 * (int)place.lane);
        angles.phase[i] = m->steps[which].phase[first + i];
    }
    angles.make(m->turn, (unsigned)tile % 2, first, place.lane);
}
__device__ static inline void weigh_tokens(carry_squares *m, int tile, unsigned lane) {
    m->steps[(unsigned)tile % 4].of_lane(lane).make(&m->weights[(unsigned)tile % 2]);
}

/* What both warpgroups do between tiles: waits until all of tile i is there, and begins copies for tiles further on. Of
 * tile 0 nothing is needed but its gradient's place. */
template <bool HAS_STEPS>
__device__ static inline void next_tile(carry_squares *m, const head_view &v, const dy_rows &dy, int i,
                                        const group_place &place) {
    copy_wait<1>();
    shared_written();
    __syncthreads(); /* all of this tile is there; nobody reads the tile behind it any more */
    if (i > 2) fetch_dy(m, dy, i - 2, place);
    if (HAS_STEPS && i > 4) fetch_steps(m, v, i - 4, place);
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
#pragma unroll 1
    for (int i = last; i > 0; i--) {
        group_place place = afresh(own);
        next_tile<true>(m, v, dy, i, place);
        if (i > 2) turn_tokens(m, i - 2, place);
        next_vectors(m, vectors, i, place);
    }
}

__device__ static inline void walk_gradients(carry_squares *m, const head_view &v, const dy_rows &dy,
                                             own_vectors<false> &vectors, bf16 *gradients, int last,
                                             const group_place &own) {
    float carried[FRAGMENTS][4];
    clear_rows(carried);
    gradients += (size_t)last * (TILE * TILE);
#pragma unroll 1
    for (int i = last; i > 0; i--, gradients -= TILE * TILE) {
        group_place place = afresh(own);
        next_tile<false>(m, v, dy, i, place);
        unsigned here = (unsigned)i % 2;
        const tile_weights &w = m->weights[here];
        uint32_t left[STEPS][4];
        pack_all(left, carried);
        store_left(&m->gradient, 0, left, place);
        __syncwarp();
        copy_band(gradients, TILE, &m->gradient, 0, place);
        load_left_across(left, m->dy, (unsigned)i % 3, place);
        scale_steps(left, w.r, place.lane);
        scale_rows(carried, w.whole, w.whole);
        products_begin();
        multiply_all<BY_COLUMNS>(carried, left, &m->c[here], true);
        products_commit();
        if (place.band == 3 && i > 1) weigh_tokens(m, i - 1, place.lane);
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

    fetch_dy(m, rows, last, place);
#pragma unroll 1
    for (int i = last; i >= 0 && i > last - 3; i--)
        if (place.group == 0) fetch_steps(m, v, i, place);
    copy_commit();
    if (last > 0) fetch_dy(m, rows, last - 1, place);
    if (last > 2 && place.group == 0) fetch_steps(m, v, last - 3, place);
    copy_commit();
    vectors.fetch();
    copy_wait<1>();
    __syncthreads();
    if (first_turned >= 0) turn_tokens(m, first_turned, place);
    if (place.group == 0 && place.band == 0) weigh_tokens(m, last, place.lane);
    __syncthreads();
    vectors.make(m->c, m->c, m->turn, (unsigned)last % 2, place);
    if (last > 1) vectors.move(-1), vectors.fetch();
    if (place.group == 0)
        walk_steps(m, v, rows, vectors, last, place);
    else
        walk_gradients(m, v, rows, vectors, gradients, last, place);
}

void ssd_full_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    LAUNCH(ssd_full_carried, (unsigned)(a.s.batch * a.s.heads), SSD_THREADS, sizeof(carry_squares), gradients, a, dy);
}
