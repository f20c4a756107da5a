/* ssd_full: what the kernels for heads that fill their tiles share: 64 channels, a state of 64, 16 angles, chunks of 64
 * tokens, all of them there (fills_tiles). Products are those of warpgroups; see warpgroup.cuh.
 *
 * A block has two warpgroups. What comes from global memory a tile at a time and is changed before its first use (B, C,
 * the steps) comes to registers, a tile ahead: shared memory is what binds, so it is written once. */
#pragma once
#include "kernels/cuda/ssd_head.cuh"
#include "kernels/cuda/warpgroup.cuh"

/* As scan_form, with all known when it is compiled. */
struct full_head {
    static constexpr int P = 64, N = 64;
    __device__ static int state(size_t) { return N; }
    __device__ static int angles(size_t) { return N / 4; }
    __device__ static int tokens(size_t) { return TILE; }
};
using square = panels<TILE, TILE>; /* tokens or channels by channels or states */
static constexpr int ANGLES = full_head::N / 4, FRAGMENTS = TILE / 8, STEPS = TILE / 16;
static constexpr unsigned BAND_ANGLES = ANGLES / BANDS; /* of which a warp makes the rotations, of four */

/* Of a thread: its warpgroup, its warp in that, its lane, the first of the 16 rows that the warp has of a product, and
 * the first of the two rows that the lane has of those. */
struct group_place {
    unsigned group, band, lane, row, upper;
};
__device__ static inline group_place place_in_group() {
    unsigned warp = __shfl_sync(0xffffffffu, threadIdx.x / WARP, 0), band = warp % BANDS, lane = threadIdx.x % WARP;
    return {warp / BANDS, band, lane, band * 16, band * 16 + lane / 4};
}
/* The same, so that the compiler does not know it: else it would make all addresses of a loop before that, and have no
 * registers for them. */
__device__ static inline unsigned afresh(unsigned x) {
#ifndef HINGE_CUDA_EMULATOR
    asm volatile("" : "+r"(x));
#endif
    return x;
}
__device__ static inline group_place afresh(const group_place &place) {
    unsigned lane = afresh(place.lane);
    return {place.group, place.band, lane, place.row, place.row + lane / 4};
}
/* Likewise: sums are made here, and not where they are next used, up to which all their terms would be held. */
__device__ static inline void sum_now(float (&acc)[FRAGMENTS][4]) {
#ifndef HINGE_CUDA_EMULATOR
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++)
        asm volatile("" : "+f"(acc[i][0]), "+f"(acc[i][1]), "+f"(acc[i][2]), "+f"(acc[i][3]));
#else
    (void)acc;
#endif
}
/* Of a lane's pair in the fragment i. */
__device__ static inline unsigned pair_column(unsigned lane, int i) { return (unsigned)i * 8 + lane % 4 * 2; }

/* --- tiles -------------------------------------------------------------------------------------------------------- */

/* A row of one of several tiles, from a piece on: the others lie where a constant is added by exclusive or, and eight
 * rows further 1024 bytes. */
struct tile_line {
    square *tiles;
    unsigned offset;
    __device__ tile_line(square *all, unsigned which, unsigned row, unsigned piece, unsigned byte = 0)
        : tiles(all), offset(which * (unsigned)sizeof(square) + row * 128 + (row ^ piece) % 8 * 16 + byte) {}
    __device__ void *at(unsigned piece, unsigned rows = 0) const {
        return reinterpret_cast<char *>(tiles) + (offset ^ piece * 16) + rows * 128;
    }
    __device__ uint4 *eight(unsigned piece, unsigned rows = 0) const { return static_cast<uint4 *>(at(piece, rows)); }
    __device__ uint32_t *two(unsigned piece, unsigned rows = 0) const {
        return static_cast<uint32_t *>(at(piece, rows));
    }
};

/* Begins the copy of 64 rows of 64 elements. */
__device__ static inline void load_square(square *tiles, unsigned which, const bf16 *from, unsigned stride,
                                          const group_place &place) {
    unsigned row = (place.group * BANDS + place.band) * 4 + place.lane / 8;
    tile_line line(tiles, which, row, place.lane);
    from += row * stride + place.lane % 8 * 8;
#pragma unroll
    for (unsigned i = 0; i < TILE; i += SSD_THREADS / 8) copy_16(line.at(0, i), from + i * stride, true);
}

/* The warp's 16 rows, rounded, to a tile, and from there to global memory; `to` is column 0 of the first of them. */
__device__ static inline void store_band(bf16 *to, unsigned stride, square *tiles, unsigned which,
                                         const float (&acc)[FRAGMENTS][4], const group_place &place) {
    tile_line pairs(tiles, which, place.upper, 0, place.lane % 4 * 4),
        rows(tiles, which, place.row + place.lane / 8, place.lane);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        *pairs.two(i) = pack_bf16(acc[i][0], acc[i][1]);
        *pairs.two(i, 8) = pack_bf16(acc[i][2], acc[i][3]);
    }
    __syncwarp();
    to += place.lane / 8 * stride + place.lane % 8 * 8;
