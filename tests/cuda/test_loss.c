/* test_loss: cross-entropy, its gradient, the soft cap and the loss's sum on CUDA against the CPU's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

struct loss_shape {
    size_t rows, vocab;
    real size; /* of the logits */
    double cap, temperature;
};

static struct lane host_lane;

/* A soft-capped logit in float is right to a few units in the last place of the cap. */
static double allowed(const struct loss_shape *s) { return 8 * 0x1p-24 * (1 + s->cap / s->temperature); }

static void check_nll(const double *got, const double *want, const struct loss_shape *s) {
    for (size_t r = 0; r < s->rows; r++)
        if (!(fabs(got[r] - want[r]) <= allowed(s)))
            fail_msg("nll of row %zu: %.9g, but the CPU has %.9g", r, got[r], want[r]);
}

static void check_loss(struct loss_shape s) {
    struct device_case c;
    size_t count = s.rows * s.vocab, bytes = s.rows * sizeof(double);
    case_begin(&c, 0);
    real *logits = random_reals("logits", count, s.size), *log_sum = malloc(s.rows * sizeof *log_sum);
    real *dlogits = malloc(count * sizeof *dlogits);
    double *nll = malloc(bytes);
    int32_t *targets = malloc(s.rows * sizeof *targets);
    for (size_t r = 0; r < s.rows; r++) targets[r] = (int32_t)((5 * r + 3) % s.vocab);
    const real *device_logits = device_reals(&c, logits, count);
    real *device_log_sum = device_poisoned_reals(&c, s.rows);
    double *device_nll = device_poisoned(&c, bytes), *again = device_poisoned(&c, bytes);
    int32_t *device_targets = device_copy(&c, targets, s.rows * sizeof *targets);
    act *gradient = device_poisoned_acts(&c, count);

    cpu_cross_entropy_forward(&host_lane, nll, log_sum, logits, targets, s.rows, s.vocab, s.cap, s.temperature);
    cuda_cross_entropy_forward(&c.lane, again, device_log_sum, device_logits, device_targets, s.rows, s.vocab, s.cap,
                               s.temperature);
    cuda_cross_entropy_forward(&c.lane, device_nll, device_log_sum, device_logits, device_targets, s.rows, s.vocab,
                               s.cap, s.temperature);
    double *got = host_bytes(&c, device_nll, bytes);
    assert_same("nll, twice", host_bytes(&c, again, bytes), got, bytes);
    check_nll(got, nll, &s);
    free(got);
    assert_close("log_sum", host_reals(&c, device_log_sum, s.rows), log_sum, s.rows, 1e-6);
    if (s.temperature == 1) {
        cpu_cross_entropy_backward(&host_lane, dlogits, logits, log_sum, targets, 0.25, s.rows, s.vocab, s.cap);
        cuda_cross_entropy_backward(&c.lane, gradient, device_logits, device_log_sum, device_targets, 0.25, s.rows,
                                    s.vocab, s.cap);
        assert_rounded("dlogits", host_acts(&c, gradient, count), dlogits, count);
    }
    free(logits), free(log_sum), free(dlogits), free(nll), free(targets);
    case_end(&c);
}

