/* mamba: what preparing a sequence and decoding a token share; the mathematics is in kernels/cpu/mamba.c.
 *
 * A phase is held in turns, phi / (2 pi), and kept in [-1/2, 1/2]: taking whole turns off is exact. */
#pragma once
#include "kernels/cuda/functions.cuh"

static const float LEAST_DECAY = 1e-4f, TURN = 6.28318531f;

/* log(1 + x) of 0 .. 1: 2 artanh(x / (2 + x)), within 2.5e-7 of itself. */
__device__ static inline float log_of_one_and(float x) {
    float s = x * fast_reciprocal(2 + x), u = s * s;
    return s * (2 + u * (0.666663229f + u * (0.400245965f + u * (0.279651582f + u * 0.281577796f))));
}
__device__ static inline float softplus(float x) { return fmaxf(x, 0) + log_of_one_and(fast_exp(-fabsf(x))); }
__device__ static inline float sigmoid(float x) { return fast_sigmoid(x); }

/* a of a token and head, from a'. */
__device__ static inline float decay_rate(float raw) { return fminf(-softplus(raw), -LEAST_DECAY); }

/* Turns of phase for each unit of delta: pi tanh(theta') / (2 pi). */
__device__ static inline float turning_rate(float theta) { return 0.5f * fast_tanh(theta); }

__device__ static inline float wrap_turns(float turns) { return turns - rintf(turns); }
__device__ static inline double wrap_turns(double turns) { return turns - rint(turns); }

struct rotation {
    float cosine, sine;
};
/* Of a wrapped phase: the fast forms err by less than 2^-20 there. */
__device__ static inline rotation rotation_of(float turns) { return {__cosf(TURN * turns), __sinf(TURN * turns)}; }

__device__ static inline void rotate(float &even, float &odd, rotation r) {
    float e = even * r.cosine - odd * r.sine;
    odd = even * r.sine + odd * r.cosine;
    even = e;
}
__device__ static inline void rotate_back(float &even, float &odd, rotation r) {
    rotate(even, odd, {r.cosine, -r.sine});
}

/* 1/rms of x (count), by one warp; every lane gets it. */
__device__ static inline float inverse_rms(const bf16 *x, size_t count) {
    float sum = 0;
    for (size_t i = threadIdx.x % WARP; i < count; i += WARP) sum += to_float(x[i]) * to_float(x[i]);
    return rsqrtf(warp_sum(sum) / (float)count + (float)BC_NORM_EPSILON);
}