#pragma unroll
    for (unsigned i = 0; i < 16; i += 4) {
        uint4 eight = *rows.eight(i % 8, i);
        *reinterpret_cast<uint4 *>(to + i * stride) = eight;
    }
}

/* The warp's rows of a tile, as left operands of four steps; or of its transpose. */
__device__ static inline void load_left(uint32_t (&a)[STEPS][4], square *tiles, unsigned which,
                                        const group_place &place) {
    tile_line line(tiles, which, place.row + place.lane % 16, place.lane / 16);
#pragma unroll
    for (int k = 0; k < STEPS; k++) ldmatrix_x4(a[k], line.at(2 * k));
}
__device__ static inline void load_left_across(uint32_t (&a)[STEPS][4], square *tiles, unsigned which,
                                               const group_place &place) {
    tile_line line(tiles, which, place.lane % 8 + place.lane / 16 * 8, 2 * place.band + place.lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < STEPS; k++) ldmatrix_x4_trans(a[k], line.at(0, 16 * k));
}

/* The accumulators, rounded, as left operands. */
__device__ static inline void pack_all(uint32_t (&a)[STEPS][4], const float (&d)[FRAGMENTS][4]) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) pack_left(a[k], d, k);
}
/* Left operands, to the warp's rows of a tile. */
__device__ static inline void store_left(square *tiles, unsigned which, const uint32_t (&a)[STEPS][4],
                                         const group_place &place) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    tile_line line(tiles, which, place.row + place.lane % 16, place.lane / 16);
#pragma unroll
    for (unsigned k = 0; k < STEPS; k++)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                     :
                     : "r"(shared_address(line.at(2 * k))), "r"(a[k][0]), "r"(a[k][1]), "r"(a[k][2]), "r"(a[k][3])
                     : "memory");
#else
    tile_line pairs(tiles, which, place.upper, 0, place.lane % 4 * 4);
#pragma unroll
    for (unsigned k = 0; k < STEPS; k++) {
        *pairs.two(2 * k) = a[k][0], *pairs.two(2 * k, 8) = a[k][1];
        *pairs.two(2 * k + 1) = a[k][2], *pairs.two(2 * k + 1, 8) = a[k][3];
    }
#endif
}
/* A warp's rows of a tile, which it has just written, to global memory; `to` is column 0 of the first of them. */
__device__ static inline void copy_band(bf16 *to, unsigned stride, square *tiles, unsigned which,
                                        const group_place &place) {
    tile_line rows(tiles, which, place.row + place.lane / 8, place.lane);
    to += place.lane / 8 * stride + place.lane % 8 * 8;
#pragma unroll
    for (unsigned i = 0; i < 16; i += 4) {
        uint4 eight = *rows.eight(i % 8, i);
        *reinterpret_cast<uint4 *>(to + i * stride) = eight;
    }
}

/* Scales what the product sums over: element k of each row by weight[k]. */
__device__ static inline void scale_steps(uint32_t (&a)[STEPS][4], const float *weight, unsigned lane) {
#pragma unroll
    for (int k = 0; k < STEPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 w = two_at(weight, (int)pair_column(lane, 2 * k + i / 2));
            a[k][i] = pack_bf16(low_half(a[k][i]) * w.x, high_half(a[k][i]) * w.y);
        }
}

/* All four steps of a product, the left operand in registers or the group's rows of a tile. */
template <operand_order B>
__device__ static inline void multiply_all(float (&d)[FRAGMENTS][4], const square *a, const square *b, bool more) {
#pragma unroll
    for (int k = 0; k < TILE; k += 16) multiply<BY_ROWS, B>(d, a, 0, b, 0, k, more || k > 0);
}
template <operand_order B>
__device__ static inline void multiply_all(float (&d)[FRAGMENTS][4], const uint32_t (&a)[STEPS][4], const square *b,
                                           bool more) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) multiply<B>(d, a[k], b, 0, 16 * k, more || k > 0);
}

/* --- rotations ---------------------------------------------------------------------------------------------------- */

/* Those of a tile, two neighbouring angles of a token to 16 bytes, permuted so that none of these meet in a bank: lanes
 * that write every second token; lanes that read tokens t and t + 4 and every second place; lanes that read eight bytes
 * of four neighbouring tokens. */
