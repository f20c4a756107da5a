/* test_calibration: error rates, coverage and power of what Hinge says, on figures drawn from known distributions.
 *
 * The bulk draws figures as the simulated backend does and asks the statistics alone; the last tests go through suite,
 * plan, runner, store and comparison. A rate over F families is held to what is promised within three standard errors,
 * sqrt(rate (1 - rate) / F); all draws are fixed, so that a test fails always or never. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/runner.h"
#include "harness/simulated.h"
#include "harness/stats/looks.h"
#include "kernels/simulated/simulated.h"

enum { MOST_SEEDS = 10, MOST_VARIANTS = 10 };
static const double alpha = 0.05;

static const struct {
    size_t n, variants;
} designs[] = {{3, 1}, {3, 3}, {3, 10}, {5, 1}, {5, 3}, {5, 10}, {10, 1}, {10, 3}, {10, 10}};
enum { DESIGNS = sizeof designs / sizeof *designs };

static double three_errors(double rate, size_t count) { return 3 * sqrt(rate * (1 - rate) / (double)count); }

static void assert_near(const char *what, double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance))
        fail_msg("%s: found %.4f, expected %.4f within %.4f", what, found, expected, tolerance);
}

static void assert_at_most(const char *what, double found, double bound) {
    if (!(found <= bound)) fail_msg("%s: found %.4f, at most %.4f is allowed", what, found, bound);
}

static void expect_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

/* --- the statistics alone ----------------------------------------------------------------------------------------- */

static const struct simulated_world world = {
    .bpb = 1.3, .seed_sd = 0.002, .correlation = 0.6, .node_sd = 0.01, .nodes = 4};

static double sd_of_differences(void) { return world.seed_sd * sqrt(2 * (1 - world.correlation)); }

/* Differences of variant and baseline over n seeds; no two families share a seed. */
static void draw(size_t family, size_t n, size_t variant, double effect, double differences[MOST_SEEDS]) {
    struct simulated_world changed = world;
    char name[16];
    changed.effect = effect;
    snprintf(name, sizeof name, "v%zu", variant);
    for (size_t i = 0; i < n; i++) {
        uint64_t seed = family * MOST_SEEDS + i;
        differences[i] = simulated_bpb(&changed, seed, name) - simulated_bpb(&world, seed, "none");
    }
}

static bool rejects_any(enum correction correction, size_t family, size_t n, size_t variants) {
    double differences[MOST_SEEDS], p[MOST_VARIANTS] = {0}, adjusted[MOST_VARIANTS];
    for (size_t v = 0; v < variants; v++) {
        draw(family, n, v, 0, differences);
        p[v] = p_paired_t(differences, n);
    }
    adjust_p(correction, p, adjusted, variants);
    for (size_t v = 0; v < variants; v++)
        if (adjusted[v] < alpha) return true;
    return false;
}

static double family_error(enum correction correction, size_t n, size_t variants, size_t families) {
    size_t rejected = 0;
    for (size_t f = 0; f < families; f++) rejected += rejects_any(correction, f, n, variants);
    return (double)rejected / (double)families;
}

static void family_wise_error_keeps_alpha(void **state) {
    enum { FAMILIES = 4000 };
    (void)state;
    for (int d = 0; d < DESIGNS; d++) {
        char what[64];
        double rate = family_error(CORRECT_HOLM, designs[d].n, designs[d].variants, FAMILIES);
        snprintf(what, sizeof what, "%zu seeds, %zu variants", designs[d].n, designs[d].variants);
        assert_at_most(what, rate, alpha + three_errors(alpha, FAMILIES));
        if (designs[d].variants == 1) assert_near(what, rate, alpha, three_errors(alpha, FAMILIES));
    }
}

static void without_correction_ten_variants_break_alpha(void **state) {
    (void)state;
    assert_true(family_error(CORRECT_NONE, 5, 10, 1000) > 0.15);
}

static void intervals_cover_the_true_difference_as_often_as_they_say(void **state) {
    enum { FAMILIES = 10000 };
    static const size_t seeds[] = {3, 5, 10};
    const double effect = 0.0015;
    (void)state;
    for (int k = 0; k < 3; k++) {
        double differences[MOST_SEEDS], low, high;
        size_t covered = 0;
        for (size_t f = 0; f < FAMILIES; f++) {
            draw(f, seeds[k], 0, effect, differences);
            interval_t(differences, seeds[k], alpha, &low, &high);
            covered += low <= effect && effect <= high;
        }
        assert_near("coverage", (double)covered / FAMILIES, 1 - alpha, three_errors(alpha, FAMILIES));
    }
}

