/* vector_math: exp, log, tanh, sin, cos and what is built from them, for use in `#pragma omp simd` loops.
 *
 * glibc offers vector forms of these functions (libmvec, at most 4 ulp), but declares them only under -ffast-math,
 * which would also allow what this project forbids. Declaring them here makes the compiler use them in simd loops
 * and nowhere else. Elsewhere than on x86-64 glibc the loops call the scalar functions.
 * Keep sin and cos of one argument in two loops: in one, gcc joins them into a sincos call that has no vector form. */
#pragma once
#include <math.h>

#include "kernels/real.h"

#ifdef HINGE_DOUBLE
#define REAL_FUNCTION(name) name
#else
#define REAL_FUNCTION(name) name##f
#endif

#if defined __x86_64__ && defined __GLIBC__ && defined __GNUC__ && !defined __clang__
#define VECTOR_FORM __attribute__((simd("notinbranch")))
VECTOR_FORM real REAL_FUNCTION(exp)(real);
VECTOR_FORM real REAL_FUNCTION(log)(real);
VECTOR_FORM real REAL_FUNCTION(sin)(real);
VECTOR_FORM real REAL_FUNCTION(cos)(real);
#if __GLIBC_PREREQ(2, 35)
VECTOR_FORM real REAL_FUNCTION(log1p)(real);
VECTOR_FORM real REAL_FUNCTION(tanh)(real);
#endif
#undef VECTOR_FORM
#endif

static inline real real_exp(real x) { return REAL_FUNCTION(exp)(x); }
static inline real real_log(real x) { return REAL_FUNCTION(log)(x); }
static inline real real_log1p(real x) { return REAL_FUNCTION(log1p)(x); }
static inline real real_tanh(real x) { return REAL_FUNCTION(tanh)(x); }
static inline real real_sin(real x) { return REAL_FUNCTION(sin)(x); }
static inline real real_cos(real x) { return REAL_FUNCTION(cos)(x); }
static inline real real_sqrt(real x) { return REAL_FUNCTION(sqrt)(x); }
static inline real real_abs(real x) { return REAL_FUNCTION(fabs)(x); }

static inline real real_sigmoid(real x) { return 1 / (1 + real_exp(-x)); }
static inline real real_silu(real x) { return x * real_sigmoid(x); }

/* d silu / dx */
static inline real real_silu_slope(real x) {
    real s = real_sigmoid(x);
    return s * (1 + x * (1 - s));
}

/* log(1 + exp(x)) without overflow; its derivative is the sigmoid. */
static inline real real_softplus(real x) { return (x > 0 ? x : 0) + real_log1p(real_exp(-real_abs(x))); }
