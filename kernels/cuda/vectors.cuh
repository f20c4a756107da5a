/* vectors: neighbouring elements read and written 16 bytes at a time, and kernels that treat every element alike.
 *
 * Code is written once for packs of N elements: N fills 16 bytes where addresses and sizes allow, else N is 1. */
#pragma once
#include <type_traits>

#include "kernels/cuda/device.cuh"

template <int N> struct pack { float at[N]; };

enum { ACTS = 8, FLOATS = 4, EACH_THREADS = 256 }; /* elements in 16 bytes */

__device__ static inline pack<ACTS> unpack(uint4 x) {
    return pack<ACTS>{{low_half(x.x), high_half(x.x), low_half(x.y), high_half(x.y), low_half(x.z), high_half(x.z),
                       low_half(x.w), high_half(x.w)}};
}

template <int N> __device__ static inline pack<N> load(const bf16 *from) {
    pack<N> p;
    if constexpr (N % ACTS == 0) {
        for (int v = 0; v < N; v += ACTS) {
            pack<ACTS> eight = unpack(*reinterpret_cast<const uint4 *>(from + v));
            for (int i = 0; i < ACTS; i++) p.at[v + i] = eight.at[i];
        }
    } else {
        for (int i = 0; i < N; i++) p.at[i] = to_float(from[i]);
    }
    return p;
}

/* N neighbours as they stand in memory, in half the registers, for what is read ahead; N is ACTS or 1. */
template <int N> using held = std::conditional_t<N == ACTS, uint4, bf16>;
template <int N> __device__ static inline held<N> hold(const bf16 *from) {
    return *reinterpret_cast<const held<N> *>(from);
}
__device__ static inline pack<1> unpack(bf16 x) { return pack<1>{{to_float(x)}}; }

template <int N> __device__ static inline pack<N> load(const float *from) {
    pack<N> p;
    if constexpr (N % FLOATS == 0) {
        for (int v = 0; v < N; v += FLOATS) {
            float4 x = *reinterpret_cast<const float4 *>(from + v);
            p.at[v] = x.x, p.at[v + 1] = x.y, p.at[v + 2] = x.z, p.at[v + 3] = x.w;
        }
    } else {
        for (int i = 0; i < N; i++) p.at[i] = from[i];
    }
    return p;
}

/* The same for parameters, which may stand at any address of a float: they are read once and stay in registers. */
template <int N> __device__ static inline pack<N> load_any(const float *from) {
    pack<N> p;
    for (int i = 0; i < N; i++) p.at[i] = from[i];
    return p;
}

/* In a loop the compiler loses sight of the address's alignment, and would make four stores of one. */
__device__ static inline void store_16(void *to, uint4 x) {
#ifdef HINGE_CUDA_EMULATOR
    *static_cast<uint4 *>(to) = x;
#else
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(to)), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
#endif
}

template <int N> __device__ static inline void store(bf16 *to, const pack<N> &p) {
    if constexpr (N % ACTS == 0) {
        for (int v = 0; v < N; v += ACTS)
            store_16(to + v, uint4{pack_bf16(p.at[v], p.at[v + 1]), pack_bf16(p.at[v + 2], p.at[v + 3]),
                                   pack_bf16(p.at[v + 4], p.at[v + 5]), pack_bf16(p.at[v + 6], p.at[v + 7])});
    } else {
        for (int i = 0; i < N; i++) to[i] = to_bf16(p.at[i]);
    }
}

template <int N> __device__ static inline void store(float *to, const pack<N> &p) {
    if constexpr (N % FLOATS == 0) {
        for (int v = 0; v < N; v += FLOATS)
            store_16(to + v, uint4{__float_as_uint(p.at[v]), __float_as_uint(p.at[v + 1]), __float_as_uint(p.at[v + 2]),
                                   __float_as_uint(p.at[v + 3])});
    } else {
        for (int i = 0; i < N; i++) to[i] = p.at[i];
    }
}

/* Whether vectors may start at each of the addresses. */
template <typename... Types> static bool aligned(const Types *...address) {
    return ((reinterpret_cast<uintptr_t>(address) | ...) & 15) == 0;
}

template <int N, class Work>
static __global__ void __launch_bounds__(EACH_THREADS) each_kernel(Work work, size_t count) {
    size_t i = ((size_t)blockIdx.x * EACH_THREADS + threadIdx.x) * N;
    if (i + N <= count)
        work.template run<N>(i);
    else
        for (; i < count; i++) work.template run<1>(i);
}

/* work.run<N>(i) for the elements i..i+N-1 of all `count`; N > 1 only where `vectors` says that addresses allow it. */
template <int N, class Work> static void for_each_element(const char *name, Work work, size_t count, bool vectors) {
    size_t width = vectors ? N : 1, blocks = ceil_div(count, EACH_THREADS * width);
    if (vectors)
        device_launch(name, each_kernel<N, Work>, dim3((unsigned)blocks), dim3(EACH_THREADS), 0, work, count);
    else
        device_launch(name, each_kernel<1, Work>, dim3((unsigned)blocks), dim3(EACH_THREADS), 0, work, count);
}
