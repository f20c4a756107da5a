/* rounding: what all quantisers share; kernels/cpu/rounding.h and kernels/half.h for the device. */
#pragma once
#include "kernels/cuda/device.cuh"

#ifdef HINGE_CUDA_EMULATOR
#include "kernels/half.h"
static inline uint16_t half_bits(double x) { return half_from_double(x); }
static inline float float_of_half(uint16_t bits) { return half_to_real(bits); }
#else
/* From float64 in one rounding, to nearest, ties to even; overflow gives infinity. */
__device__ static inline uint16_t half_bits(double x) {
    uint16_t bits;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(bits) : "d"(x));
    return bits;
}
__device__ static inline float float_of_half(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
#endif

/* To the nearest integer, ties to even, no further from 0 than limit; not a number becomes -limit. */
__device__ static inline float round_within(float x, float limit) {
    float q = rintf(x);
    q = q > -limit ? q : -limit;
    return q < limit ? q : limit;
}