struct turn_table {
    float4 places[TILE][ANGLES / 2];
};
/* A token's of two angles; of angles that are angles_on (even) on, and tokens that are tokens_on (of eight) on. */
__device__ static inline float4 *turns_at(turn_table *tables, unsigned which, unsigned t, unsigned angle,
                                          unsigned angles_on = 0, unsigned tokens_on = 0) {
    unsigned place = angle / 2 ^ (t / 4 % 2 | (t & 2) | ((t * 4 ^ t / 2) & 4));
    unsigned offset = which * (unsigned)sizeof(turn_table) + t * 128 + place * 16;
    return reinterpret_cast<float4 *>(reinterpret_cast<char *>(tables) +
                                      (offset ^ angles_on / 2 * 16 ^ tokens_on / 8 % 2 * 64) + tokens_on * 128);
}

/* What one warp needs to make the rotations of OWN angles of a tile; a lane has two neighbouring tokens. */
template <unsigned OWN> struct angle_steps {
    float2 delta, rate[OWN];
    float phase[OWN];

    __device__ void fetch_rates(const head_view &v, int tile, unsigned first, unsigned lane) {
        unsigned token = (unsigned)tile * TILE + lane * 2;
#pragma unroll
        for (unsigned i = 0; i < OWN; i++)
            rate[i] = *reinterpret_cast<const float2 *>(v.rate + (first + i) * (unsigned)v.time + token);
    }
    __device__ void fetch(const head_view &v, int tile, unsigned first, unsigned lane) {
        delta = *reinterpret_cast<const float2 *>(v.delta + (unsigned)tile * TILE + lane * 2);
#pragma unroll
        for (unsigned i = 0; i < OWN; i++) phase[i] = v.phase[(unsigned)tile * ANGLES + first + i];
    }
    __device__ void make(turn_table *tables, unsigned which, unsigned angle, unsigned lane) const {
        make(tables, which, angle, lane, [](int) {});
    }
    /* The same, with the steps of another sum over the lanes, by their offsets, beside this one's. */
    template <class STEP>
    __device__ void make(turn_table *tables, unsigned which, unsigned angle, unsigned lane, STEP beside) const {
        float first[OWN], both[OWN], sum[OWN];
#pragma unroll
        for (unsigned i = 0; i < OWN; i++) {
            first[i] = wrap_turns(rate[i].x * delta.x);
            sum[i] = both[i] = first[i] + wrap_turns(rate[i].y * delta.y);
        }
#pragma unroll
        for (int offset = 1; offset < WARP; offset *= 2) {
            beside(offset);
#pragma unroll
            for (unsigned i = 0; i < OWN; i++) {
                float before = __shfl_up_sync(0xffffffffu, sum[i], offset);
                if (lane >= (unsigned)offset) sum[i] += before;
            }
        }
        rotation one[OWN], two[OWN];
#pragma unroll
        for (unsigned i = 0; i < OWN; i++) {
            float start = phase[i] + (sum[i] - both[i]);
            one[i] = rotation_of(wrap_turns(start + first[i]));
            two[i] = rotation_of(wrap_turns(start + both[i]));
        }
#pragma unroll
        for (unsigned i = 0; i < OWN; i += 2) {
            *turns_at(tables, which, 2 * lane, angle, i) = {one[i].cosine, one[i].sine, one[i + 1].cosine,
                                                            one[i + 1].sine};
            *turns_at(tables, which, 2 * lane + 1, angle, i) = {two[i].cosine, two[i].sine, two[i + 1].cosine,
                                                                two[i + 1].sine};
        }
    }
};

/* What one warp needs to make a tile's weights; a lane has two neighbouring tokens. */
struct weight_steps {
    float2 log_decay, gamma, delta;
    float delta_behind, gamma_behind; /* of the token behind the tile */

    __device__ void fetch(const head_view &v, int tile, unsigned lane) {
        unsigned token = (unsigned)tile * TILE + lane * 2, behind = (unsigned)(tile + 1) * TILE;
        log_decay = *reinterpret_cast<const float2 *>(v.log_decay + token);
        gamma = *reinterpret_cast<const float2 *>(v.gamma + token);
        delta = *reinterpret_cast<const float2 *>(v.delta + token);
        bool more = tile + 1 < v.tiles;
        delta_behind = more ? v.delta[behind] : 0;
        gamma_behind = more ? v.gamma[behind] : 0;
    }
    __device__ void make(tile_weights *w) const {
        float next = __shfl_down_sync(0xffffffffu, delta.x - gamma.x, 1);
        if (threadIdx.x % WARP == WARP - 1) next = delta_behind - gamma_behind;
        make_weights(w, {{log_decay.x, log_decay.y}, {gamma.x, gamma.y}, {delta.y - gamma.y, next}, {1, 1}});
    }
};

/* A tile's steps in shared memory, where registers are short; delta and gamma with those of the token behind, zeros
 * where the sequence ends. */
