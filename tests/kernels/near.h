/* near: random tensors and comparison with plain-loop references, for the value tests of ops. */
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"
#include "kernels/real.h"

/* What one rounding of `real` may cost, relative. */
#ifdef HINGE_DOUBLE
static const double ROUNDING = 0x1p-53;
#else
static const double ROUNDING = 0x1p-24;
#endif

static inline void normals(real *data, size_t count, const char *name, double scale) {
    struct random_stream stream = random_stream(11, name);
    for (size_t i = 0; i < count; i++) data[i] = (real)(scale * random_normal(stream, i));
}

/* |found - expected| <= tolerance (1 + |expected|), for each of them; NaN fails. */
static inline void assert_near(const char *what, const real *found, const double *expected, size_t count,
                               double tolerance) {
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)found[i] - expected[i]) <= tolerance * (1 + fabs(expected[i]))))
            fail_msg("%s at %zu: %.10g, expected %.10g", what, i, (double)found[i], expected[i]);
}
