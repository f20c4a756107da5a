/* emulator: the part of CUDA that kernels/cuda uses, executed on the host; included where nvcc would bring its own.
 *
 * Kernels are plain functions here. The threads of a block are fibres of one thread of the host, run in a shuffled,
 * seeded order (EMULATOR_SEED), and blocks run one after another, shuffled too. What would be undefined on a device
 * ends the program with the kernel's name, block and thread: see README.md. */
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <memory>

#include "tests/cuda_emulator/cublasLt.h"
#include "tests/cuda_emulator/cuda_runtime.h"
#include "tests/cuda_emulator/nccl.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

/* --- vector types ------------------------------------------------------------------------------------------------- */

#define EMULATOR_VECTORS(name, type, align2, align4)                        \
    struct alignas(align2) name##2 {                                        \
        type x, y;                                                          \
    };                                                                      \
    struct alignas(align4) name##4 {                                        \
        type x, y, z, w;                                                    \
    };                                                                      \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATOR_VECTORS(char, signed char, 2, 4)
EMULATOR_VECTORS(uchar, unsigned char, 2, 4)
EMULATOR_VECTORS(short, short, 4, 8)
EMULATOR_VECTORS(ushort, unsigned short, 4, 8)
EMULATOR_VECTORS(int, int, 8, 16)
EMULATOR_VECTORS(uint, unsigned, 8, 16)
EMULATOR_VECTORS(float, float, 8, 16)
EMULATOR_VECTORS(double, double, 16, 16)
#undef EMULATOR_VECTORS

/* --- threads, launches and faults --------------------------------------------------------------------------------- */

struct uint3 {
    unsigned x, y, z;
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

/* Runs the kernel, or records it while the stream is being captured. `kernel` holds the arguments. */
cudaError_t emulator_launch_call(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                                 void (*call)(const void *kernel), std::shared_ptr<const void> kernel, size_t bytes);
template <typename Kernel>
static inline cudaError_t emulator_launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                                          const Kernel &kernel) {
    auto call = [](const void *k) { (*static_cast<const Kernel *>(k))(); };
    return emulator_launch_call(name, grid, block, shared_bytes, call, std::make_shared<const Kernel>(kernel),
                                sizeof kernel);
}
void *emulator_shared_memory();
/* Reports kernel, block, thread and seed with the message, and ends the program with EMULATOR_FAULT. */
enum { EMULATOR_FAULT = 86 };
[[noreturn]] void emulator_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum emulator_vote { EMULATOR_COUNT, EMULATOR_AND, EMULATOR_OR };
int emulator_block_barrier(emulator_vote vote, int predicate);
static inline void __syncthreads() { emulator_block_barrier(EMULATOR_COUNT, 0); }
static inline int __syncthreads_count(int p) { return emulator_block_barrier(EMULATOR_COUNT, p); }
static inline int __syncthreads_and(int p) { return emulator_block_barrier(EMULATOR_AND, p); }
static inline int __syncthreads_or(int p) { return emulator_block_barrier(EMULATOR_OR, p); }

/* --- what the lanes of a warp do together ------------------------------------------------------------------------- */

enum emulator_shuffle { EMULATOR_INDEX, EMULATOR_UP, EMULATOR_DOWN, EMULATOR_XOR };
void emulator_warp_barrier(unsigned mask);
unsigned emulator_ballot(unsigned mask, int predicate);
uint64_t emulator_shuffled(emulator_shuffle how, unsigned mask, uint64_t value, int by, int width);

template <typename T> static inline T emulator_shuffle_of(emulator_shuffle how, unsigned mask, T x, int by, int width) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &x, sizeof x);
    bits = emulator_shuffled(how, mask, bits, by, width);
    memcpy(&x, &bits, sizeof x);
    return x;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
    return emulator_shuffle_of(EMULATOR_INDEX, mask, x, from, width);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
    return emulator_shuffle_of(EMULATOR_UP, mask, x, (int)by, width);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
    return emulator_shuffle_of(EMULATOR_DOWN, mask, x, (int)by, width);
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int by, int width = 32) {
    return emulator_shuffle_of(EMULATOR_XOR, mask, x, by, width);
}
/* Of a whole warp. */
static inline unsigned __reduce_add_sync(unsigned mask, unsigned x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(mask, x, offset);
    return x;
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator_warp_barrier(mask); }
static inline unsigned __ballot_sync(unsigned mask, int p) { return emulator_ballot(mask, p); }
static inline int __any_sync(unsigned mask, int p) { return emulator_ballot(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return emulator_ballot(mask, p) == mask; }

/* One step that no other thread comes between: the value before, of 4 or 8 bytes. */
uint64_t emulator_atomic_load(const void *at, size_t bytes);
void emulator_atomic_store(void *at, uint64_t value, size_t bytes);

#include "tests/cuda_emulator/device_functions.h"
#include "tests/cuda_emulator/tensor_core.h"