struct tile_steps {
    float delta[TILE + 4], gamma[TILE + 4], log_decay[TILE], phase[ANGLES];

    /* Begins their copy; by a warpgroup. */
    __device__ void fetch(const head_view &v, int tile, const group_place &place) {
        unsigned token = (unsigned)tile * TILE, pieces = place.band == 3 ? ANGLES / 4 : TILE / 4;
        float *to = place.band == 0 ? delta : place.band == 1 ? gamma : place.band == 2 ? log_decay : phase;
        const float *from = place.band == 0   ? v.delta + token
                            : place.band == 1 ? v.gamma + token
                            : place.band == 2 ? v.log_decay + token
                                              : v.phase + (unsigned)tile * ANGLES;
        if (place.lane < pieces + (place.band < 2))
            copy_16(to + 4 * place.lane, from + 4 * place.lane, place.lane < pieces || tile + 1 < v.tiles);
    }
    __device__ weight_steps of_lane(unsigned lane) const {
        int token = 2 * (int)lane;
        return {two_at(log_decay, token), two_at(gamma, token), two_at(delta, token), delta[TILE], gamma[TILE]};
    }
};

/* --- B and C ------------------------------------------------------------------------------------------------------ */

/* A thread's part of making them: eight columns in ROWS rows that are eight apart, of B or C. A warp has the rotated
 * half of the columns or the other; of two warps w and w + 4, which share a scheduler, one has each. */
struct vector_place {
    unsigned row, column;
    bool c, rotated;
};
__device__ static inline vector_place place_of_vectors(const group_place &place) {
    unsigned part = place.band ^ place.group, row = place.lane / 8 + place.lane / 4 % 2 * 4; /* t, t + 4: for banks */
    return {place.group * 32 + row, part % 2 * 32 + place.lane % 4 * 8, part / 2 == 1, part % 2 == 0};
}
__device__ static inline void take_eight(float (&to)[8], float4 low, float4 high) {
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}
__device__ static inline void load_eight(float (&to)[8], const float *from) {
    take_eight(to, *reinterpret_cast<const float4 *>(from), *reinterpret_cast<const float4 *>(from + 4));
}
struct own_vectors {
    static constexpr unsigned ROWS = 4, APART = 8;
    const bf16 *rows;     /* of this thread's first row in the tile that is fetched next */
    const float *inverse; /* of that row's token */
    unsigned width;
    float norm[8], bias[8];
    uint4 raw[ROWS];
    float inv[ROWS];

    __device__ own_vectors(const head_view &v, int tile, const group_place &own) : width((unsigned)v.width) {
        vector_place place = place_of_vectors(own);
        unsigned row = (unsigned)tile * TILE + place.row;
        rows = (place.c ? v.c : v.b) + row * width + place.column;
        inverse = (place.c ? v.inv_c : v.inv_b) + row;
    }
    __device__ void fetch_parameters(const head_view &v, const mamba_weights &weights, const group_place &own) {
        vector_place place = place_of_vectors(own);
        load_eight(norm, (place.c ? weights.c_norm : weights.b_norm) + place.column);
        load_eight(bias, (place.c ? v.c_bias : v.b_bias) + place.column);
    }
    __device__ void fetch() {
#pragma unroll
        for (unsigned i = 0; i < ROWS; i++) {
            raw[i] = *reinterpret_cast<const uint4 *>(rows + i * APART * width);
            inv[i] = inverse[i * APART];
        }
    }
    /* to = rotated (raw inv norm + bias) */
    __device__ void make(square *b, square *c, turn_table *tables, unsigned which, const group_place &own) const {
        vector_place place = place_of_vectors(own);
        tile_line line(place.c ? c : b, which, place.row, place.column / 8);
#pragma unroll
        for (unsigned i = 0; i < ROWS; i++) {
            uint32_t pairs[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
            float value[8];
            norm_eight(value, pairs, inv[i], norm, bias);
            if (place.rotated)
#pragma unroll
                for (int k = 0; k < 4; k += 2) {
                    float4 two = *turns_at(tables, which, place.row, place.column / 2, k, i * APART);
                    rotate(value[2 * k], value[2 * k + 1], {two.x, two.y});
                    rotate(value[2 * k + 2], value[2 * k + 3], {two.z, two.w});
                }
#pragma unroll
            for (int k = 0; k < 4; k++) pairs[k] = pack_bf16(value[2 * k], value[2 * k + 1]);
            *line.eight(0, i * APART) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
};

/* ssd_full.cu: as cuda_ssd_forward and cuda_ssd_silu_gate_forward; ssd_full_carry.cu: as ssd_carry. */
void ssd_full_forward(bf16 *y, const scan_tensors &a);
void ssd_full_gated(bf16 *y, bf16 *gated, const scan_tensors &a);
void ssd_full_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy);
