/* test_batch: which windows of the train split a step sees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/data.h"
#include "tests/unit/small_text.h"

enum { TIME = 4, TOKENS = 43, WINDOWS = 10, MOST_SEQUENCES = 16 };

static uint16_t tokens[TOKENS]; /* token i is i: a window's place can be read off its ids */
static struct token_stream stream = {tokens, TOKENS};

static int number_tokens(void **state) {
    (void)state;
    for (int i = 0; i < TOKENS; i++) tokens[i] = (uint16_t)i;
    return 0;
}

static void fill(size_t sequences, int order, uint64_t seed, int64_t step, size_t *windows) {
    struct batch_plan plan;
    int32_t ids[MOST_SEQUENCES * TIME], targets[MOST_SEQUENCES * TIME];
    expect_good(batch_plan_create(&plan, &stream, TIME, sequences, order, seed));
    assert_int_equal(plan.windows, WINDOWS);
    batch_fill(&plan, step, ids, targets);
    for (size_t i = 0; i < sequences * TIME; i++) assert_int_equal(targets[i], ids[i] + 1);
    for (size_t i = 0; i < sequences; i++) {
        assert_int_equal(ids[i * TIME] % TIME, 0);
        assert_int_equal(ids[i * TIME + TIME - 1], ids[i * TIME] + TIME - 1);
        windows[i] = (size_t)ids[i * TIME] / TIME;
    }
    batch_plan_destroy(&plan);
}

static void sequential_batches_follow_the_stream_and_wrap_whatever_the_seed(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 4; seed++)
        for (int64_t step = 0; step < 8; step++) {
            size_t windows[3];
            fill(3, DATA_SEQUENTIAL, seed, step, windows);
            for (size_t i = 0; i < 3; i++) assert_int_equal(windows[i], ((size_t)step * 3 + i) % WINDOWS);
        }
}

static void each_shuffled_epoch_visits_every_window_once(void **state) {
    (void)state;
    size_t order[30 * 2]; /* six epochs */
    for (int64_t step = 0; step < 30; step++) fill(2, DATA_SHUFFLED, 5, step, order + 2 * step);
    for (int epoch = 0; epoch < 6; epoch++) {
        int seen[WINDOWS] = {0};
        for (int i = 0; i < WINDOWS; i++) seen[order[epoch * WINDOWS + i]]++;
        for (int i = 0; i < WINDOWS; i++) assert_int_equal(seen[i], 1);
    }
}

static void epochs_and_seeds_have_orders_of_their_own(void **state) {
    (void)state;
    size_t first[WINDOWS], second[WINDOWS], other[WINDOWS];
    fill(WINDOWS, DATA_SHUFFLED, 5, 0, first);
    fill(WINDOWS, DATA_SHUFFLED, 5, 1, second);
    fill(WINDOWS, DATA_SHUFFLED, 6, 0, other);
    assert_memory_not_equal(first, second, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
}

static void a_batch_depends_on_its_step_alone(void **state) {
    (void)state;
    enum { SEQUENCES = 7, STEPS = 20 };
    struct batch_plan plan;
    expect_good(batch_plan_create(&plan, &stream, TIME, SEQUENCES, DATA_SHUFFLED, 11));
    for (int64_t i = 0; i < STEPS; i++) {
        int64_t step = i * 13 % STEPS;
        int32_t ids[SEQUENCES * TIME], targets[SEQUENCES * TIME];
        size_t fresh[SEQUENCES];
        batch_fill(&plan, step, ids, targets);
        fill(SEQUENCES, DATA_SHUFFLED, 11, step, fresh);
        for (size_t k = 0; k < SEQUENCES; k++) assert_int_equal((size_t)ids[k * TIME] / TIME, fresh[k]);
    }
    batch_plan_destroy(&plan);
}

static void a_batch_may_hold_more_than_an_epoch(void **state) {
    (void)state;
    size_t windows[MOST_SEQUENCES];
    int seen[WINDOWS] = {0};
    fill(MOST_SEQUENCES, DATA_SHUFFLED, 3, 0, windows);
    for (int i = 0; i < WINDOWS; i++) seen[windows[i]]++;
    for (int i = 0; i < WINDOWS; i++) assert_int_equal(seen[i], 1);
}

static void a_stream_of_exactly_one_window_repeats_it(void **state) {
    (void)state;
    struct token_stream shortest = {tokens, TIME + 1};
    struct batch_plan plan;
    int32_t ids[2 * TIME], targets[2 * TIME];
    expect_good(batch_plan_create(&plan, &shortest, TIME, 2, DATA_SHUFFLED, 1));
    batch_fill(&plan, 9, ids, targets);
    for (int i = 0; i < 2 * TIME; i++) assert_int_equal(ids[i], i % TIME);
    batch_plan_destroy(&plan);
}

static void a_stream_shorter_than_a_window_is_refused_with_the_figures(void **state) {
    (void)state;
    struct token_stream shorter = {tokens, TIME};
    struct batch_plan plan;
    expect_failure(batch_plan_create(&plan, &shorter, TIME, 1, DATA_SEQUENTIAL, 1), "4 tokens", "window of 4", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequential_batches_follow_the_stream_and_wrap_whatever_the_seed),
        cmocka_unit_test(each_shuffled_epoch_visits_every_window_once),
        cmocka_unit_test(epochs_and_seeds_have_orders_of_their_own),
        cmocka_unit_test(a_batch_depends_on_its_step_alone),
        cmocka_unit_test(a_batch_may_hold_more_than_an_epoch),
        cmocka_unit_test(a_stream_of_exactly_one_window_repeats_it),
        cmocka_unit_test(a_stream_shorter_than_a_window_is_refused_with_the_figures),
    };
    return cmocka_run_group_tests(tests, number_tokens, NULL);
}
