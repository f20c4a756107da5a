/* ssd_full_phases: of ssd_full_backward.cu, sums over a tile's tokens: a head's rotations, and the gradients of its
 * phases and their rates. */
#pragma once
#include "kernels/cuda/ssd_full_backward.cuh"

/* In sums over a tile's tokens a lane has one of its warp's two angles, of four tokens; lanes two apart follow each
 * other. */
struct phase_lane {
    unsigned angle, token;
    __device__ phase_lane(unsigned warp, unsigned lane) : angle(warp * WARP_ANGLES + lane % 2), token(lane / 2 * 4) {}
};
__device__ static inline float4 four_at(const float *line, unsigned at) {
    return *reinterpret_cast<const float4 *>(line + at);
}

/* A lane's rotations to turn[which]: of token k ^ first, first and those 0 or 2. */
__device__ static inline void store_turns(backward_squares *m, unsigned which, const phase_lane &at, unsigned first,
                                          const rotation (&turn)[4]) {
    char *tables = reinterpret_cast<char *>(m->turn);
    unsigned offset =
        (unsigned)(reinterpret_cast<char *>(turns_at(m->turn, which, at.token, at.angle)) - tables) + at.angle % 2 * 8;
    offset ^= first * (128 + 16);
#pragma unroll
    for (unsigned k = 0; k < 4; k++)
        *reinterpret_cast<rotation *>(tables + (offset ^ (k * 128 + k / 2 * 32 + k % 2 * 64))) = turn[k];
}

/* The warp's rotations of a head, whose steps are steps[which]. Of lanes that are eight apart one has its tokens in
 * another order, for the banks. */
__device__ static inline void turn_tokens(backward_squares *m, unsigned which, unsigned warp, unsigned lane) {
    const tile_steps &s = m->steps[which];
    phase_lane at(warp, lane);
    float4 rate = m->rate[warp * WARP + lane], delta = four_at(s.delta, at.token);
    float to[4];
    to[0] = wrap_turns(rate.x * delta.x), to[1] = to[0] + wrap_turns(rate.y * delta.y);
    to[2] = to[1] + wrap_turns(rate.z * delta.z), to[3] = to[2] + wrap_turns(rate.w * delta.w);
    float sum = to[3];
#pragma unroll
    for (int offset = 2; offset < WARP; offset *= 2) {
        float before = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= (unsigned)offset) sum += before;
    }
    float start = s.phase[at.angle] + (sum - to[3]);
    bool swapped = lane / 8 % 2;
    rotation turn[4];
#pragma unroll
    for (int k = 0; k < 4; k++) turn[k] = rotation_of(wrap_turns(start + (swapped ? to[k ^ 2] : to[k])));
    store_turns(m, which, at, swapped ? 2 : 0, turn);
}

/* Of the phases of a head, dphi by B and by C, where its K was; lines of 64 tokens, permuted for the banks of lanes
 * that have four angles of eight tokens, or two of 16. */
__device__ static inline float *phase_line(backward_squares *m, unsigned here, unsigned which, unsigned angle) {
    return reinterpret_cast<float *>(&m->gradient[here]) + (which * ANGLES + angle) * TILE;
}
__device__ static inline unsigned phase_place(unsigned angle, unsigned token) {
    return token ^ (angle % 2 * 16 + angle / 2 % 2 * 8);
}

/* By four warps, of which each has four angles, and a lane eight tokens of one: two fours, the later ones first in
 * every second pair of lanes, for the banks. */
struct sum_lane {
    unsigned warp, angle, first; /* the first token of the first four; the other four: first ^ 4 */
    bool later;                  /* whether the first four are the later ones */
    __device__ sum_lane(const group_place &place)
        : warp(place.group * 2 + place.band / 2), angle(warp * 4 + place.lane % 4),
          first(place.lane / 4 * 8 + place.lane / 2 % 2 * 4), later(place.lane / 2 % 2) {}
    __device__ unsigned tokens(unsigned half) const { return first ^ half * 4; }
    __device__ float4 *dtheta(backward_squares *m, unsigned half, unsigned lane) const {
        return &m->dtheta[(warp * 2 + half) * WARP + lane];
    }
    __device__ float4 rate(const backward_squares *m, unsigned half) const {
        return m->rate[angle / 2 * WARP + tokens(half) / 4 * 2 + angle % 2];
    }
};
__device__ static inline void fetch_delta(float4 (&delta)[2], const float *from, const sum_lane &at) {
    delta[0] = four_at(from, at.tokens(0)), delta[1] = four_at(from, at.tokens(1));
}

/* dphi to F, its sum over the token and the tile's later ones; adds delta F to dtheta, leaves the tile's sums of dphi,
 * and rate times F where dphi by B was. delta: of the lane's tokens. */
__device__ static inline void sum_phases(backward_squares *m, unsigned here, const float4 (&delta)[2], float *sums,
                                         const sum_lane &at, unsigned lane) {
    float *line[2];
    float4 f[2];
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        line[i] = phase_line(m, here, 0, at.angle) + phase_place(at.angle, at.tokens(i));
        float4 b = four_at(line[i], 0), c = four_at(line[i], ANGLES * TILE);
        f[i] = {b.x + c.x, b.y + c.y, b.z + c.z, b.w + c.w};
        f[i].z += f[i].w, f[i].y += f[i].z, f[i].x += f[i].y;
    }
    float own = f[0].x + f[1].x, sum = own;
#pragma unroll
    for (int offset = 4; offset < WARP; offset *= 2) {
        float more = __shfl_down_sync(0xffffffffu, sum, offset);
        if (lane + (unsigned)offset < WARP) sum += more;
    }
    if (lane < 4) sums[at.angle] = sum;
    float behind = sum - own, behind_each[2] = {behind + (at.later ? 0 : f[1].x), behind + (at.later ? f[0].x : 0)};
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        float4 &dtheta = *at.dtheta(m, i, lane), before = dtheta, rate = at.rate(m, i), d = delta[i];
        float x = behind_each[i];
        f[i] = {f[i].x + x, f[i].y + x, f[i].z + x, f[i].w + x};
        dtheta = {before.x + d.x * f[i].x, before.y + d.y * f[i].y, before.z + d.z * f[i].z, before.w + d.w * f[i].w};
        *reinterpret_cast<float4 *>(line[i]) = {rate.x * f[i].x, rate.y * f[i].y, rate.z * f[i].z, rate.w * f[i].w};
    }
}
