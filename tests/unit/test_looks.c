/* test_looks: spending, boundaries of t against an independent integration, and comparisons that stop. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <gsl/gsl_cdf.h>

#include "harness/stats/stats.h"
#include "kernels/random.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
static const double EXACT = 1e-10, ITERATED = 1e-6;

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance * fmax(1.0, fabs(expected))))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

static struct comparison compare_two(const struct design *design, const struct observation *o, size_t n) {
    struct comparison_table t;
    status failure = compare_variants(design, o, n, &t);
    if (failure) fail_msg("%s", status_text(failure));
    assert_int_equal(t.count, 2);
    struct comparison row = t.rows[1];
    comparison_table_free(&t);
    row.variant = NULL;
    return row;
}

static void make_plan(enum spending spending, const size_t *n, int count, double alpha, struct look_plan *plan) {
    status failure = look_plan_make(spending, n, count, alpha, plan);
    if (failure) fail_msg("%s", status_text(failure));
}

static void spending_follows_lan_and_demets(void **state) {
    (void)state;
    /* SciPy: 4 * norm.sf(norm.isf(0.0125) / np.sqrt(t)), 0.05 * np.log(1 + (np.e - 1) * t) */
    assert_near(alpha_spent(SPEND_OBRIEN_FLEMING, 0.5, 0.05), 0.0030506455159778224, EXACT);
    assert_near(alpha_spent(SPEND_POCOCK, 0.5, 0.05), 0.031005725347913876, EXACT);
    for (int k = 0; k < SPENDING_KINDS; k++) {
        assert_near(alpha_spent((enum spending)k, 1.0, 0.05), 0.05, 0.0);
        assert_near(alpha_spent((enum spending)k, 0.0, 0.05), 0.0, 0.0);
    }
}

/* tests/unit/fixtures/looks_reference.py, which integrates forward where boundary.c goes back. */
static const struct {
    enum spending spending;
    double alpha;
    int count;
    size_t n[5];
    double boundary[5];
} reference[] = {
    {SPEND_POCOCK, 0.05, 3, {3, 5, 7}, {5.894984722, 3.929727284, 3.298341042}},
    {SPEND_OBRIEN_FLEMING,
     0.05,
     5,
     {3, 5, 7, 9, 11},
     {168.019680155, 7.445581713, 3.825824961, 2.858610549, 2.392374431}},
    {SPEND_POCOCK, 0.05, 5, {3, 5, 7, 9, 11}, {7.109442493, 4.317225186, 3.523289953, 3.182508764, 2.994120089}},
    {SPEND_POCOCK, 0.05, 5, {2, 3, 4, 5, 6}, {28.105378280, 9.415565030, 5.701812179, 4.468723740, 3.884776657}},
    {SPEND_OBRIEN_FLEMING, 0.01, 3, {2, 4, 9}, {122107405.349661589, 35.077975004, 3.358463096}},
};

static void boundaries_agree_with_an_integration_of_another_form(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(reference); i++) {
        struct look_plan plan;
        make_plan(reference[i].spending, reference[i].n, reference[i].count, reference[i].alpha, &plan);
        for (int k = 0; k < plan.count; k++) assert_near(plan.boundary[k], reference[i].boundary[k], ITERATED);
    }
}

/* The two-sided p of a look as the point of the normal distribution that has it. */
static double normal_boundary(const struct look_plan *plan, int look) {
    return gsl_cdf_ugaussian_Qinv(plan->level[look] / 2.0);
}

static void boundaries_with_many_seeds_come_to_the_published_normal_ones(void **state) {
    (void)state;
    /* R, package rpact: tests/unit/fixtures/looks_reference.R; the package ldbounds publishes the same to 4 digits */
    static const double normal[SPENDING_KINDS][5] = {
        {4.87688494879, 3.35701192234, 2.68028006441, 2.28981676773, 2.03103204345},
        {2.43797668805, 2.42681385815, 2.41019384033, 2.39664540073, 2.38598457206}};
    const size_t few[] = {100, 200, 300, 400, 500}, many[] = {200, 400, 600, 800, 1000};
    struct look_plan half, whole;
    for (int k = 0; k < SPENDING_KINDS; k++) {
        make_plan((enum spending)k, few, 5, 0.05, &half);
        make_plan((enum spending)k, many, 5, 0.05, &whole);
        for (int look = 0; look < 5; look++) { /* what is of order 1 / n cancels */
            double limit = 2.0 * normal_boundary(&whole, look) - normal_boundary(&half, look);
            assert_near(limit, normal[k][look], 2e-5);
        }
    }
}

/* |t| of the first n of normal differences, drawn apart from those that made the boundaries. */
static bool crosses(const struct look_plan *plan, struct random_stream stream, size_t path) {
    double d[16];
    for (size_t i = 0; i < plan->n[plan->count - 1]; i++) d[i] = random_normal(stream, path * 16 + i);
    for (int k = 0; k < plan->count; k++) {
        struct summary s = summarise(d, plan->n[k]);
        if (fabs(s.mean) / (s.sd / sqrt((double)s.n)) >= plan->boundary[k]) return true;
    }
    return false;
}

