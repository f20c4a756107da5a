/* test_stats_tests: rank tests, Welch, BCa and evaluation noise against SciPy and statsmodels; the values come
 * from tests/unit/fixtures/stats_tests_reference.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "harness/stats/noise.h"
#include "harness/stats/stats.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
static const double EXACT = 1e-10, ITERATED = 1e-6;

static const double x5[] = {1.281, 1.279, 1.290, 1.268, 1.301};
static const double y6[] = {1.300, 1.310, 1.295, 1.305, 1.288, 1.296};
static const double five[] = {-0.012, -0.003, -0.0075, 0.001, -0.0105};
static const double twelve[] = {0.3, -0.1, 0.25, 0.4, -0.2, 0.15, 0.05, 0.33, -0.05, 0.12, 0.21, -0.3};

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance * fmax(1.0, fabs(expected))))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

static void fill(double *d, size_t n, double shift) {
    for (size_t i = 0; i < n; i++) d[i] = ((int)((7 * i * i + 3 * i) % 23) - 9) / 16.0 + shift;
}

/* Rows of two variants whose seeds are not shared, or are. */
static size_t observe(struct observation *o, const double *x, size_t n, const double *y, size_t m, int64_t first_y) {
    for (size_t i = 0; i < n; i++) o[i] = (struct observation){.variant = "variant", .seed = (int64_t)i, .value = x[i]};
    for (size_t i = 0; i < m; i++)
        o[n + i] = (struct observation){.variant = "plain", .seed = first_y + (int64_t)i, .value = y[i]};
    return n + m;
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

static void signed_ranks_agree_with_scipy_also_with_ties_and_zeros(void **state) {
    (void)state;
    const double tied[] = {0.5, -0.25, 0.5, 0.0, 0.75, -0.5, 0.25, 1.0}, none[] = {0, 0, 0};
    double shifted[12], many[250];
    for (int i = 0; i < 12; i++) shifted[i] = twelve[i] + 0.001;
    fill(many, 250, 0.03);
    assert_near(p_wilcoxon(five, 5), 0.125, EXACT);
    assert_near(p_wilcoxon(shifted, 12), 0.12939453125, EXACT);
    assert_near(p_wilcoxon(tied, 8), 0.203125, EXACT);
    assert_near(p_wilcoxon(many, 250), 0.03598294365086692, EXACT);
    assert_near(p_wilcoxon(none, 3), 1.0, 0.0);
    assert_true(isnan(p_wilcoxon(five, 1)));
}

static void differences_equal_but_for_rounding_share_a_rank(void **state) {
    (void)state;
    const double d[] = {0.1 + 0.2, -0.3, 0.7, 0.9}; /* 0.1 + 0.2 is 5.6e-17 above 0.3 */
    const double tied[] = {0.3, -0.3, 0.7, 0.9};
    assert_near(p_wilcoxon(d, 4), p_wilcoxon(tied, 4), 0.0);
}

static void rank_sums_agree_with_scipy_also_with_ties(void **state) {
    (void)state;
    const double tied_x[] = {1, 2, 2, 3, 5}, tied_y[] = {2, 3, 4, 4, 6, 7};
    double many[160];
    fill(many, 60, 0.0);
    for (size_t i = 60; i < 160; i++) many[i] = ((int)((7 * i * i + 3 * i) % 23) - 9) / 16.0 + 0.1;
    assert_near(p_mann_whitney(x5, 5, y6, 6), 0.08225108225108226, EXACT);
    assert_near(p_mann_whitney(tied_x, 5, tied_y, 6), 0.12554112554112554, EXACT);
    assert_near(p_mann_whitney(tied_y, 6, tied_x, 5), 0.12554112554112554, EXACT);
    assert_near(p_mann_whitney(many, 60, many + 60, 100), 0.10878560224650366, EXACT);
}

static void welch_agrees_with_scipy(void **state) {
    (void)state;
    struct observation o[11];
    struct design design = {.baseline = "plain", .test = TEST_WELCH, .alpha = 0.05, .margin = 0.02};
    struct comparison row = compare_two(&design, o, observe(o, x5, 5, y6, 6, 0));
    assert_near(p_welch(x5, 5, y6, 6), 0.051731001222969225, EXACT);
    assert_near(row.p, 0.051731001222969225, EXACT);
    assert_near(row.freedom, 6.506230191979188, EXACT);
    assert_near(row.ci_low, -0.03055329404767095, EXACT);
    assert_near(row.ci_high, 0.0001532940476703, EXACT);
    assert_near(row.p_tost, 0.23952138227253594, EXACT);
    assert_near(row.hedges_g, -1.3748049745105295, EXACT);
    assert_false(row.paired);
}

static void without_shared_seeds_the_unpaired_test_stands_in(void **state) {
    (void)state;
    struct observation o[11];
    struct design design = {.baseline = "plain", .test = TEST_PAIRED_T, .alpha = 0.05};
    size_t n = observe(o, x5, 5, y6, 6, 100);
    struct comparison row = compare_two(&design, o, n);
    assert_int_equal(row.test, TEST_WELCH);
    assert_near(row.p, 0.051731001222969225, EXACT);
    assert_near(row.delta, -0.0152, 1e-12);
    assert_true(isnan(row.rho) && isnan(row.sd_delta) && row.pairs == 0);
    design.test = TEST_WILCOXON;
    row = compare_two(&design, o, n);
    assert_int_equal(row.test, TEST_MANN_WHITNEY);
    assert_near(row.p, 0.08225108225108226, EXACT);
    assert_near(row.attainable_p, 2.0 / 462.0, EXACT);
}

static void times_of_two_machines_are_not_compared(void **state) {
    (void)state;
    struct observation o[12];
    struct design design = {.baseline = "plain", .test = TEST_PAIRED_T, .alpha = 0.05};
    const double x[] = {11, 12.5, 13, 14.5, 90, 95}, y[] = {10, 11, 12, 13, 14, 15};
    size_t n = observe(o, x, 6, y, 6, 0);
    for (size_t i = 0; i < n; i++) o[i].machine = i == 4 || i == 5 ? "slow" : "fast";
    struct comparison row = compare_two(&design, o, n);
    assert_int_equal(row.pairs, 4);
    assert_int_equal(row.two_machines, 2);
    assert_near(row.delta, 1.25, EXACT);
    design.test = TEST_WELCH;
    assert_near(compare_two(&design, o, n).delta, 1.25, EXACT);
    o[5].failed = true; /* worse than any time, wherever it ran */
    design.test = TEST_WILCOXON;
    assert_int_equal(compare_two(&design, o, n).units, 5);
    for (size_t i = 0; i < 6; i++) o[i].machine = "slow", o[i].failed = false;
    for (int test = 0; test < TEST_KINDS; test++) {
        design.test = (enum test_kind)test;
        assert_int_equal(compare_two(&design, o, n).verdict, VERDICT_TOO_FEW);
    }
}

static void failed_seeds_rank_worst(void **state) {
    (void)state;
    struct observation o[12];
    struct design design = {.baseline = "plain", .test = TEST_WILCOXON, .alpha = 0.05};
    const double x[] = {1.0, 1.1, 1.2, 1.3, 1.4, 1.5}, y[] = {1.1, 1.2, 1.3, 1.4, 1.5, 1.6};
    size_t n = observe(o, x, 6, y, 6, 0);
    for (int i = 0; i < 6; i++) o[i].value = x[i] - 0.01 * i;
    assert_int_equal(compare_two(&design, o, n).verdict, VERDICT_BETTER);
    assert_near(compare_two(&design, o, n).p, 0.03125, EXACT);
    for (int i = 0; i < 6; i++) o[i].failed = true;
    struct comparison row = compare_two(&design, o, n);
    assert_int_equal(row.verdict, VERDICT_WORSE);
    assert_near(row.p, 0.03125, EXACT);
    assert_true(isnan(row.delta) && row.direction > 0);
    design.test = TEST_MANN_WHITNEY;
    assert_near(compare_two(&design, o, n).p, 2.0 / 924.0, EXACT);
    design.higher_is_better = true;
    assert_int_equal(compare_two(&design, o, n).verdict, VERDICT_WORSE);
    design.test = TEST_PAIRED_T;
    assert_int_equal(compare_two(&design, o, n).verdict, VERDICT_TOO_FEW);
}

static void bca_agrees_with_scipy_on_all_resamples(void **state) {
    (void)state;
    const double four[] = {-0.0062, -0.0041, -0.0075, 0.002};
    const struct {
        const double *d;
        size_t n;
        double alpha, low, high;
    } cases[] = {{five, 5, 0.05, -0.0102, -0.0015},
                 {five, 5, 0.1, -0.0096, -0.0024},
                 {four, 4, 0.05, -0.006567155744456095, 0.000475},
                 {four, 4, 0.1, -0.006325, -5e-05}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        double low, high;
        interval_bca(cases[i].d, cases[i].n, cases[i].alpha, 1, &low, &high);
        assert_near(low, cases[i].low, EXACT);
        assert_near(high, cases[i].high, EXACT);
    }
}

/* From here to the noise: tests/unit/fixtures/stats_sampled_reference.py, with a Philox of its own. */
static void bca_counts_all_resamples_up_to_ten_pairs(void **state) {
    (void)state;
    static const struct {
        size_t n;
        double alpha, low, high;
    } cases[] = {{7, 0.05, -0.47618541966017, 0.57431827597813},
                 {7, 0.01, -0.6414562444563399, 0.6984005123924},
                 {8, 0.05, -0.36487811264633, 0.64722635707777},
                 {8, 0.01, -0.5393970752414, 0.76173444215043},
                 {10, 0.05, -0.3129226297859, 0.54386636062671}};
    double d[10], low, high;
    for (int i = 0; i < 10; i++) d[i] = sin(i + 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        interval_bca(d, cases[i].n, cases[i].alpha, 1, &low, &high);
        assert_near(low, cases[i].low, EXACT);
        assert_near(high, cases[i].high, EXACT);
    }
}

static void sampled_bca_agrees_with_scipy_on_the_same_draws(void **state) {
    (void)state;
    double low, high, many[37];
    fill(many, 37, 0.0);
    interval_bca(twelve, 12, 0.05, 1, &low, &high);
    assert_near(low, -0.02833333333333, EXACT);
    assert_near(high, 0.20583333333333, EXACT);
    interval_bca(twelve, 12, 0.05, 2, &low, &high);
    assert_near(low, -0.033921922563262805, EXACT);
    assert_near(high, 0.205, EXACT);
    interval_bca(many, 37, 0.05, 1, &low, &high);
    assert_near(low, -0.0625, EXACT);
    assert_near(high, 0.19425675675676, EXACT);
    const double same[] = {1, 1, 1};
    interval_bca(same, 3, 0.05, 1, &low, &high);
    assert_true(isnan(low) && isnan(high));
}

static void sampled_sign_flip_agrees_on_the_same_draws(void **state) {
    (void)state;
    double d[100];
    fill(d, 100, 0.08);
    assert_near(p_sign_flip(d, 21, 7), 0.15993, EXACT);
    assert_near(p_sign_flip(d, 100, 7), 0.00113, EXACT);
}

static void above_200_pairs_fewer_resamples_are_drawn(void **state) {
    (void)state;
    double d[250], low, high;
    fill(d, 250, 0.0);
    interval_bca(d, 250, 0.05, 1, &low, &high);
    assert_near(low, 0.01257771261038621, EXACT);
    assert_near(high, 0.11612158399060633, EXACT);
    fill(d, 250, 0.03);
    assert_near(p_sign_flip(d, 250, 7), 0.00045, EXACT);
    assert_near(attainable_p(TEST_SIGN_FLIP, 250), 1.0 / 20000, EXACT);
}

static void sampled_noise_agrees_on_the_same_draws(void **state) {
    (void)state;
    double top[64], one[64], other[64];
    for (int i = 0; i < 64; i++) top[i] = 1.0 + 0.01 * (i % 8), one[i] = 1.0, other[i] = 1.0 + 0.1 * (i % 5);
    assert_near(noise_of_ratio(top, one, 64, 1), 0.0028671541512176, EXACT);
    assert_near(noise_of_ratio(top, other, 64, 2), 0.013097136892979262, EXACT);
}

static void power_of_two_samples_agrees_with_scipy(void **state) {
    (void)state;
    assert_near(power_t(2.7, 6.4, 0.05), 0.6278957513868824, ITERATED);
    assert_int_equal(seeds_for_power_welch(0.01, 0.011, 0.006, 0.8, 0.05), 14);
    assert_int_equal(seeds_for_power_welch(0.003, 0.011, 0.006, 0.8, 0.01), 206);
    assert_near(power_t(detectable_shift(0.8, 6.4, 0.05), 6.4, 0.05), 0.8, ITERATED);
}

static void only_a_thorough_comparison_runs_what_was_not_declared(void **state) {
    (void)state;
    struct observation o[11];
    struct design design = {.baseline = "plain", .test = TEST_PAIRED_T, .alpha = 0.05, .seed = 1};
    size_t n = observe(o, x5, 5, y6, 6, 0);
    struct comparison brief = compare_two(&design, o, n);
    design.thorough = true;
    struct comparison whole = compare_two(&design, o, n);
    assert_true(isnan(brief.p_of[TEST_WELCH]) && isnan(brief.bca_low));
    assert_near(whole.p_of[TEST_WELCH], 0.051731001222969225, EXACT);
    assert_true(whole.bca_low < whole.delta && whole.delta < whole.bca_high);
    assert_true(brief.p == whole.p && brief.verdict == whole.verdict);
}

static void simultaneous_intervals_are_those_of_alpha_over_the_family(void **state) {
    (void)state;
    struct observation o[15];
    struct comparison_table t;
    struct design design = {.baseline = "plain", .alpha = 0.05};
    for (int i = 0; i < 15; i++)
        o[i] = (struct observation){.variant = i < 5    ? "plain"
                                               : i < 10 ? "a"
                                                        : "b",
                                    .seed = i % 5,
                                    .value = i < 5 ? 0.0 : five[i % 5]};
    assert_null(compare_variants(&design, o, 15, &t));
    double low, high;
    interval_t(five, 5, 0.025, &low, &high);
    assert_near(t.rows[1].family_low, low, EXACT);
    assert_near(t.rows[2].family_high, high, EXACT);
    comparison_table_free(&t);
}

/* --- evaluation noise --------------------------------------------------------------------------------------------- */

static void noise_of_equal_blocks_is_the_standard_error_of_their_mean(void **state) {
    (void)state;
    double top[64], bottom[64], doubled[128], twice[128];
    for (int i = 0; i < 64; i++) top[i] = 1.0 + 0.01 * (i % 8), bottom[i] = 1.0;
    /* resampling 64 of them: sd of the population over sqrt(64) */
    assert_near(noise_of_ratio(top, bottom, 64, 1), 0.022912878474779200 / 8.0, 2e-4);
    assert_true(noise_of_ratio(top, bottom, 64, 1) == noise_of_ratio(top, bottom, 64, 1));
    for (int i = 0; i < 128; i++) doubled[i] = 2.0 * top[i % 64], twice[i] = 2.0;
    assert_near(noise_of_ratio(doubled, twice, 128, 1), 0.022912878474779200 / sqrt(128.0), 2e-4);
    for (int i = 0; i < 64; i++) top[i] = 3.0 * bottom[i];
    assert_near(noise_of_ratio(top, bottom, 64, 1), 0.0, 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signed_ranks_agree_with_scipy_also_with_ties_and_zeros),
        cmocka_unit_test(differences_equal_but_for_rounding_share_a_rank),
        cmocka_unit_test(rank_sums_agree_with_scipy_also_with_ties),
        cmocka_unit_test(welch_agrees_with_scipy),
        cmocka_unit_test(without_shared_seeds_the_unpaired_test_stands_in),
        cmocka_unit_test(times_of_two_machines_are_not_compared),
        cmocka_unit_test(failed_seeds_rank_worst),
        cmocka_unit_test(bca_agrees_with_scipy_on_all_resamples),
        cmocka_unit_test(bca_counts_all_resamples_up_to_ten_pairs),
        cmocka_unit_test(sampled_bca_agrees_with_scipy_on_the_same_draws),
        cmocka_unit_test(sampled_sign_flip_agrees_on_the_same_draws),
        cmocka_unit_test(above_200_pairs_fewer_resamples_are_drawn),
        cmocka_unit_test(sampled_noise_agrees_on_the_same_draws),
        cmocka_unit_test(power_of_two_samples_agrees_with_scipy),
        cmocka_unit_test(only_a_thorough_comparison_runs_what_was_not_declared),
        cmocka_unit_test(simultaneous_intervals_are_those_of_alpha_over_the_family),
        cmocka_unit_test(noise_of_equal_blocks_is_the_standard_error_of_their_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
