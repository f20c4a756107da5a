/* test_windows: which targets are scored, each once, in the context that the mode promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/windows.h"

static void expect_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

static void expect_failure(status s, enum status_kind kind, const char *word) {
    assert_non_null(s);
    assert_int_equal(status_kind(s), kind);
    if (!strstr(status_text(s), word)) fail_msg("no \"%s\" in: %s", word, status_text(s));
    status_free(s);
}

static struct config window_config(int mode, int tail, int64_t time, int64_t stride, int64_t limit) {
    struct config c;
    config_defaults(&c);
    c.eval_mode = mode;
    c.eval_tail = tail;
    c.train_sequence = time;
    c.eval_stride = stride;
    c.eval_tokens = limit;
    return c;
}

/* Every target below plan.scored is scored once, in order; windows stay inside the stream. */
static void expect_each_target_once(const struct window_plan *plan, size_t tokens) {
    size_t next = 0;
    for (size_t i = 0; i < plan->count; i++) {
        struct window w = window_plan_at(plan, i);
        assert_true(w.time >= 1 && w.time <= plan->time && w.first < w.time);
        assert_true(w.start + w.time < tokens); /* the last target is token start+time */
        assert_true(w.time == plan->time || i + 1 == plan->count);
        assert_int_equal(w.start + w.first, next);
        next = w.start + w.time;
    }
    assert_int_equal(next, plan->scored);
}

static void standard_windows_score_every_token_once_but_for_a_dropped_tail(void **state) {
    (void)state;
    for (int64_t time = 1; time <= 9; time++)
        for (size_t tokens = 2; tokens <= 40; tokens++)
            for (int tail = TAIL_DROP; tail <= TAIL_KEEP; tail++) {
                struct window_plan plan;
                struct config c = window_config(EVAL_STANDARD, tail, time, 1, 0);
                size_t targets = tokens - 1, whole = targets / (size_t)time * (size_t)time;
                if (tail == TAIL_DROP && whole == 0) {
                    expect_failure(window_plan_create(&plan, &c, tokens), STATUS_DATA, "eval.tail=keep");
                    continue;
                }
                expect_good(window_plan_create(&plan, &c, tokens));
                assert_int_equal(plan.scored, tail == TAIL_DROP ? whole : targets);
                expect_each_target_once(&plan, tokens);
                for (size_t i = 0; i < plan.count; i++) assert_int_equal(window_plan_at(&plan, i).first, 0);
            }
}

static void sliding_windows_score_every_token_once_in_the_context_they_promise(void **state) {
    (void)state;
    for (int64_t time = 1; time <= 9; time++)
        for (int64_t stride = 1; stride <= time; stride++)
            for (size_t tokens = 2; tokens <= 40; tokens++) {
                struct window_plan plan;
                struct config c = window_config(EVAL_SLIDING, TAIL_DROP, time, stride, 0);
                expect_good(window_plan_create(&plan, &c, tokens));
                assert_int_equal(plan.scored, tokens - 1);
                expect_each_target_once(&plan, tokens);
                for (size_t i = 0; i < plan.count; i++) {
                    struct window w = window_plan_at(&plan, i);
                    assert_int_equal(w.start, i * (size_t)stride);
                    assert_int_equal(w.first, i ? time - stride : 0);
                }
            }
}

static void a_limit_scores_the_first_tokens_alone(void **state) {
    (void)state;
    struct window_plan plan;
    struct config c = window_config(EVAL_STANDARD, TAIL_KEEP, 4, 1, 10);
    expect_good(window_plan_create(&plan, &c, 100));
    assert_int_equal(plan.scored, 10);
    assert_int_equal(plan.count, 3);
    c = window_config(EVAL_STANDARD, TAIL_DROP, 4, 1, 10);
    expect_good(window_plan_create(&plan, &c, 100));
    assert_int_equal(plan.scored, 8);
    c = window_config(EVAL_SLIDING, TAIL_DROP, 4, 2, 10);
    expect_good(window_plan_create(&plan, &c, 100));
    assert_int_equal(plan.scored, 10);
    expect_good(window_plan_create(&plan, &c, 8));
    assert_int_equal(plan.scored, 7);
}

static void a_stride_that_would_leave_tokens_out_is_refused(void **state) {
    (void)state;
    struct window_plan plan;
    struct config c = window_config(EVAL_SLIDING, TAIL_DROP, 4, 5, 0);
    expect_failure(window_plan_create(&plan, &c, 100), STATUS_USAGE, "eval.stride = 5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standard_windows_score_every_token_once_but_for_a_dropped_tail),
        cmocka_unit_test(sliding_windows_score_every_token_once_in_the_context_they_promise),
        cmocka_unit_test(a_limit_scores_the_first_tokens_alone),
        cmocka_unit_test(a_stride_that_would_leave_tokens_out_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
