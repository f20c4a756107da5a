/* test_requirement: what a gate understands, and when it says yes, no or neither. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/requirement.h"
#include "tests/unit/small_text.h"

static struct requirement parse(const char *text) {
    struct requirement r;
    expect_good(requirement_parse(text, &r));
    return r;
}

static void assert_requirement(const char *text, enum relation relation, const char *variant, const char *baseline,
                               const char *metric, double amount) {
    struct requirement r = parse(text);
    assert_int_equal(r.relation, relation);
    assert_string_equal(r.variant, variant);
    assert_string_equal(r.baseline, baseline);
    assert_string_equal(r.metric, metric);
    assert_float_equal(r.amount, amount, 0);
}

static void every_form_is_understood(void **state) {
    (void)state;
    assert_requirement("hinge-34x2 better than none on bpb.artifact by 0.002", RELATION_BETTER, "hinge-34x2", "none",
                       "bpb.artifact", 0.002);
    assert_requirement("a better than b", RELATION_BETTER, "a", "b", "", 0);
    assert_requirement("a better than b by 1e-3", RELATION_BETTER, "a", "b", "", 1e-3);
    assert_requirement("two words non-inferior to b on bpb.raw by 0.5", RELATION_NON_INFERIOR, "two words", "b",
                       "bpb.raw", 0.5);
    assert_requirement("a smaller than b by 1000", RELATION_SMALLER, "a", "b", "", 1000);
    assert_requirement("a faster than b", RELATION_FASTER, "a", "b", "", 0);
}

static void what_is_no_requirement_is_refused_with_the_forms(void **state) {
    static const char *const wrong[] = {"",
                                        "a",
                                        "a better b",
                                        "better than b",
                                        "a better than ",
                                        "a better than b by ",
                                        "a better than b by x",
                                        "a better than b by -1",
                                        "a better than b by 1 on bpb.raw",
                                        "a smaller than b on bpb.raw by 1"};
    struct requirement r;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect_failure(requirement_parse(wrong[i], &r), "--require", "A better than B on METRIC by X", NULL);
    expect_failure(requirement_parse("a non-inferior to b", &r), "needs a margin", NULL);
}

/* --- results by hand: variants a and b, seeds 1.., one value of bpb.raw each -------------------------------------- */

enum { SEEDS = 5 };

static struct results make_results(const double differences[SEEDS]) {
    struct results r = {.variant_count = 2, .run_count = 2 * SEEDS, .metric = "bpb.raw", .suite = "small"};
    r.variants = calloc(2, sizeof *r.variants);
    r.runs = calloc(2 * SEEDS, sizeof *r.runs);
    snprintf(r.variants[0].name, sizeof r.variants[0].name, "b");
    snprintf(r.variants[1].name, sizeof r.variants[1].name, "a");
    r.design = (struct design){.baseline = r.variants[0].name, .alpha = 0.05};
    for (int i = 0; i < 2 * SEEDS; i++) {
        struct result_run *run = &r.runs[i];
        *run = (struct result_run){.id = i + 1, .variant = i % 2, .seed = i / 2, .status = "done"};
        run->raw.present = true;
        run->raw.value.bpb = 1.3 + 0.01 * (i / 2) + (i % 2 ? differences[i / 2] : 0);
        run->sizes.bytes = i % 2 ? 900 : 1000;
        run->tokens_per_second = i % 2 ? 200 + i : 100;
    }
    return r;
}

static enum outcome outcome_of(struct results *results, const char *text) {
    struct requirement r = parse(text);
    struct judgement j;
    expect_good(requirement_judge(&r, results, &j));
    assert_int_equal(j.pairs <= SEEDS, 1);
    return j.outcome;
}

static const double clear[SEEDS] = {-0.010, -0.011, -0.009, -0.010, -0.012};

static void a_clear_difference_holds_up_to_its_size(void **state) {
    (void)state;
    struct results results = make_results(clear);
    assert_int_equal(outcome_of(&results, "a better than b"), OUTCOME_HOLDS);
    assert_int_equal(outcome_of(&results, "a better than b on bpb.raw by 0.008"), OUTCOME_HOLDS);
    assert_int_equal(outcome_of(&results, "a better than b by 0.0104"), OUTCOME_CANNOT_TELL);
    assert_int_equal(outcome_of(&results, "a better than b by 0.015"), OUTCOME_DOES_NOT);
    assert_int_equal(outcome_of(&results, "b better than a"), OUTCOME_DOES_NOT);
    assert_int_equal(outcome_of(&results, "b non-inferior to a by 0.005"), OUTCOME_DOES_NOT);
    assert_int_equal(outcome_of(&results, "b non-inferior to a by 0.02"), OUTCOME_HOLDS);
    results_free(&results);
}

