/* device_functions: CUDA's arithmetic, bit and memory functions that are not in the host's <math.h>. */
#pragma once

/* --- bit patterns ------------------------------------------------------------------------------------------------- */

template <typename To, typename From> static inline To emulator_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "bits are kept");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static inline unsigned __float_as_uint(float x) { return emulator_bits<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return emulator_bits<float>(x); }
static inline int __float_as_int(float x) { return emulator_bits<int>(x); }
static inline float __int_as_float(int x) { return emulator_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return emulator_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return emulator_bits<double>(x); }

static inline float emulator_float_of_bf16(uint16_t bits) { return __uint_as_float((uint32_t)bits << 16); }
/* To nearest, ties to even; a NaN becomes the device's one NaN. */
static inline uint16_t emulator_bf16_of_float(float x) {
    if (x != x) return 0x7fff;
    uint32_t bits = __float_as_uint(x);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

/* --- arithmetic: the device's fast forms are exact here ----------------------------------------------------------- */

/* The host's <math.h> has these names for itself, hence macros. */
#define __expf(x) expf(x)
#define __exp10f(x) powf(10, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)
static inline void sincospi(double x, double *s, double *c) {
    double turn = remainder(x, 2);
    *s = sin(M_PI * turn), *c = cos(M_PI * turn);
}
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float __frsqrt_rn(float x) { return 1 / sqrtf(x); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float x) { return fminf(fmaxf(x, 0), 1); }
/* Products and sums that the compiler must not contract. */
static inline float __fmul_rn(float a, float b) {
    volatile float product = a * b;
    return product;
}
static inline float __fadd_rn(float a, float b) {
    volatile float sum = a + b;
    return sum;
}
static inline float __fsub_rn(float a, float b) { return __fadd_rn(a, -b); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dmul_rn(double a, double b) {
    volatile double product = a * b;
    return product;
}
static inline double __dadd_rn(double a, double b) {
    volatile double sum = a + b;
    return sum;
}
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __double2int_rn(double x) { return (int)rint(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __double2float_rn(double x) { return (float)x; }

#define EMULATOR_MIN_MAX(type)                                       \
    static inline type min(type a, type b) { return b < a ? b : a; } \
    static inline type max(type a, type b) { return a < b ? b : a; }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)
#undef EMULATOR_MIN_MAX
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

/* --- memory ------------------------------------------------------------------------------------------------------- */

template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline T __ldca(const T *p) { return *p; }
template <typename T> static inline void __stcs(T *p, T x) { *p = x; }
template <typename T> static inline void __stcg(T *p, T x) { *p = x; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

/* Whole numbers only: the order of additions of floats would show in the bits. */
template <typename T, typename F> static inline T emulator_atomic(T *p, F change) {
    static_assert(!std::is_floating_point<T>::value, "no atomics on floats: the order of a sum is fixed");
    T old = (T)emulator_atomic_load(p, sizeof *p);
    emulator_atomic_store(p, (uint64_t)change(old), sizeof *p);
    return old;
}
template <typename T> static inline T atomicAdd(T *p, T x) {
    return emulator_atomic(p, [=](T old) { return (T)(old + x); });
}
template <typename T> static inline T atomicMax(T *p, T x) {
    return emulator_atomic(p, [=](T old) { return old < x ? x : old; });
}
template <typename T> static inline T atomicMin(T *p, T x) {
    return emulator_atomic(p, [=](T old) { return x < old ? x : old; });
}
template <typename T> static inline T atomicOr(T *p, T x) {
    return emulator_atomic(p, [=](T old) { return (T)(old | x); });
}
template <typename T> static inline T atomicAnd(T *p, T x) {
    return emulator_atomic(p, [=](T old) { return (T)(old & x); });
}
template <typename T> static inline T atomicExch(T *p, T x) {
    return emulator_atomic(p, [=](T) { return x; });
}
