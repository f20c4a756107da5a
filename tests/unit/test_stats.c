/* test_stats: every figure of stats.h against SciPy (tests/unit/fixtures/stats_reference.py prints the values), and
 * the verdicts against what a design can and cannot claim. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "harness/stats/stats.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
static const double EXACT = 1e-10, ITERATED = 1e-6;

static const double three[] = {-0.0062, -0.0041, -0.0075};
static const double five[] = {-0.012, -0.003, -0.0075, 0.001, -0.0105};
static const double twelve[] = {0.3, -0.1, 0.25, 0.4, -0.2, 0.15, 0.05, 0.33, -0.05, 0.12, 0.21, -0.3};

static void assert_near(double value, double expected, double tolerance) {
    if (!(fabs(value - expected) <= tolerance * fmax(1.0, fabs(expected))))
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
}

struct reference {
    const double *d;
    size_t n;
    double p, low95, high95, low99, high99, flip, below, above, tost, gz, sd;
};

static const struct reference references[] = {
    {three, 3, 0.02675553777142151, -0.010195156171407892, -0.0016715104952587751, -0.015763995037803614,
     0.0038973283711369487, 0.25, 0.22275868796653123, 0.9959460713783225, 0.027259602441801572, -1.9512103312640903,
     0.0017156145643277023},
    {five, 5, 0.056337572538264116, -0.01307791324721224, 0.0002779132472122388, -0.017473781388744482,
     0.004673781388744482, 0.125, 0.29587398006047505, 0.9954804862499876, 0.10439947964949996, -0.9494746011300411,
     0.0053781967238099426},
    {twelve, 12, 0.15721156280596527, -0.04349048022679107, 0.23682381356012439, -0.1011088512759319,
     0.29444218460926525, 0.1591796875, 0.9306629956235883, 0.08892601811197892, 0.8996260250345149, 0.4075230391250829,
     0.22059149136040143},
};

static void figures_of_paired_differences_agree_with_scipy(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(references); i++) {
        const struct reference *r = &references[i];
        double low, high;
        assert_near(p_paired_t(r->d, r->n), r->p, EXACT);
        interval_t(r->d, r->n, 0.05, &low, &high);
        assert_near(low, r->low95, EXACT);
        assert_near(high, r->high95, EXACT);
        interval_t(r->d, r->n, 0.01, &low, &high);
        assert_near(low, r->low99, EXACT);
        assert_near(high, r->high99, EXACT);
        assert_near(p_sign_flip(r->d, r->n, 1), r->flip, 0.0);
        assert_near(p_below(r->d, r->n, -0.005), r->below, EXACT);
        assert_near(p_above(r->d, r->n, 0.005), r->above, EXACT);
        assert_near(p_equivalent(r->d, r->n, 0.01), r->tost, EXACT);
        assert_near(hedges_gz(r->d, r->n), r->gz, EXACT);
        assert_near(summarise(r->d, r->n).sd, r->sd, EXACT);
    }
}

static void fill(double *d, size_t n) {
    for (size_t i = 0; i < n; i++) d[i] = ((int)((7 * i * i + 3 * i) % 23) - 9) / 16.0;
}

static void sign_flip_enumerates_up_to_twenty_pairs(void **state) {
    (void)state;
    double d[20];
    fill(d, 20);
    assert_near(p_sign_flip(d, 20, 1), 0.6046295166015625, 0.0);
    assert_near(p_sign_flip(d, 20, 2), 0.6046295166015625, 0.0);
}

static void sampled_sign_flip_is_near_the_normal_limit_and_repeatable(void **state) {
    (void)state;
    double d[100], squares = 0.0, sum = 0.0;
    fill(d, 100);
    for (int i = 0; i < 100; i++) d[i] += 0.08, squares += d[i] * d[i], sum += d[i];
    double normal = erfc(fabs(sum) / sqrt(2.0 * squares)), p = p_sign_flip(d, 100, 7);
    assert_near(p, normal, 0.006);
    assert_true(p_sign_flip(d, 100, 7) == p);
    assert_true(p_sign_flip(d, 100, 8) != p);
}

static void a_sampled_p_is_never_zero(void **state) {
    (void)state;
    double d[30];
    for (int i = 0; i < 30; i++) d[i] = 1.0 + i;
    assert_near(p_sign_flip(d, 30, 1), 1e-5, 1e-15);
    assert_near(attainable_p(TEST_SIGN_FLIP, 30), 1e-5, 1e-15);
}

static void ties_that_differ_by_rounding_count_as_ties(void **state) {
    (void)state;
    const double d[] = {0.1, 0.2, -0.3}; /* 0.1 + 0.2 - 0.3 is 5.6e-17; every signing reaches a sum of 0 */
    assert_near(p_sign_flip(d, 3, 1), 1.0, 0.0);
}

