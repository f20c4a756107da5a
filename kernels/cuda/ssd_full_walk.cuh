/* ssd_full_walk: what the kernels share that walk the tiles of a head in order, for heads that fill their tiles:
 * ssd_full.cu, ssd_full_carry.cu.
 *
 * One warpgroup of the block multiplies with what the other has made of the tile while the tile before was multiplied.
 * On Hopper a lane has a warp's rows of a tile copied in bulk, from and to memory, and waits at a barrier for them;
 * elsewhere all lanes copy. Loads to registers are not under way where a loop begins anew, because the compiler waits
 * for them there. A wait for copies by cp.async is one for stores in bulk, too, and the other way round. */
#pragma once
#include "kernels/cuda/ssd_full.cuh"
#include "kernels/cuda/tensor_map.cuh"

/* --- a warp's rows of a tile, from and to memory ------------------------------------------------------------------ */

/* Rows of 64 columns of a larger matrix: where a head's first is, and in the map of that matrix for bulk copies. */
template <class Element> struct matrix_rows {
    Element *rows;
    unsigned stride;
    const tensor_map *map;
    int column, row;
};

/* Of copies to shared memory, each of BANDS warps that has one of its own share announces it. */
__device__ static inline void begin_barrier(copy_barrier *here, int warps) {
#if HINGE_WGMMA
    barrier_begin(here, warps);
#else
    (void)here, (void)warps;
#endif
}
__device__ static inline void barriers_are_begun() {
#if HINGE_WGMMA
    barriers_begun();
#endif
}

/* Begins the copy of the warp's rows. */
__device__ static inline void fetch_band(square *tiles, unsigned which, const matrix_rows<const bf16> &from, int tile,
                                         copy_barrier *here, const group_place &place) {
#if HINGE_WGMMA
    if (is_elected()) {
        barrier_expect(here, 16 * TILE * (int)sizeof(bf16));
        copy_box(&tiles[which].pieces[0][place.row][0], from.map, from.column, from.row + tile * TILE + (int)place.row,
                 here);
    }
#else
    (void)here;
    unsigned row = place.row + place.lane / 8;
    tile_line line(tiles, which, row, place.lane);
    const bf16 *rows = from.rows + (size_t)((unsigned)tile * TILE + row) * from.stride + place.lane % 8 * 8;
#pragma unroll
    for (unsigned i = 0; i < 16; i += 4) copy_16(line.eight(i % 8, i), rows + i * from.stride, true);
    copy_commit();
#endif
}
/* Brings the warp's rows to the L2 cache, so that their copy takes little time later. */
__device__ static inline void bring_band(const matrix_rows<const bf16> &from, int tile, const group_place &place) {
#if HINGE_WGMMA
    if (is_elected()) box_to_l2(from.map, from.column, from.row + tile * TILE + (int)place.row);
#else
    (void)from, (void)tile, (void)place;
#endif
}
/* By a warp: the same with a tile's part of a line of floats. */
__device__ static inline void bring_line(const float *line, int tile, unsigned lane) {
#if HINGE_WGMMA
    if (lane < 2) fetch_to_l2(line + (unsigned)tile * TILE + lane * 32);
#else
    (void)line, (void)tile, (void)lane;
#endif
}
/* Until all rows that are announced at `here` have come, the turn-th time; elsewhere than on Hopper those that the
 * thread has copied. */
__device__ static inline void wait_for(copy_barrier *here, unsigned turn) {
#if HINGE_WGMMA
    barrier_wait(here, turn % 2);
#else
    (void)here, (void)turn;
    copy_wait<0>();
    __syncwarp();
#endif
}

/* Left operands to the warp's rows of a tile, and from there to memory; they stay until rows_are_stored. */
__device__ static inline void store_band(const matrix_rows<bf16> &to, int tile, square *tiles, unsigned which,
                                         const uint32_t (&a)[STEPS][4], const group_place &place) {
#if !HINGE_WGMMA
    __syncwarp(); /* lanes have read each other's rows there; Hopper's store keeps the warp together itself */
#endif
    store_left(tiles, which, a, place);
    shared_written();
    __syncwarp();
#if HINGE_WGMMA
    if (is_elected())
        store_box(to.map, to.column, to.row + tile * TILE + (int)place.row, &tiles[which].pieces[0][place.row][0]);
#else
    copy_band(to.rows + (size_t)((unsigned)tile * TILE + place.row) * to.stride, to.stride, tiles, which, place);
#endif
}
__device__ static inline void rows_are_stored() {
#if HINGE_WGMMA
    if (is_elected()) stores_wait_read();
#endif
    __syncwarp();
}

