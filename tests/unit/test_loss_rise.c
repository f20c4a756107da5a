/* test_loss_rise: a training that ends worse than it was is told from one that only wavers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/loss_rise.h"

enum { STEPS = 100 };

/* Falls from 7 to 2; wavers by 0.3 from one step to the next, as batches do. */
static void falling(double losses[STEPS]) {
    for (int i = 0; i < STEPS; i++) losses[i] = 7 - 0.05 * i + (i % 2 ? 0.3 : -0.3);
}

static void a_loss_that_falls_or_stays_has_not_risen(void **state) {
    (void)state;
    double losses[STEPS], flat[STEPS];
    struct loss_rise rise;
    falling(losses);
    assert_false(losses_rose(losses, STEPS, &rise));
    assert_true(rise.last == rise.lowest && rise.from == 80 && rise.to == 100);
    for (int i = 0; i < STEPS; i++) flat[i] = 5 + (i >= 80 ? LOSS_RISE - 0.01 : 0);
    assert_false(losses_rose(flat, STEPS, &rise));
}

static void a_loss_that_ends_above_its_lowest_fifth_has_risen(void **state) {
    (void)state;
    double losses[STEPS];
    struct loss_rise rise;
    char text[LOSS_RISE_TEXT];
    falling(losses);
    for (int i = 70; i < STEPS; i++) losses[i] = 8;
    assert_true(losses_rose(losses, STEPS, &rise));
    assert_float_equal(rise.last, 8, 1e-12);
    assert_float_equal(rise.lowest, 7 - 0.05 * 49.5, 1e-12);
    assert_true(rise.from == 40 && rise.to == 60);
    loss_rise_text(&rise, text);
    assert_string_equal(text, "the loss rose: 8.00 nats per token over the last fifth of the steps, 4.53 over steps 40 "
                              "to 59");
}

/* In the last tenth: half of the last fifth. */
static void a_late_rise_is_found(void **state) {
    (void)state;
    double losses[STEPS];
    struct loss_rise rise;
    falling(losses);
    for (int i = 90; i < STEPS; i++) losses[i] = 8;
    assert_true(losses_rose(losses, STEPS, &rise));
}

static void nothing_is_said_of_a_few_steps(void **state) {
    (void)state;
    double losses[LOSS_RISE_STEPS];
    struct loss_rise rise;
    for (int i = 0; i < LOSS_RISE_STEPS; i++) losses[i] = 3 + i;
    assert_false(losses_rose(losses, LOSS_RISE_STEPS - 1, &rise));
    assert_false(losses_rose(losses, 0, &rise));
    assert_true(losses_rose(losses, LOSS_RISE_STEPS, &rise));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loss_that_falls_or_stays_has_not_risen),
        cmocka_unit_test(a_loss_that_ends_above_its_lowest_fifth_has_risen),
        cmocka_unit_test(a_late_rise_is_found),
        cmocka_unit_test(nothing_is_said_of_a_few_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