static void differences_without_spread_have_p_zero_or_one(void **state) {
    (void)state;
    const double same[] = {0.25, 0.25, 0.25}, none[] = {0, 0, 0};
    assert_near(p_paired_t(same, 3), 0.0, 0.0);
    assert_near(p_paired_t(none, 3), 1.0, 0.0);
    assert_near(p_equivalent(same, 3, 0.5), 0.0, 0.0);
    assert_near(p_equivalent(same, 3, 0.1), 1.0, 0.0);
    assert_near(p_sign_flip(none, 3, 1), 1.0, 0.0);
    assert_true(isnan(hedges_gz(same, 3)));
}

static void one_pair_gives_no_figure(void **state) {
    (void)state;
    double low, high;
    interval_t(three, 1, 0.05, &low, &high);
    assert_true(isnan(low) && isnan(high));
    assert_true(isnan(p_paired_t(three, 1)) && isnan(p_sign_flip(three, 1, 1)) && isnan(p_equivalent(three, 1, 1.0)));
}

static void quantiles_of_t_agree_with_scipy(void **state) {
    (void)state;
    const double cases[][3] = {{0.975, 1, 12.706204736174694},
                               {0.975, 2, 4.302652729749462},
                               {0.995, 4, 4.604094871349992},
                               {0.9, 9, 1.3830287383966329},
                               {0.025, 30, -2.042272456301238},
                               {1 - 1e-6, 3, 103.29946777942898},
                               {0.5, 3, 0.0}};
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_near(student_quantile(cases[i][0], cases[i][1]), cases[i][2], EXACT);
}

static void adjusted_p_agree_with_r_and_leave_missing_ones_out(void **state) {
    (void)state;
    const double p[] = {0.01, 0.04, NAN, 0.03, 0.005, 0.5};
    const double holm[] = {0.04, 0.09, NAN, 0.09, 0.025, 0.5}; /* R: p.adjust(c(.01,.04,NA,.03,.005,.5), "holm") */
    const double bh[] = {0.025, 0.05, NAN, 0.05, 0.025, 0.5};
    const double *expected[] = {[CORRECT_HOLM] = holm, [CORRECT_BH] = bh, [CORRECT_NONE] = p};
    for (int k = 0; k < CORRECTION_KINDS; k++) {
        double adjusted[6];
        adjust_p((enum correction)k, p, adjusted, 6);
        for (int i = 0; i < 6; i++) {
            if (i == 2)
                assert_true(isnan(adjusted[i]));
            else
                assert_near(adjusted[i], expected[k][i], 1e-15);
        }
    }
}

static void adjusted_p_never_fall_behind_smaller_ones(void **state) {
    (void)state;
    const double p[] = {0.0101, 0.01}; /* R: p.adjust(c(.0101,.01), "BH") and "holm" */
    double adjusted[2];
    adjust_p(CORRECT_BH, p, adjusted, 2);
    assert_near(adjusted[0], 0.0101, 1e-15);
    assert_near(adjusted[1], 0.0101, 1e-15);
    adjust_p(CORRECT_HOLM, p, adjusted, 2);
    assert_near(adjusted[0], 0.02, 1e-15);
    assert_near(adjusted[1], 0.02, 1e-15);
}