/* --- decays ------------------------------------------------------------------------------------------------------- */

/* Log-decays summed from the tile's start, times log2 e, of the lane's two tokens. */
__device__ static inline float2 sum_decays(float2 log_decay, unsigned lane) {
    float2 own = {log_decay.x * LOG2_E, log_decay.y * LOG2_E};
    float sum = own.x + own.y;
    for (unsigned offset = 1; offset < WARP; offset *= 2) {
        float before = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += before;
    }
    float before = __shfl_up_sync(0xffffffffu, sum, 1);
    return {(lane == 0 ? 0 : before) + own.x, sum};
}

/* --- rotations ---------------------------------------------------------------------------------------------------- */

/* A token's of two angles in a table; of tokens that are 8 eights on, and with angles that are exclusive by or. As
 * turns_at, but for lanes that write every eighth token of four angles, and lanes that read tokens t and t + 4 and
 * every second place. */
struct turn_place {
    turn_table *tables;
    unsigned offset;
    __device__ turn_place(turn_table *all, unsigned which, unsigned t, unsigned angle)
        : tables(all), offset(which * (unsigned)sizeof(turn_table) + t * 128 +
                              ((angle / 2 ^ t / 8 ^ t / 4 % 2) * 16 + angle % 2 * 8)) {}
    template <class Value> __device__ Value *at(unsigned flipped, unsigned tokens) const {
        return reinterpret_cast<Value *>(reinterpret_cast<char *>(tables) + (offset ^ flipped * 16) + tokens * 128);
    }
};

/* What a warp makes the rotations of four angles of a tile of: a lane has eight neighbouring tokens of one. */
struct turn_steps {
    static constexpr unsigned OWN = 8;
    float delta[OWN], rate[OWN], phase;

    /* What the lane's tokens turn is less than half a turn each, so that of their sum nothing need be taken off. */
    __device__ void make(turn_table *tables, unsigned which, const group_place &place) const {
        float turned[OWN];
#pragma unroll
        for (unsigned k = 0; k < OWN; k++) {
            turned[k] = wrap_turns(rate[k] * delta[k]);
            if (k > 0) turned[k] += turned[k - 1];
        }
        float sum = turned[OWN - 1];
#pragma unroll
        for (unsigned offset = 1; offset < 8; offset *= 2) {
            float before = __shfl_up_sync(0xffffffffu, sum, offset, 8);
            if (place.lane % 8 >= offset) sum += before;
        }
        float start = wrap_turns(phase + (sum - turned[OWN - 1]));
        turn_place to(tables, which, place.lane % 8 * OWN, place.band * BAND_ANGLES + place.lane / 8);
#pragma unroll
        for (unsigned k = 0; k < OWN; k++) {
            rotation turn = rotation_of(start + turned[k]);
            *to.at<float2>(k / 4, k) = {turn.cosine, turn.sine};
        }
    }
};

/* The same on its way through shared memory; a warp's. Pieces of 16 bytes are permuted for the banks of lanes that read
 * every second one. */
struct staged_steps {
    float4 rate[BAND_ANGLES][TILE / 4], delta[TILE / 4];
    float phase[BAND_ANGLES];

    __device__ static unsigned piece_at(unsigned piece) { return piece ^ piece / 8; }
    /* Begins the copies. */
    __device__ void fetch(const head_view &v, int tile, const group_place &place) {
        unsigned token = (unsigned)tile * TILE, angle = place.band * BAND_ANGLES, half = place.lane / 16,
                 piece = place.lane % 16, to = piece_at(piece);
        const float *rates = v.rate + (angle + half) * (unsigned)v.time + token + 4 * piece;
        copy_16(&rate[half][to], rates, true);
        copy_16(&rate[2 + half][to], rates + 2 * (unsigned)v.time, true);
        if (half == 0) copy_16(&delta[to], v.delta + token + 4 * piece, true);
        if (place.lane == 16) copy_16(phase, v.phase + (unsigned)tile * ANGLES + angle, true);
        copy_commit();
    }
    /* When the copies have come. */
    __device__ turn_steps of_lane(unsigned lane) const {
        turn_steps s;
        __syncwarp();
        unsigned low = piece_at(lane % 8 * 2), high = piece_at(lane % 8 * 2 + 1);
        take_eight(s.delta, delta[low], delta[high]);
        take_eight(s.rate, rate[lane / 8][low], rate[lane / 8][high]);
        s.phase = phase[lane / 8];
        __syncwarp();
        return s;
    }
};