static void cross_entropy_agrees_with_the_cpu(void **state) {
    (void)state;
    const struct loss_shape shapes[] = {{70, 1024, 3, 30, 1}, {5, 37, 3, 30, 1},       {3, 9, 3, 2, 1},
                                        {9, 1028, 3, 30, 1},  {20, 100, 3, 30, 1},     {7, 19, 3, 30, 0.8},
                                        {7, 64, 1e6, 30, 1},  {7, 64, 1e4, 1000, 0.05}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_loss(shapes[i]);
}

static void equal_logits_cost_the_logarithm_of_their_number(void **state) {
    (void)state;
    struct device_case c;
    case_begin(&c, 0);
    const real logits[1024] = {0};
    const int32_t target = 1023;
    double *nll = device_poisoned(&c, sizeof *nll), *got;
    cuda_cross_entropy_forward(&c.lane, nll, device_poisoned_reals(&c, 1), device_reals(&c, logits, 1024),
                               device_copy(&c, &target, sizeof target), 1, 1024, 30, 1);
    got = host_bytes(&c, nll, sizeof *nll);
    assert_true(fabs(*got - log(1024)) < 1e-6);
    free(got);
    case_end(&c);
}

static void a_logit_that_is_not_a_number_makes_its_row_not_a_number(void **state) {
    (void)state;
    struct device_case c;
    enum { ROWS = 3, VOCAB = 40 };
    case_begin(&c, 0);
    real *logits = random_reals("logits", ROWS * VOCAB, 1);
    logits[VOCAB + 17] = (real)NAN;
    const int32_t targets[ROWS] = {0, 1, 2};
    double *nll = device_poisoned(&c, ROWS * sizeof *nll), *got;
    cuda_cross_entropy_forward(&c.lane, nll, device_poisoned_reals(&c, ROWS), device_reals(&c, logits, ROWS * VOCAB),
                               device_copy(&c, targets, sizeof targets), ROWS, VOCAB, 30, 1);
    got = host_bytes(&c, nll, ROWS * sizeof *nll);
    assert_true(isfinite(got[0]) && isnan(got[1]) && isfinite(got[2]));
    free(got), free(logits);
    case_end(&c);
}

static void softcap_bends_logits_and_may_work_in_place(void **state) {
    (void)state;
    enum { COUNT = 1030 };
    struct device_case c;
    case_begin(&c, 0);
    real *logits = random_reals("logits", COUNT, 50), *want = malloc(COUNT * sizeof *want);
    real *device = device_reals(&c, logits, COUNT), *y = device_poisoned_reals(&c, COUNT);
    cpu_softcap(&host_lane, want, logits, COUNT, 30);
    cuda_softcap(&c.lane, y, device, COUNT, 30);
    cuda_softcap(&c.lane, device, device, COUNT, 30);
    assert_close("y", host_reals(&c, y, COUNT), want, COUNT, 1e-6);
    assert_close("y in place", host_reals(&c, device, COUNT), want, COUNT, 1e-6);
    free(logits), free(want);
    case_end(&c);
}

static void check_sum(size_t count) {
    struct device_case c;
    case_begin(&c, cuda_tensor_scratch(count));
    double *x = malloc(count * sizeof *x + 1), want = 10, start[2] = {10, 10};
    real *values = random_reals("x", count, 1);
    for (size_t i = 0; i < count; i++) x[i] = values[i];
    double *sums = device_copy(&c, start, sizeof start), *device_x = device_copy(&c, x, count * sizeof *x);
    cpu_sum_in_order(&host_lane, &want, x, count);
    for (int i = 0; i < 2; i++) cuda_sum_in_order(&c.lane, sums + i, device_x, count);
    double *got = host_bytes(&c, sums, sizeof start);
    assert_true(got[0] == got[1] && fabs(got[0] - want) <= 1e-12 * (1 + (double)count));
    free(x), free(values), free(got);
    case_end(&c);
}

static void sums_are_float64_and_add_to_what_is_there(void **state) {
    (void)state;
    check_sum(0);
    check_sum(1);
    check_sum(37);
    check_sum(9001);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_entropy_agrees_with_the_cpu),
        cmocka_unit_test(equal_logits_cost_the_logarithm_of_their_number),
        cmocka_unit_test(a_logit_that_is_not_a_number_makes_its_row_not_a_number),
        cmocka_unit_test(softcap_bends_logits_and_may_work_in_place),
        cmocka_unit_test(sums_are_float64_and_add_to_what_is_there),
    };
    return cmocka_run_group_tests_name("loss on CUDA", tests, NULL, NULL);
}
