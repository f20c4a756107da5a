/* test_sources: where the spread comes from, against an analysis of variance in NumPy
 * (tests/unit/fixtures/sources_reference.py), and A/A relabelling. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "harness/report/sources.h"
#include "harness/stats/relabel.h"
#include "kernels/random.h"
#include "tests/unit/report_fixture.h"

enum { SEEDS = 6 };

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance)) fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

static void expect_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

/* The table of the reference; each seed on node seed % nodes, which adds to its values. */
static struct variance_sources take_apart(int nodes, double node_effect, int nodes_by_seed) {
    struct results r;
    struct analysis a;
    struct variance_sources sources;
    fixture_results(&r, &plain_names, SEEDS);
    for (int v = 0; v < 4; v++)
        for (int s = 0; s < SEEDS; s++) {
            struct result_run *run = fixture_run(&r, v, s);
            int node = nodes_by_seed ? s : s % nodes;
            run->artifact.value.bpb =
                2 + 0.1 * v + 0.01 * sin(s + 1.0) + 0.002 * cos(3.0 * v + 5.0 * s) + node_effect * node;
            snprintf(run->node, sizeof run->node, "node%d", node);
        }
    expect_good(analyse(&r, &a));
    variance_sources(&a, &sources);
    analysis_free(&a);
    results_free(&r);
    return sources;
}

static void on_one_node_it_is_the_analysis_of_variance(void **state) {
    (void)state;
    struct variance_sources s = take_apart(1, 0, 0);
    assert_near(s.own, 0.0018548117702997234, 1e-12);
    assert_near(s.shared, 0.007935598686886746, 1e-12);
    assert_near(s.variant, 0.12892373592123957, 1e-12);
    assert_true(isnan(s.node) && s.nodes == 1 && !s.node_in_shared);
}

static void two_nodes_are_told_from_the_seeds(void **state) {
    (void)state;
    struct variance_sources s = take_apart(2, 0.05, 0);
    assert_near(s.own, 0.0018548117702997234, 1e-12);
    assert_near(s.shared, 0.008915483852418594, 1e-12);
    assert_near(s.node, 0.034629518120142644, 1e-12);
    assert_int_equal(s.nodes, 2);
}

static void a_node_of_its_own_for_each_seed_is_not_told_from_the_seed(void **state) {
    (void)state;
    struct variance_sources s = take_apart(1, 0, 1);
    assert_true(isnan(s.node) && s.node_in_shared);
    assert_int_equal(s.nodes, SEEDS);
    assert_near(s.shared, 0.007935598686886746, 1e-12);
}

static void labels_that_mean_nothing_differ_as_often_as_alpha(void **state) {
    (void)state;
    double values[40];
    struct relabelling r;
    for (int i = 0; i < 40; i++) values[i] = random_normal(random_stream(5, "test.relabel"), (uint64_t)i);
    expect_good(relabel(values, 40, 0, 4000, 0.05, 1, NULL, &r));
    assert_int_equal(r.pairs, RELABEL_MOST_PAIRS);
    for (int test = 0; test < TEST_KINDS; test++) {
        assert_string_equal(relabel_verdict(&r, (enum test_kind)test, 0.05), "as promised");
        assert_true(r.rate[test] > 0.03);
    }
}

static void few_values_have_few_pairings_and_a_coarse_rate(void **state) {
    (void)state;
    const double values[] = {1.0, 1.3, 0.9, 1.1, 1.4};
    struct relabelling r;
    expect_good(relabel(values, 5, 0, 2000, 0.05, 1, NULL, &r));
    assert_float_equal(r.three_errors, 3 * sqrt(0.05 * 0.95 / 15),
                       1e-12); /* one of five left out, three ways to pair */
    expect_good(relabel(values, 4, 0, 2000, 0.05, 1, NULL, &r));
    assert_float_equal(r.three_errors, 3 * sqrt(0.05 * 0.95 / 3), 1e-12);
}

static const char *verdict_of(double rate, double three_errors, size_t pairs) {
    struct relabelling r = {.three_errors = three_errors, .pairs = pairs};
    r.rate[TEST_SIGN_FLIP] = rate;
    return relabel_verdict(&r, TEST_SIGN_FLIP, 0.05);
}

static void a_rate_is_promised_doubted_or_says_nothing(void **state) {
    (void)state;
    assert_string_equal(verdict_of(0.059, 0.01, 8), "as promised");
    assert_string_equal(verdict_of(0.061, 0.01, 8), "above alpha: doubt its assumptions here");
    assert_string_equal(verdict_of(0.34, 0.38, 8), "too few runs to tell");
    assert_string_equal(verdict_of(0, 0.38, 8), "too few runs to tell");
    assert_string_equal(verdict_of(0, 0.38, 2), "cannot reject with so few pairs");
}

static void too_few_values_are_refused(void **state) {
    (void)state;
    const double three[] = {1, 2, 3};
    struct relabelling r;
    status s = relabel(three, 3, 0, 100, 0.05, 1, NULL, &r);
    assert_non_null(s);
    assert_non_null(strstr(status_text(s), "at least 4"));
    status_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_one_node_it_is_the_analysis_of_variance),
        cmocka_unit_test(two_nodes_are_told_from_the_seeds),
        cmocka_unit_test(a_node_of_its_own_for_each_seed_is_not_told_from_the_seed),
        cmocka_unit_test(labels_that_mean_nothing_differ_as_often_as_alpha),
        cmocka_unit_test(few_values_have_few_pairings_and_a_coarse_rate),
        cmocka_unit_test(a_rate_is_promised_doubted_or_says_nothing),
        cmocka_unit_test(too_few_values_are_refused),
    };
    return cmocka_run_group_tests_name("sources", tests, NULL, NULL);
}