static void power_is_within_two_points_of_theory(void **state) {
    enum { FAMILIES = 10000 };
    static const struct {
        size_t n;
        double effect; /* in sd of the differences */
    } cases[] = {{3, 1}, {3, 3}, {5, 0.5}, {5, 1.5}, {10, 0.5}, {10, 1}};
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double differences[MOST_SEEDS];
        size_t found = 0;
        for (size_t f = 0; f < FAMILIES; f++) {
            draw(f, cases[c].n, 0, -cases[c].effect * sd_of_differences(), differences);
            found += p_paired_t(differences, cases[c].n) < alpha;
        }
        assert_near("power", (double)found / FAMILIES, power_paired_t(cases[c].effect, cases[c].n, alpha), 0.02);
    }
}

static bool rejects_at_a_look(const size_t *n, const double *levels, int looks, size_t family) {
    double differences[MOST_SEEDS];
    draw(family, n[looks - 1], 0, 0, differences);
    for (int k = 0; k < looks; k++)
        if (p_paired_t(differences, n[k]) < levels[k]) return true;
    return false;
}

static double error_over_looks(const size_t *n, const double *levels, int looks, size_t families) {
    size_t rejected = 0;
    for (size_t f = 0; f < families; f++) rejected += rejects_at_a_look(n, levels, looks, f);
    return (double)rejected / (double)families;
}

static void declared_looks_keep_alpha_and_undeclared_ones_break_it(void **state) {
    enum { FAMILIES = 10000, LOOKS = 4 };
    static const size_t seeds[LOOKS] = {3, 5, 7, 10};
    static const double undeclared[LOOKS] = {0.05, 0.05, 0.05, 0.05};
    (void)state;
    for (int spending = 0; spending < SPENDING_KINDS; spending++) {
        struct look_plan plan;
        expect_good(look_plan_make((enum spending)spending, seeds, LOOKS, alpha, &plan));
        double rate = error_over_looks(plan.n, plan.level, LOOKS, FAMILIES);
        assert_near(spending_name((enum spending)spending), rate, alpha, three_errors(alpha, FAMILIES));
    }
    assert_true(error_over_looks(seeds, undeclared, LOOKS, FAMILIES) > 0.08);
}

static void correlation_and_spread_are_as_declared(void **state) {
    enum { SEEDS = 20000 };
    struct simulated_world plain = world;
    double sum_x = 0, sum_y = 0, xx = 0, yy = 0, xy = 0;
    (void)state;
    plain.node_sd = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        double x = simulated_bpb(&plain, seed, "a") - plain.bpb, y = simulated_bpb(&plain, seed, "b") - plain.bpb;
        sum_x += x, sum_y += y, xx += x * x, yy += y * y, xy += x * y;
    }
    double error = 3 / sqrt((double)SEEDS);
    assert_near("mean", (sum_x + sum_y) / (2 * SEEDS * plain.seed_sd), 0, error);
    assert_near("sd", sqrt(xx / SEEDS) / plain.seed_sd, 1, error);
    assert_near("correlation", xy / sqrt(xx * yy), plain.correlation, error);
}

/* --- the whole pipeline ------------------------------------------------------------------------------------------- */

static const double effect_found = -0.0025;

/* A suite that was run: ten variants without an effect and one that fails now and then, or one with an effect. */
struct pipeline {
    const char *name;
    int seeds; /* divisible by 3, 5 and 10; CALIBRATION=N takes N times as many */
    bool null;
    struct results results;
    struct observation *observations;
    size_t count;
};
static struct pipeline null_suite = {.name = "null", .seeds = 900, .null = true};
static struct pipeline found_suite = {.name = "found", .seeds = 6000};
static char folder[64];

static void write_suite(const struct pipeline *p, const char *path) {
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fprintf(out, "name: %s\npreset: tiny\nbaseline: none\nmetric: bpb.artifact\nseeds: [1", p->name);
    for (int seed = 2; seed <= p->seeds; seed++) fprintf(out, ", %d", seed);
    fprintf(out, "]\nset: {run.backend: simulated, simulated.correlation: 0.6, simulated.node_sd: 0.01%s}\n",
            p->null ? "" : ", simulated.trace: 0");
    fprintf(out, "variants:\n  none: {}\n");
    for (int v = 1; p->null && v <= MOST_VARIANTS; v++) fprintf(out, "  v%d: {simulated.stream: %d}\n", v, v);
    if (p->null)
        fprintf(out, "  frail: {simulated.failure_rate: 0.1}\n");
    else
        fprintf(out, "  found: {simulated.effect: %g}\n", effect_found);
    fclose(out);
}

