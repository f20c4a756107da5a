/* device: what every kernel file is written against: types, launches, shared memory and reductions.
 *
 * The same sources are compiled by nvcc, and by the host's compiler against tests/cuda_emulator, which executes them
 * without a GPU. For that, kernels keep to a few rules:
 *   - a launch is LAUNCH(kernel, grid, block, shared_bytes, arguments...);
 *   - shared memory is dynamic only: float *tile = shared_memory<float>();
 *   - what threads of a warp or block share goes through __shfl_*_sync, __syncwarp, __syncthreads, or
 *     tensor_core.cuh; no atomics on floats: the order of every sum is fixed by the shapes;
 *   - an act is a bf16; kernels calculate in float. */
#pragma once
extern "C" {
#include "kernels/kernels.h"
}

#include <cuda_runtime.h>

enum { WARP = 32 };

/* One bfloat16 as it stands in memory. */
struct alignas(2) bf16 {
    uint16_t bits;
};

__host__ __device__ static inline const bf16 *acts(const act *x) { return reinterpret_cast<const bf16 *>(x); }
__host__ __device__ static inline bf16 *acts(act *x) { return reinterpret_cast<bf16 *>(x); }

__host__ __device__ static inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

#ifdef HINGE_CUDA_EMULATOR
static inline float to_float(bf16 x) { return emulator_float_of_bf16(x.bits); }
static inline bf16 to_bf16(float x) { return bf16{emulator_bf16_of_float(x)}; }
static inline uint32_t pack_bf16(float low, float high) {
    return (uint32_t)emulator_bf16_of_float(high) << 16 | emulator_bf16_of_float(low);
}
static inline float low_half(uint32_t pair) { return emulator_float_of_bf16((uint16_t)pair); }
static inline float high_half(uint32_t pair) { return emulator_float_of_bf16((uint16_t)(pair >> 16)); }
static inline float fast_exp2(float x) { return exp2f(x); }

template <typename T> static inline T *shared_memory() { return static_cast<T *>(emulator_shared_memory()); }
#else
__device__ static inline float to_float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
__device__ static inline bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
/* Two bf16 in one register; the one at the lower address in the low half. */
__device__ static inline uint32_t pack_bf16(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
__device__ static inline float low_half(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ static inline float high_half(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
/* One instruction, within 2 units in the last place; 0 where the result would be subnormal. */
__device__ static inline float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The block's dynamic shared memory, aligned to 1024 bytes. */
template <typename T> __device__ static inline T *shared_memory() {
    extern __shared__ __align__(1024) unsigned char dynamic_shared[];
    return reinterpret_cast<T *>(dynamic_shared);
}
#endif

/* --- the runtime side, in backend.cu ------------------------------------------------------------------------------ */

/* The stream that all of this process's ops run on. */
cudaStream_t device_stream();
/* Whether this device runs what is compiled for sm_90a. The emulator does not. */
bool is_hopper();
/* Keeps the first error for the backend's finish(), with the name of the op or kernel. */
void device_note(cudaError_t error, const char *name);
/* Keeps a message of an op that failed for a reason of its own (cuBLASLt, NCCL). */
void device_note_text(const char *name, const char *text);

#define LAUNCH(kernel, grid, block, shared_bytes, ...) \
    device_launch(#kernel, kernel, dim3(grid), dim3(block), shared_bytes, __VA_ARGS__)

template <typename... Parameters, typename... Arguments>
static void device_launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                          Arguments... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef HINGE_CUDA_EMULATOR
    device_note(
        emulator_launch(name, grid, block, shared_bytes, [=] { kernel(static_cast<Parameters>(arguments)...); }), name);
#else
    if (shared_bytes > 48 << 10)
        device_note(cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes),
                    name);
    kernel<<<grid, block, shared_bytes, device_stream()>>>(static_cast<Parameters>(arguments)...);
    device_note(cudaGetLastError(), name);
#endif
}

/* --- a lane's scratch, piece by piece ----------------------------------------------------------------------------- */

/* The next piece of what is laid out from `base` on, each on 256 bytes; used: bytes so far. With base NULL, only
 * counted. */
static inline size_t scratch_bytes(size_t bytes) { return ceil_div(bytes, 256) * 256; }
template <typename T> static inline T *take_scratch(void *base, size_t *used, size_t count) {
    T *at = reinterpret_cast<T *>(static_cast<char *>(base) + *used);
    *used += scratch_bytes(count * sizeof(T));
    return at;
}

/* --- reductions: every thread of the warp or block gets the result; the order is fixed ---------------------------- */

__device__ static inline float warp_sum(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

__device__ static inline float warp_max(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

/* `room` is shared memory for one float a warp; the block has whole warps and calls this together. */
__device__ static inline float block_sum(float x, float *room) {
    int thread = (int)threadIdx.x, warps = (int)blockDim.x / WARP;
    x = warp_sum(x);
    if (thread % WARP == 0) room[thread / WARP] = x;
    __syncthreads();
    float total = 0;
    for (int i = 0; i < warps; i++) total += room[i];
    __syncthreads();
    return total;
}