/* --- B and C ------------------------------------------------------------------------------------------------------ */

/* Where raw rows of a tile's B or C come, and its tokens' inverse norms. */
struct raw_vectors {
    square *rows;
    float *inverse;
};
/* A warp's part of making B or C: all columns of ROWS tokens from the first on. In each of ROWS / 8 steps a thread has
 * eight columns that are rotated and eight that are not, of one token. */
template <unsigned ROWS> struct warp_vectors {
    matrix_rows<const bf16> from;
    const float *inverse; /* of token 0 */
    unsigned first;
    float norm[2][8], bias[2][8];

    __device__ warp_vectors(const head_view &v, const mamba_weights &weights, const matrix_rows<const bf16> &raw,
                            bool c, unsigned own, unsigned lane)
        : from(raw), inverse(c ? v.inv_c : v.inv_b), first(own) {
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            unsigned column = half * 32 + lane % 4 * 8;
            load_eight(norm[half], (c ? weights.c_norm : weights.b_norm) + column);
            load_eight(bias[half], (c ? v.c_bias : v.b_bias) + column);
        }
    }
    /* Begins the copy of the warp's rows of a tile. */
    __device__ void fetch(const raw_vectors &to, int tile, copy_barrier *here, unsigned lane) const {
        const float *norms = inverse + (unsigned)tile * TILE + first;
#if HINGE_WGMMA
        (void)lane;
        if (is_elected()) {
            barrier_expect(here, (int)(ROWS * (TILE * sizeof(bf16) + sizeof(float))));
#pragma unroll
            for (unsigned n = 0; n < ROWS; n += 16)
                copy_box(&to.rows->pieces[0][first + n][0], from.map, from.column,
                         from.row + tile * TILE + (int)(first + n), here);
            copy_bytes(to.inverse + first, norms, ROWS * sizeof(float), here);
        }
#else
        (void)here;
        unsigned row = first + lane / 8;
        tile_line line(to.rows, 0, row, lane);
        const bf16 *rows = from.rows + (size_t)((unsigned)tile * TILE + row) * from.stride + lane % 8 * 8;
#pragma unroll
        for (unsigned n = 0; n < ROWS; n += 4) copy_16(line.eight(n % 8, n), rows + n * from.stride, true);
        if (lane < ROWS / 4) copy_16(to.inverse + first + 4 * lane, norms + 4 * lane, true);
        copy_commit();
#endif
    }
    /* tiles[which] = rotated (raw inv norm + bias). */
    __device__ void make(square *tiles, unsigned which, turn_table *tables, unsigned turns, const raw_vectors &raw,
                         unsigned lane) const {
        unsigned row = first + lane / 8 + lane / 4 % 2 * 4, piece = lane % 4; /* t, t + 4: for banks */
        tile_line at(raw.rows, 0, row, piece), to(tiles, which, row, piece);
        turn_place turn(tables, turns, row, piece * 4);
#pragma unroll
        for (unsigned i = 0; i < ROWS / 8; i++) {
            float inv = raw.inverse[row + 8 * i];
#pragma unroll
            for (unsigned half = 0; half < 2; half++) {
                uint4 eight = *at.eight(4 * half, 8 * i);
                uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
                float value[8];
                norm_eight(value, pairs, inv, norm[half], bias[half]);
                if (half == 0) {
#pragma unroll
                    for (unsigned k = 0; k < 2; k++) {
                        float4 two = *turn.at<float4>(i ^ k, 8 * i);
                        rotate(value[4 * k], value[4 * k + 1], {two.x, two.y});
                        rotate(value[4 * k + 2], value[4 * k + 3], {two.z, two.w});
                    }
                }
#pragma unroll
                for (int k = 0; k < 4; k++) pairs[k] = pack_bf16(value[2 * k], value[2 * k + 1]);
                *to.eight(4 * half, 8 * i) = {pairs[0], pairs[1], pairs[2], pairs[3]};
            }
        }
    }
};

/* --- the host's side ---------------------------------------------------------------------------------------------- */

/* Of a matrix, for the copies of bands. */
#ifdef HINGE_CUDA_EMULATOR
static inline tensor_map map_of_rows(const bf16 *, size_t, size_t) { return {}; }
#else
static inline tensor_map map_of_rows(const bf16 *x, size_t columns, size_t rows) {
    if (!is_hopper()) return {};
    return boxes<2>{{columns, rows}, {columns * sizeof(bf16)}, {TILE, 16}}.map(x, "ssd");
}
#endif
