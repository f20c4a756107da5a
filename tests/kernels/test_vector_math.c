/* test_vector_math: the vector forms keep to their error bound, and what is built from them holds at the extremes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/cpu/vector_math.h"

enum { COUNT = 4099 }; /* a whole number of vectors and a tail */

static real in[COUNT], out[COUNT];

/* in = COUNT values evenly from low to high. */
static void spread(double low, double high) {
    for (int i = 0; i < COUNT; i++) in[i] = (real)(low + (high - low) * i / (COUNT - 1));
}

static long double spacing(long double exact) {
    real near = REAL_FUNCTION(fabs)((real)exact);
    return (long double)REAL_FUNCTION(nextafter)(near, (real)INFINITY) - (long double)near;
}

/* glibc promises 4 units in the last place for its vector functions; rounding the reference adds half of one. */
static void assert_within_ulps(const char *name, long double (*exact)(long double)) {
    for (int i = 0; i < COUNT; i++) {
        long double expected = exact(in[i]), error = fabsl(out[i] - expected) / spacing(expected);
        if (!(error <= 4.5L))
            fail_msg("%s(%.9g) = %.17g, expected %.17Lg: %.1Lf units in the last place", name, (double)in[i],
                     (double)out[i], expected, error);
    }
}

#define CHECK(function, exact, low, high)                                                        \
    static void function##_is_within_four_ulps(void **state) {                                   \
        (void)state;                                                                             \
        spread(low, high);                                                                       \
        _Pragma("omp simd") for (int i = 0; i < COUNT; i++) { out[i] = real_##function(in[i]); } \
        assert_within_ulps(#function, exact);                                                    \
    }

CHECK(exp, expl, -80, 80)
CHECK(log, logl, 1e-6, 1e6)
CHECK(log1p, log1pl, 0, 1)
CHECK(tanh, tanhl, -12, 12)
CHECK(sin, sinl, -3.14, 3.14)
CHECK(cos, cosl, -3.14, 3.14)

/* Far out they reach their limits without overflow on the way. */
static void sigmoid_silu_and_softplus_hold_far_out(void **state) {
    (void)state;
    spread(100, 1e6);
    real low = 0, high = 0;
#pragma omp simd reduction(+ : low, high)
    for (int i = 0; i < COUNT; i++) {
        real x = in[i];
        low += real_abs(real_sigmoid(-x)) + real_abs(real_silu(-x)) + real_abs(real_silu_slope(-x)) +
               real_abs(real_softplus(-x));
        high += real_abs(real_sigmoid(x) - 1) + real_abs(real_silu(x) - x) + real_abs(real_silu_slope(x) - 1) +
                real_abs(real_softplus(x) - x);
    }
    assert_true(low < (real)1e-38);
    assert_true(high < (real)1e-38);
}

static void silu_slope_is_the_derivative_of_silu(void **state) {
    (void)state;
    for (double x = -6; x < 6; x += 0.37) {
        double step = 1e-6, rise = (x + step) / (1 + exp(-x - step)) - (x - step) / (1 + exp(-x + step));
        assert_true(fabs((double)real_silu_slope((real)x) - rise / (2 * step)) < 1e-6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_four_ulps),
        cmocka_unit_test(log_is_within_four_ulps),
        cmocka_unit_test(log1p_is_within_four_ulps),
        cmocka_unit_test(tanh_is_within_four_ulps),
        cmocka_unit_test(sin_is_within_four_ulps),
        cmocka_unit_test(cos_is_within_four_ulps),
        cmocka_unit_test(sigmoid_silu_and_softplus_hold_far_out),
        cmocka_unit_test(silu_slope_is_the_derivative_of_silu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