static void looks_keep_alpha_for_the_few_degrees_of_freedom_of_t(void **state) {
    (void)state;
    enum { PATHS = 20000 };
    const size_t n[] = {3, 5, 7, 9, 11};
    struct look_plan plan;
    for (int k = 0; k < SPENDING_KINDS; k++) {
        size_t crossed = 0;
        make_plan((enum spending)k, n, 5, 0.05, &plan);
        for (size_t path = 0; path < PATHS; path++) crossed += crosses(&plan, random_stream(99, "test.looks"), path);
        assert_near((double)crossed / PATHS, 0.05, 3.0 * sqrt(0.05 * 0.95 / PATHS));
    }
}

static void one_look_is_the_plain_test(void **state) {
    (void)state;
    const size_t one[] = {5};
    struct look_plan plan;
    make_plan(SPEND_POCOCK, one, 1, 0.05, &plan);
    assert_near(plan.boundary[0], student_quantile(0.975, 4), EXACT);
    assert_near(plan.level[0], 0.05, EXACT);
}

static void a_look_that_spends_next_to_nothing_has_a_boundary_out_of_reach(void **state) {
    (void)state;
    const size_t n[] = {2, 3, 1000};
    struct look_plan plan;
    make_plan(SPEND_OBRIEN_FLEMING, n, 3, 0.005, &plan);
    assert_true(plan.spent[0] == 0.0 && plan.boundary[0] > 1e6 && plan.boundary[1] > 1e6);
    assert_near(plan.boundary[2], student_quantile(0.9975, 999), ITERATED);
}

static void looks_that_do_not_ascend_are_refused(void **state) {
    (void)state;
    const size_t falling[] = {3, 3}, single[] = {1, 5};
    struct look_plan plan;
    status failure = look_plan_make(SPEND_POCOCK, falling, 2, 0.05, &plan);
    assert_non_null(failure);
    status_free(failure);
    failure = look_plan_make(SPEND_POCOCK, single, 2, 0.05, &plan);
    assert_non_null(failure);
    status_free(failure);
}

static void a_comparison_stops_at_the_first_boundary_and_follows_the_order_of_the_seeds(void **state) {
    (void)state;
    static const double d[] = {-0.010, -0.011, -0.009, -0.0105, -0.0095, 0.5, -0.4};
    const size_t n[] = {3, 5, 7};
    struct observation o[14];
    struct look_plan plan;
    make_plan(SPEND_POCOCK, n, 3, 0.05, &plan);
    struct design design = {.baseline = "plain", .alpha = 0.05, .looks = &plan};
    for (int i = 0; i < 7; i++) {
        o[2 * i] = (struct observation){.variant = "plain", .seed = 1000 - i, .value = 1.0};
        o[2 * i + 1] = (struct observation){.variant = "variant", .seed = 1000 - i, .value = 1.0 + d[i]};
    }
    struct comparison row = compare_two(&design, o, 14);
    assert_int_equal(row.look_count, 1);
    assert_int_equal(row.stopped, 0);
    assert_int_equal(row.verdict, VERDICT_BETTER);
    assert_near(row.looks[0].statistic, -0.01 / (0.001 / sqrt(3.0)), 1e-6);
    assert_near(row.family_high, -0.01 + plan.boundary[0] * 0.001 / sqrt(3.0), 1e-9);
    assert_true(row.family_high < 0.0 && row.ci_high > 0.0); /* the seeds after the look are not of it */
    for (int i = 0; i < 7; i++) o[2 * i + 1].value = 1.0 + d[6 - i];
    row = compare_two(&design, o, 14);
    assert_int_equal(row.look_count, 3);
    assert_int_equal(row.stopped, -1);
    assert_int_equal(row.verdict, VERDICT_INCONCLUSIVE);
    assert_true(row.family_low < row.ci_low && row.family_high > row.ci_high);
    row = compare_two(&design, o, 12); /* the sixth seed: the third look is not yet there */
    assert_int_equal(row.look_count, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spending_follows_lan_and_demets),
        cmocka_unit_test(boundaries_agree_with_an_integration_of_another_form),
        cmocka_unit_test(boundaries_with_many_seeds_come_to_the_published_normal_ones),
        cmocka_unit_test(looks_keep_alpha_for_the_few_degrees_of_freedom_of_t),
        cmocka_unit_test(one_look_is_the_plain_test),
        cmocka_unit_test(a_look_that_spends_next_to_nothing_has_a_boundary_out_of_reach),
        cmocka_unit_test(looks_that_do_not_ascend_are_refused),
        cmocka_unit_test(a_comparison_stops_at_the_first_boundary_and_follows_the_order_of_the_seeds),
    };
    return cmocka_run_group_tests_name("looks", tests, NULL, NULL);
}