static void run_suite(const struct suite *suite, const char *database) {
    struct dataset_list datasets;
    struct plan plan;
    struct runner_summary summary;
    expect_good(datasets_open(&datasets, suite, "no-data-is-needed"));
    expect_good(plan_create(&plan, suite, &datasets, backend_find("simulated")));
    const struct runner_request request = {.database = database, .plan = &plan, .jobs = 1};
    expect_good(runner_run(&request, &summary));
    assert_int_equal(summary.done + summary.failed, summary.runs);
    plan_free(&plan);
    datasets_close(&datasets);
}

static void make_suite(struct pipeline *p) {
    char suite_path[96], database[96];
    struct suite suite;
    struct store *store;
    const char *factor = getenv("CALIBRATION");
    if (factor) p->seeds *= atoi(factor);
    snprintf(suite_path, sizeof suite_path, "%s/%s.yaml", folder, p->name);
    snprintf(database, sizeof database, "%s/hinge.db", folder);
    write_suite(p, suite_path);
    expect_good(suite_load(&suite, &(struct suite_request){.path = suite_path}));
    run_suite(&suite, database);
    suite_free(&suite);
    expect_good(store_open(&store, database, STORE_READ));
    expect_good(store_load_results_at(store, p->name, NULL, RESULTS_FIGURES, &p->results));
    store_close(store);
    expect_good(results_observations(&p->results, p->results.metric, &p->observations, &p->count));
}

static int make_pipeline(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hinge-calibration-XXXXXX");
    assert_non_null(mkdtemp(folder));
    make_suite(&null_suite);
    make_suite(&found_suite);
    return 0;
}

static void free_suite(struct pipeline *p) {
    free(p->observations);
    results_free(&p->results);
}