static void noise_cannot_be_told(void **state) {
    static const double noise[SEEDS] = {0.010, -0.011, 0.002, -0.003, 0.001};
    (void)state;
    struct results results = make_results(noise);
    assert_int_equal(outcome_of(&results, "a better than b"), OUTCOME_CANNOT_TELL);
    assert_int_equal(outcome_of(&results, "a non-inferior to b by 0.001"), OUTCOME_CANNOT_TELL);
    results_free(&results);
}

static void better_needs_the_two_sided_test_too(void **state) {
    static const double one_sided[SEEDS] = {-0.010, -0.002, -0.008, 0.002, -0.006}; /* t = -2.25: p 0.044 and 0.088 */
    (void)state;
    assert_true(p_below(one_sided, SEEDS, 0) < 0.05 && p_paired_t(one_sided, SEEDS) > 0.05);
    struct results results = make_results(one_sided);
    assert_int_equal(outcome_of(&results, "a better than b"), OUTCOME_CANNOT_TELL);
    results_free(&results);
}

static void smaller_and_faster_know_their_metric_and_its_direction(void **state) {
    (void)state;
    struct results results = make_results(clear);
    assert_int_equal(outcome_of(&results, "a smaller than b by 99"), OUTCOME_HOLDS);
    assert_int_equal(outcome_of(&results, "a smaller than b by 101"), OUTCOME_DOES_NOT);
    assert_int_equal(outcome_of(&results, "a faster than b by 50"), OUTCOME_HOLDS);
    assert_int_equal(outcome_of(&results, "b faster than a"), OUTCOME_DOES_NOT);
    results_free(&results);
}

static void times_of_two_machines_are_not_compared(void **state) {
    (void)state;
    struct results results = make_results(clear);
    for (int i = 0; i < 2 * SEEDS; i++) snprintf(results.runs[i].node, sizeof results.runs[i].node, "node %d", i % 2);
    assert_int_equal(outcome_of(&results, "a faster than b by 50"), OUTCOME_CANNOT_TELL);
    assert_int_equal(outcome_of(&results, "a smaller than b by 99"), OUTCOME_HOLDS);
    results_free(&results);
}

static void runs_that_are_missing_or_failed_keep_it_from_holding(void **state) {
    (void)state;
    struct results results = make_results(clear);
    snprintf(results.runs[3].status, sizeof results.runs[3].status, "pending");
    results.runs[3].raw.present = false;
    assert_int_equal(outcome_of(&results, "a better than b"), OUTCOME_CANNOT_TELL);
    snprintf(results.runs[3].status, sizeof results.runs[3].status, "failed");
    assert_int_equal(outcome_of(&results, "a better than b"), OUTCOME_CANNOT_TELL);
    assert_int_equal(outcome_of(&results, "b better than a"), OUTCOME_DOES_NOT);
    results_free(&results);
}

static void unknown_names_are_refused(void **state) {
    (void)state;
    struct results results = make_results(clear);
    struct judgement j;
    struct requirement variant = parse("aa better than b"), metric = parse("a better than b on bpb.rw"),
                       same = parse("a better than a");
    expect_failure(requirement_judge(&variant, &results, &j), "no variant 'aa'", "nearest is a", NULL);
    expect_failure(requirement_judge(&metric, &results, &j), "unknown metric", "bpb.raw", NULL);
    expect_failure(requirement_judge(&same, &results, &j), "with itself", NULL);
    results_free(&results);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_is_understood),
        cmocka_unit_test(what_is_no_requirement_is_refused_with_the_forms),
        cmocka_unit_test(a_clear_difference_holds_up_to_its_size),
        cmocka_unit_test(noise_cannot_be_told),
        cmocka_unit_test(better_needs_the_two_sided_test_too),
        cmocka_unit_test(smaller_and_faster_know_their_metric_and_its_direction),
        cmocka_unit_test(times_of_two_machines_are_not_compared),
        cmocka_unit_test(runs_that_are_missing_or_failed_keep_it_from_holding),
        cmocka_unit_test(unknown_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
