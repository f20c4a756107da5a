/* rounding: what all quantisers share, for use in `#pragma omp simd` loops. */
#pragma once
#include "kernels/cpu/vector_math.h"

/* To the nearest integer, ties to even, no further from 0 than limit; not a number becomes -limit. */
static inline real round_within(real x, real limit) {
    real q = REAL_FUNCTION(rint)(x);
    q = q > -limit ? q : -limit;
    return q < limit ? q : limit;
}

static inline real largest_magnitude(const real *w, size_t count) {
    real most = 0;
#pragma omp simd reduction(max : most)
    for (size_t i = 0; i < count; i++) most = real_abs(w[i]) > most ? real_abs(w[i]) : most;
    return most;
}