static void power_agrees_with_the_noncentral_t_of_scipy(void **state) {
    (void)state;
    const double cases[][4] = {{0.5, 10, 0.05, 0.29317560651407687},
                               {1.5, 3, 0.05, 0.31638186155915066},
                               {1, 5, 0.01, 0.12838794077932023},
                               {2, 2, 0.05, 0.17570741109776028},
                               {0.1, 1000, 0.05, 0.8847890988907141},
                               {3, 3, 0.005, 0.13035921362819175},
                               {0, 4, 0.05, 0.05}};
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_near(power_paired_t(cases[i][0], (size_t)cases[i][1], cases[i][2]), cases[i][3], ITERATED);
    assert_int_equal(seeds_for_power(0.5, 0.8, 0.05), 34);
    assert_int_equal(seeds_for_power(1.0, 0.8, 0.05), 10);
    assert_int_equal(seeds_for_power(2.0, 0.8, 0.05), 5);
    assert_int_equal(seeds_for_power(1.0, 0.8, 0.01), 16);
    assert_int_equal(seeds_for_power(1e-4, 0.8, 0.05), 0);
    assert_near(detectable_effect(5, 0.8, 0.05), 1.6819969659555296, ITERATED);
    assert_near(detectable_effect(10, 0.8, 0.05), 0.9960013714554437, ITERATED);
    assert_near(detectable_effect(10, 0.8, 0.01), 1.3320321091254779, ITERATED);
}

static void attainable_p_says_how_many_seeds_a_first_rejection_needs(void **state) {
    (void)state;
    assert_near(attainable_p(TEST_SIGN_FLIP, 5), 0.0625, 0.0);
    assert_near(attainable_p(TEST_PAIRED_T, 2), 0.0, 0.0);
    assert_int_equal(needed_seeds(TEST_SIGN_FLIP, CORRECT_NONE, 0.05, 1), 6);
    assert_int_equal(needed_seeds(TEST_SIGN_FLIP, CORRECT_HOLM, 0.05, 4), 8);
    assert_int_equal(needed_seeds(TEST_SIGN_FLIP, CORRECT_BH, 0.05, 4), 6);
    assert_int_equal(needed_seeds(TEST_PAIRED_T, CORRECT_HOLM, 0.05, 4), 2);
    assert_int_equal(needed_seeds(TEST_SIGN_FLIP, CORRECT_HOLM, 1e-6, 1), 0);
}

/* A small study: per seed noise shared by the variants, and a difference for each. */
static size_t study(struct observation *out, size_t seeds) {
    static const char *const names[] = {"plain", "lower", "slightly", "same", "noisy"};
    static const double shift[] = {0, -0.02, -0.003, 0.0001, 0.004};
    static const double wobble[] = {0, 0.0004, 0.0003, 0.0002, 0.03};
    size_t count = 0;
    for (size_t s = 0; s < seeds; s++)
        for (size_t v = 0; v < COUNT(names); v++) {
            double noise = 0.01 * ((double)(s * 7 % 5) - 2.0);
            double own = wobble[v] * ((double)((s * 3 + v) % 5) - 2.0);
            out[count++] = (struct observation){
                .variant = names[v], .seed = (int64_t)(100 - s), .value = 1.3 + noise + shift[v] + own};
        }
    return count;
}

static const struct design by_t = {.baseline = "plain", .alpha = 0.05, .margin = 0.01};

static const struct comparison *row_of(const struct comparison_table *t, const char *variant) {
    for (int v = 0; v < t->count; v++)
        if (strcmp(t->rows[v].variant, variant) == 0) return &t->rows[v];
    fail_msg("no row '%s'", variant);
    return NULL;
}

static void assert_compares(const struct design *design, const struct observation *o, size_t n,
                            struct comparison_table *t) {
    status failure = compare_variants(design, o, n, t);
    if (failure) fail_msg("%s", status_text(failure));
}

static void verdicts_claim_what_the_numbers_allow(void **state) {
    (void)state;
    struct observation o[25];
    struct comparison_table t;
    assert_compares(&by_t, o, study(o, 5), &t);
    assert_int_equal(t.count, 5);
    assert_int_equal(t.family, 4);
    assert_string_equal(t.rows[0].variant, "plain");
    assert_int_equal(t.rows[0].verdict, VERDICT_BASELINE);
    assert_int_equal(row_of(&t, "lower")->verdict, VERDICT_BETTER_BY_MARGIN);
    assert_int_equal(row_of(&t, "slightly")->verdict, VERDICT_BETTER);
    assert_int_equal(row_of(&t, "same")->verdict, VERDICT_EQUIVALENT);
    assert_int_equal(row_of(&t, "noisy")->verdict, VERDICT_INCONCLUSIVE);
    comparison_table_free(&t);
}

