/* functions: exp, sigmoid, silu and tanh for kernels, from the two approximations that the hardware has; and the bucket
 * of a bigram.
 *
 * ex2.approx and rcp.approx are within 2 units of the last place; tanh and sigmoid are therefore right to about 2e-7,
 * absolutely, which is what float32 leaves of logits of size 30. */
#pragma once
#include "kernels/cuda/device.cuh"

#ifdef HINGE_CUDA_EMULATOR
static inline float fast_reciprocal(float x) { return 1 / x; }
#else
__device__ static inline float fast_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

static constexpr float LOG2_E = 1.44269504f;

__device__ static inline float fast_exp(float x) { return fast_exp2(x * LOG2_E); }
__device__ static inline float fast_sigmoid(float x) { return fast_reciprocal(1 + fast_exp(-x)); }
/* 1 - 2/(exp(2x) + 1): right at both ends, where exp is 0 or infinite. */
__device__ static inline float fast_tanh(float x) { return 1 - 2 * fast_reciprocal(fast_exp2(2 * LOG2_E * x) + 1); }

/* bigram_bucket, on the device. */
__device__ static inline int32_t bucket_of(int32_t before, int32_t id, size_t bucket_count) {
    return (int32_t)(((uint64_t)before * 92821 + (uint64_t)id) % bucket_count);
}