static int remove_pipeline(void **state) {
    (void)state;
    free_suite(&null_suite);
    free_suite(&found_suite);
    DIR *files = opendir(folder);
    for (struct dirent *entry; files && (entry = readdir(files));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    closedir(files);
    return rmdir(folder);
}

static bool takes_part(const struct observation *o, size_t variants, const char *also, size_t first, size_t n) {
    size_t number = 0;
    if ((size_t)o->seed <= first || (size_t)o->seed > first + n) return false;
    if (strcmp(o->variant, "none") == 0 || (also && strcmp(o->variant, also) == 0)) return true;
    return sscanf(o->variant, "v%zu", &number) == 1 && number <= variants;
}

/* The comparison of seeds first + 1 .. first + n; table is the caller's. */
static void compare_part(const struct pipeline *p, const struct look_plan *looks, size_t variants, const char *also,
                         size_t first, size_t n, struct comparison_table *table) {
    struct observation *part = calloc((variants + 2) * n, sizeof *part); /* with the baseline and `also` */
    struct design design = p->results.design;
    size_t count = 0;
    assert_non_null(part);
    design.looks = looks;
    for (size_t i = 0; i < p->count; i++)
        if (takes_part(&p->observations[i], variants, also, first, n)) part[count++] = p->observations[i];
    expect_good(compare_variants(&design, part, count, table));
    free(part);
}

/* What the families of n seeds said: those with a wrong verdict, and the intervals that hold the truth. */
struct tally {
    size_t families, wrong, covered, rows;
};

static struct tally tally_families(const struct look_plan *looks, size_t n, size_t variants) {
    struct tally t = {.families = (size_t)null_suite.seeds / n};
    for (size_t f = 0; f < t.families; f++) {
        struct comparison_table table;
        bool any = false;
        compare_part(&null_suite, looks, variants, NULL, f * n, n, &table);
        assert_int_equal(table.count, variants + 1);
        for (int v = 1; v < table.count; v++, t.rows++) {
            assert_int_equal(table.rows[v].pairs, n);
            any |= table.rows[v].verdict != VERDICT_INCONCLUSIVE;
            t.covered += table.rows[v].ci_low <= 0 && table.rows[v].ci_high >= 0;
        }
        t.wrong += any;
        comparison_table_free(&table);
    }
    return t;
}

static void the_pipeline_keeps_alpha_and_coverage(void **state) {
    (void)state;
    for (int d = 0; d < DESIGNS; d++) {
        struct tally t = tally_families(NULL, designs[d].n, designs[d].variants);
        double wrong = (double)t.wrong / (double)t.families, covered = (double)t.covered / (double)t.rows;
        print_message("%zu seeds, %zu variants, %zu families: family-wise error %.4f, coverage %.4f\n", designs[d].n,
                      designs[d].variants, t.families, wrong, covered);
        assert_at_most("error", wrong, alpha + three_errors(alpha, t.families));
        /* Rows of a family share their baseline: only families are independent. */
        assert_near("coverage", covered, 1 - alpha, three_errors(alpha, t.families));
    }
}

static void the_pipeline_keeps_alpha_over_declared_looks(void **state) {
    enum { LOOKS = 4, VARIANTS = 3 };
    static const size_t seeds[LOOKS] = {3, 5, 7, 10};
    (void)state;
    for (int spending = 0; spending < SPENDING_KINDS; spending++) {
        struct look_plan plan;
        expect_good(look_plan_make((enum spending)spending, seeds, LOOKS, alpha / VARIANTS, &plan));
        struct tally t = tally_families(&plan, seeds[LOOKS - 1], VARIANTS);
        double wrong = (double)t.wrong / (double)t.families;
        print_message("%s, %zu families: family-wise error %.4f\n", spending_name((enum spending)spending), t.families,
                      wrong);
        assert_at_most(spending_name((enum spending)spending), wrong, alpha + three_errors(alpha, t.families));
    }
}

static void the_pipeline_finds_a_difference_as_often_as_theory_says(void **state) {
    (void)state;
    static const size_t seeds[] = {3, 5};
    for (int k = 0; k < 2; k++) {
        size_t n = seeds[k], families = (size_t)found_suite.seeds / n, found = 0;
        for (size_t f = 0; f < families; f++) {
            struct comparison_table table;
            compare_part(&found_suite, NULL, 0, "found", f * n, n, &table);
            found += table.rows[1].verdict == VERDICT_BETTER;
            comparison_table_free(&table);
        }
        double theory = power_paired_t(effect_found / sd_of_differences(), n, alpha);
        double rate = (double)found / (double)families;
        print_message("%zu seeds, %zu families: power %.4f, theory %.4f\n", n, families, rate, theory);
        assert_near("power", rate, theory, 0.02);
    }
}

static void failures_come_at_the_declared_rate_and_are_counted(void **state) {
    struct comparison_table table;
    const size_t n = (size_t)null_suite.seeds;
    (void)state;
    compare_part(&null_suite, NULL, 0, "frail", 0, n, &table);
    assert_int_equal(table.rows[1].summary.n + table.rows[1].summary.failed, n);
    assert_near("failures", (double)table.rows[1].summary.failed / (double)n, 0.1, three_errors(0.1, n));
    comparison_table_free(&table);
}

/* Enough runs that several threads read them. */
static void every_run_gets_its_own_trace(void **state) {
    struct store *store;
    struct results all;
    char database[96];
    (void)state;
    snprintf(database, sizeof database, "%s/hinge.db", folder);
    expect_good(store_open(&store, database, STORE_READ));
    expect_good(store_load_results(store, "null", NULL, &all));
    store_close(store);
    assert_int_equal(all.run_count, null_suite.results.run_count);
    for (int i = 0; i < all.run_count; i++) {
        const struct result_run *run = &all.runs[i];
        if (strcmp(run->status, "done") != 0) continue;
        assert_int_equal(run->step_count, all.config.simulated_trace);
        assert_float_equal(run->trace[run->step_count - 1].loss, run->final_loss, 0);
        assert_float_equal(run->raw.value.bpb, null_suite.results.runs[i].raw.value.bpb, 0);
    }
    results_free(&all);
}

static void simulated_results_say_so(void **state) {
    (void)state;
    assert_non_null(simulated_note(&null_suite.results));
    null_suite.results.config.run_backend = BACKEND_CPU;
    assert_null(simulated_note(&null_suite.results));
    null_suite.results.config.run_backend = BACKEND_SIMULATED;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(family_wise_error_keeps_alpha),
        cmocka_unit_test(without_correction_ten_variants_break_alpha),
        cmocka_unit_test(intervals_cover_the_true_difference_as_often_as_they_say),
        cmocka_unit_test(power_is_within_two_points_of_theory),
        cmocka_unit_test(declared_looks_keep_alpha_and_undeclared_ones_break_it),
        cmocka_unit_test(correlation_and_spread_are_as_declared),
        cmocka_unit_test(the_pipeline_keeps_alpha_and_coverage),
        cmocka_unit_test(the_pipeline_keeps_alpha_over_declared_looks),
        cmocka_unit_test(the_pipeline_finds_a_difference_as_often_as_theory_says),
        cmocka_unit_test(failures_come_at_the_declared_rate_and_are_counted),
        cmocka_unit_test(every_run_gets_its_own_trace),
        cmocka_unit_test(simulated_results_say_so),
    };
    return cmocka_run_group_tests(tests, make_pipeline, remove_pipeline);
}