static void a_worse_variant_mirrors_a_better_one(void **state) {
    (void)state;
    struct observation o[25];
    struct comparison_table t, mirrored;
    size_t n = study(o, 5);
    assert_compares(&by_t, o, n, &t);
    for (size_t i = 0; i < n; i++) o[i].value = -o[i].value;
    assert_compares(&by_t, o, n, &mirrored);
    for (int v = 1; v < t.count; v++) {
        assert_near(mirrored.rows[v].delta, -t.rows[v].delta, 1e-15);
        assert_near(mirrored.rows[v].p_adjusted, t.rows[v].p_adjusted, 1e-12);
        assert_near(mirrored.rows[v].p_margin, t.rows[v].p_margin, 1e-12);
    }
    assert_int_equal(row_of(&mirrored, "lower")->verdict, VERDICT_WORSE_BY_MARGIN);
    assert_int_equal(row_of(&mirrored, "slightly")->verdict, VERDICT_WORSE);
    comparison_table_free(&t);
    comparison_table_free(&mirrored);
}

static void higher_can_be_declared_better(void **state) {
    (void)state;
    struct observation o[25];
    struct comparison_table t;
    struct design design = by_t;
    design.higher_is_better = true;
    assert_compares(&design, o, study(o, 5), &t);
    assert_int_equal(row_of(&t, "lower")->verdict, VERDICT_WORSE_BY_MARGIN);
    assert_near(row_of(&t, "lower")->superiority, 0.0, 0.0);
    comparison_table_free(&t);
}

static void the_order_of_the_values_changes_nothing(void **state) {
    (void)state;
    struct observation o[25], reversed[25];
    struct comparison_table t, u;
    size_t n = study(o, 5);
    for (size_t i = 0; i < n; i++) reversed[i] = o[n - 1 - i];
    assert_compares(&by_t, o, n, &t);
    assert_compares(&by_t, reversed, n, &u);
    for (int v = 0; v < t.count; v++) {
        const struct comparison *other = row_of(&u, t.rows[v].variant);
        assert_true(t.rows[v].verdict == other->verdict);
        if (v) assert_true(t.rows[v].p_adjusted == other->p_adjusted && t.rows[v].delta == other->delta);
    }
    comparison_table_free(&t);
    comparison_table_free(&u);
}

static void sign_flip_with_three_seeds_is_not_attainable(void **state) {
    (void)state;
    struct observation o[15];
    struct comparison_table t;
    struct design design = by_t;
    design.test = TEST_SIGN_FLIP;
    assert_compares(&design, o, study(o, 3), &t);
    const struct comparison *lower = row_of(&t, "lower");
    assert_int_equal(lower->verdict, VERDICT_NOT_ATTAINABLE);
    assert_near(lower->p, 0.25, 0.0);
    assert_near(lower->attainable_adjusted, 1.0, 0.0);
    assert_int_equal(lower->needed_n, 8);
    comparison_table_free(&t);
}

static void what_the_correction_puts_out_of_reach_is_not_attainable(void **state) {
    (void)state;
    struct observation o[30];
    struct comparison_table t;
    struct design design = by_t;
    design.test = TEST_SIGN_FLIP;
    assert_compares(&design, o, study(o, 6), &t);
    assert_near(row_of(&t, "lower")->attainable_p, 0.03125, 0.0);
    assert_near(row_of(&t, "lower")->attainable_adjusted, 0.125, 0.0);
    assert_int_equal(row_of(&t, "lower")->verdict, VERDICT_NOT_ATTAINABLE);
    comparison_table_free(&t);
}

/* Differences whose one-sided p against -0.01 and whose TOST p at 0.01 lie between alpha / 4 and alpha. */
static void claims_about_the_margin_are_adjusted_too(void **state) {
    (void)state;
    static const char *const names[] = {"plain", "far", "near", "far too", "near too"};
    static const double differences[][3] = {{0, 0, 0},
                                            {-0.0145, -0.0185, -0.0155},
                                            {0.0045, -0.0045, 0.0005},
                                            {-0.0146, -0.0184, -0.0155},
                                            {0.0044, -0.0044, 0.0006}};
    struct observation o[15];
    struct comparison_table t;
    for (int v = 0; v < 5; v++)
        for (int s = 0; s < 3; s++)
            o[v * 3 + s] = (struct observation){.variant = names[v], .seed = s, .value = 1.0 + differences[v][s]};
    assert_compares(&by_t, o, 15, &t);
    const struct comparison *far = row_of(&t, "far"), *near = row_of(&t, "near");
    assert_true(far->p_margin < 0.05 && far->p_margin_adjusted >= 0.05);
    assert_int_equal(far->verdict, VERDICT_BETTER);
    assert_true(near->p_tost < 0.05 && near->p_tost_adjusted >= 0.05);
    assert_int_equal(near->verdict, VERDICT_INCONCLUSIVE);
    comparison_table_free(&t);
}

/* What failed or was deleted must not make the correction of the others milder. */
static void a_variant_without_any_seed_has_a_row_and_counts_in_its_family(void **state) {
    (void)state;
    struct observation o[26];
    struct comparison_table with, without;
    size_t n = study(o, 5);
    assert_compares(&by_t, o, n, &without);
    o[n] = (struct observation){.variant = "gone", .absent = true};
    assert_compares(&by_t, o, n + 1, &with);
    assert_int_equal(with.count, without.count + 1);
    assert_int_equal(row_of(&with, "gone")->verdict, VERDICT_TOO_FEW);
    assert_int_equal(row_of(&with, "gone")->summary.n + row_of(&with, "gone")->summary.failed, 0);
    assert_true(isnan(row_of(&with, "gone")->p_adjusted));
    assert_int_equal(row_of(&without, "lower")->family, 4);
    assert_int_equal(row_of(&with, "lower")->family, 5);
    assert_near(row_of(&with, "lower")->p_adjusted, 5.0 / 4.0 * row_of(&without, "lower")->p_adjusted, 1e-15);
    comparison_table_free(&with);
    comparison_table_free(&without);
}

static void failed_and_infinite_seeds_are_counted_and_not_paired(void **state) {
    (void)state;
    struct observation o[25];
    struct comparison_table t;
    size_t n = study(o, 5);
    o[1].failed = true;    /* lower, first seed */
    o[6].value = INFINITY; /* lower, second seed */
    o[10].failed = true;   /* plain, third seed */
    assert_compares(&by_t, o, n, &t);
    assert_int_equal(row_of(&t, "lower")->summary.failed, 2);
    assert_int_equal(row_of(&t, "lower")->summary.n, 3);
    assert_int_equal(row_of(&t, "lower")->pairs, 2);
    assert_int_equal(row_of(&t, "same")->pairs, 4);
    assert_int_equal(t.rows[0].summary.failed, 1);
    comparison_table_free(&t);
}

static void a_variant_with_one_pair_is_shown_without_a_p(void **state) {
    (void)state;
    struct observation o[25];
    struct comparison_table t;
    size_t n = study(o, 5);
    for (size_t i = 6; i < n; i += 5) o[i].failed = true; /* lower keeps its first seed */
    assert_compares(&by_t, o, n, &t);
    assert_int_equal(row_of(&t, "lower")->verdict, VERDICT_TOO_FEW);
    assert_true(isnan(row_of(&t, "lower")->p));
    assert_int_equal(t.family, 4);
    comparison_table_free(&t);
}

static void late_variants_pay_for_themselves_and_weaken_no_declared_one(void **state) {
    (void)state;
    struct observation o[25];
    struct comparison_table declared, with_late;
    size_t n = study(o, 5), kept = 0;
    struct observation without[25];
    for (size_t i = 0; i < n; i++) {
        if (i % 5 == 4)
            o[i].late = true;
        else
            without[kept++] = o[i];
    }
    assert_compares(&by_t, without, kept, &declared);
    assert_compares(&by_t, o, n, &with_late);
    for (int v = 1; v < declared.count; v++) assert_true(declared.rows[v].p_adjusted == with_late.rows[v].p_adjusted);
    assert_true(row_of(&with_late, "noisy")->late);
    assert_int_equal(row_of(&with_late, "noisy")->family, 4);
    assert_int_equal(with_late.family, 3);
    comparison_table_free(&declared);
    comparison_table_free(&with_late);
}

static void correlation_and_superiority_describe_the_pairs(void **state) {
    (void)state;
    const double x[] = {1.1, 1.2, 1.15, 1.3, 1.22}, y[] = {1.0, 1.25, 1.1, 1.2, 1.3};
    const double tied[] = {1.1, 1.2, 1.1, 1.3, 1.3}; /* 3 ties, 1 lower, 1 higher */
    struct observation o[15];
    for (int i = 0; i < 5; i++) {
        o[10 + i] = (struct observation){.variant = "tied", .seed = i, .value = tied[i]};
        o[i] = (struct observation){.variant = "base", .seed = i, .value = x[i]};
        o[5 + i] = (struct observation){.variant = "other", .seed = i, .value = y[i]};
    }
    struct comparison_table t;
    struct design design = {.baseline = "base", .alpha = 0.05};
    assert_compares(&design, o, 15, &t);
    assert_near(t.rows[2].superiority, 0.5, EXACT);
    assert_near(t.rows[1].rho, 0.7189891671890547, EXACT);
    assert_near(t.rows[1].superiority, 0.6, EXACT);
    assert_true(isnan(t.rows[1].p_margin) && isnan(t.rows[1].p_tost));
    comparison_table_free(&t);
}

static void assert_refused(const struct design *design, const struct observation *o, size_t n, const char *text) {
    struct comparison_table t;
    status failure = compare_variants(design, o, n, &t);
    assert_non_null(failure);
    assert_int_equal(status_kind(failure), STATUS_USAGE);
    if (!strstr(status_text(failure), text)) fail_msg("'%s' does not name '%s'", status_text(failure), text);
    assert_null(t.rows);
    status_free(failure);
}

static void what_cannot_be_compared_is_refused_by_name(void **state) {
    (void)state;
    struct observation o[25];
    struct design design = by_t;
    study(o, 5);
    assert_refused(&design, o, 5, "'plain' has 1 seed");
    design.baseline = "absent";
    assert_refused(&design, o, 25, "'absent'");
    assert_refused(&design, o, 0, "'absent'");
    o[7].seed = o[2].seed;
    assert_refused(&by_t, o, 25, "variant 'slightly', seed 100 occurs twice");
}

static void names_are_found_and_unknown_ones_are_not(void **state) {
    (void)state;
    enum test_kind test;
    enum correction correction;
    assert_true(test_find("sign-flip", &test) && test == TEST_SIGN_FLIP);
    assert_false(test_find("t", &test));
    assert_true(correction_find("benjamini-hochberg", &correction) && correction == CORRECT_BH);
    assert_false(correction_find("", &correction));
    assert_string_equal(verdict_name(VERDICT_TOO_FEW), "too few seeds");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_of_paired_differences_agree_with_scipy),
        cmocka_unit_test(sign_flip_enumerates_up_to_twenty_pairs),
        cmocka_unit_test(sampled_sign_flip_is_near_the_normal_limit_and_repeatable),
        cmocka_unit_test(a_sampled_p_is_never_zero),
        cmocka_unit_test(ties_that_differ_by_rounding_count_as_ties),
        cmocka_unit_test(differences_without_spread_have_p_zero_or_one),
        cmocka_unit_test(one_pair_gives_no_figure),
        cmocka_unit_test(quantiles_of_t_agree_with_scipy),
        cmocka_unit_test(adjusted_p_agree_with_r_and_leave_missing_ones_out),
        cmocka_unit_test(adjusted_p_never_fall_behind_smaller_ones),
        cmocka_unit_test(power_agrees_with_the_noncentral_t_of_scipy),
        cmocka_unit_test(attainable_p_says_how_many_seeds_a_first_rejection_needs),
        cmocka_unit_test(verdicts_claim_what_the_numbers_allow),
        cmocka_unit_test(a_worse_variant_mirrors_a_better_one),
        cmocka_unit_test(higher_can_be_declared_better),
        cmocka_unit_test(the_order_of_the_values_changes_nothing),
        cmocka_unit_test(sign_flip_with_three_seeds_is_not_attainable),
        cmocka_unit_test(what_the_correction_puts_out_of_reach_is_not_attainable),
        cmocka_unit_test(claims_about_the_margin_are_adjusted_too),
        cmocka_unit_test(a_variant_without_any_seed_has_a_row_and_counts_in_its_family),
        cmocka_unit_test(failed_and_infinite_seeds_are_counted_and_not_paired),
        cmocka_unit_test(a_variant_with_one_pair_is_shown_without_a_p),
        cmocka_unit_test(late_variants_pay_for_themselves_and_weaken_no_declared_one),
        cmocka_unit_test(correlation_and_superiority_describe_the_pairs),
        cmocka_unit_test(what_cannot_be_compared_is_refused_by_name),
        cmocka_unit_test(names_are_found_and_unknown_ones_are_not),
    };
    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
