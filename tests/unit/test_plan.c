/* test_plan: which runs share which stages, and what changes a key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/declaration.h"
#include "harness/simulated.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

static int count_kind(const struct plan *plan, enum stage_kind kind) {
    int count = 0;
    for (int i = 0; i < plan->stage_count; i++) count += plan->stages[i].kind == kind;
    return count;
}

static const char *key_of(const struct small_plan *p, int run, enum run_part part) {
    return p->plan.stages[p->plan.runs[run].stages[part]].key;
}

static void nine_strategies_over_five_seeds_train_five_models(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make("name: nine\npreset: small\nseeds: [1, 2, 3, 4, 5]\nbaseline: fp16\n"
                                           "metric: bpb.artifact\nvariants:\n"
                                           "  fp16: {quant.strategy: fp16}\n  int8: {quant.strategy: int8-rowwise}\n"
                                           "  b2: {quant.bits: 2}\n  b3: {quant.bits: 3}\n  b4: {quant.bits: 4}\n"
                                           "  b5: {quant.bits: 5}\n  g32: {quant.group: 32}\n  g64: {quant.group: 64}\n"
                                           "  clip: {quant.clip: search}\n");
    assert_int_equal(p->plan.run_count, 45);
    assert_int_equal(count_kind(&p->plan, STAGE_TRAIN), 5);
    assert_int_equal(count_kind(&p->plan, STAGE_AVERAGE), 5);
    assert_int_equal(count_kind(&p->plan, STAGE_QUANTISE), 45);
    assert_int_equal(count_kind(&p->plan, STAGE_EVALUATE), 5 + 5 + 45);
    assert_int_equal(p->plan.stages[p->plan.runs[0].stages[PART_TRAIN]].uses, 9);
    small_plan_free(p);
}

static void runs_come_in_blocks_of_every_variant_once_for_a_seed(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    const int variants[] = {0, 1, 0, 1}, seeds[] = {1, 1, 2, 2};
    assert_int_equal(p->plan.run_count, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(p->plan.runs[i].variant, variants[i]);
        assert_int_equal(p->plan.runs[i].seed, seeds[i]);
    }
    small_plan_free(p);
}

static void a_parent_stands_before_its_children(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    for (int i = 0; i < p->plan.stage_count; i++) {
        const struct plan_stage *stage = &p->plan.stages[i];
        assert_true(stage->parent < i);
        assert_int_equal(stage->parent < 0, stage->kind == STAGE_TRAIN);
        assert_int_equal(strlen(stage->key), 64);
    }
    small_plan_free(p);
}

static void equal_suites_have_equal_keys(void **state) {
    (void)state;
    struct small_plan *a = small_plan_make(small_suite), *b = small_plan_make(small_suite);
    for (int i = 0; i < a->plan.run_count; i++) assert_string_equal(a->plan.runs[i].key, b->plan.runs[i].key);
    small_plan_free(a);
    small_plan_free(b);
}

/* Which keys an option of a stage changes: those of the stage itself and of all that follow from it. */
static const bool changed_by[STAGE_KINDS][PART_COUNT] = {
    /* train, raw, average, averaged, quantise, artifact */
    [STAGE_TRAIN] = {true, true, true, true, true, true},
    [STAGE_AVERAGE] = {false, false, true, true, true, true},
    [STAGE_QUANTISE] = {false, false, false, false, true, true},
    [STAGE_EVALUATE] = {false, true, false, true, false, true},
};

/* Gives the option another value, whether or not it is allowed. */
static void change(struct config *config, const struct option_row *row) {
    char *field = (char *)config + row->offset;
    if (row->type == OPTION_INT) *(int64_t *)field += 1;
    if (row->type == OPTION_REAL) *(double *)field += 1e-9;
    if (row->type == OPTION_FLAG) *(bool *)field = !*(bool *)field;
    if (row->type == OPTION_CHOICE) *(int *)field = *(int *)field == 0;
    if (row->type == OPTION_TEXT) field[0] = '_';
    if (row->type == OPTION_LIST) ((struct int_list *)field)->values[((struct int_list *)field)->count++] = 7;
}

/* run.backend says what the others mean, and is the plan's backend; the dataset's hash stands for data.name. Where
 * figures are drawn from is of no training that is real. */
static void every_option_changes_the_keys_from_its_own_stage_on_and_no_other(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    const struct config before[] = {p->suite.variants[0].config, p->suite.variants[1].config};
    for (const struct option_row *row = option_rows; row < option_rows + option_row_count; row++) {
        struct plan after;
        if (strcmp(row->key, "run.backend") == 0 || strcmp(row->key, "data.name") == 0) continue;
        for (int v = 0; v < p->suite.variant_count; v++) change(&p->suite.variants[v].config, row);
        p->datasets.rows[0].vocab_size = (size_t)p->suite.variants[0].config.model_vocab_size;
        expect_good(plan_create(&after, &p->suite, &p->datasets, backend_find("cpu")));
        for (int part = 0; part < PART_COUNT; part++) {
            const char *key = after.stages[after.runs[0].stages[part]].key;
            bool expected = !option_of_source(row) && changed_by[row->stage][part];
            if ((strcmp(key_of(p, 0, part), key) != 0) != expected)
                fail_msg("%s: the key of %s %s", row->key, run_part_name(part), expected ? "stays" : "changes");
        }
        plan_free(&after);
        for (int v = 0; v < p->suite.variant_count; v++) p->suite.variants[v].config = before[v];
    }
    small_plan_free(p);
}

static void the_text_counts_and_not_its_name(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    struct plan other;
    struct dataset_list same = small_datasets("renamed", "da7a"), changed = small_datasets("small", "0ther");
    char *yaml = small_replace(small_suite, "preset: small", "preset: small\nset: {data.name: renamed}");
    struct suite renamed = small_suite_good(yaml);
    expect_good(plan_create(&other, &renamed, &same, backend_find("cpu")));
    assert_string_equal(other.runs[0].key, p->plan.runs[0].key);
    plan_free(&other);
    expect_good(plan_create(&other, &p->suite, &changed, backend_find("cpu")));
    assert_string_not_equal(other.stages[0].key, p->plan.stages[0].key);
    plan_free(&other);
    suite_free(&renamed);
    free(yaml);
    free(same.rows);
    free(changed.rows);
    small_plan_free(p);
}

static void a_tokenizer_of_another_size_is_refused_with_both_sizes(void **state) {
    (void)state;
    struct suite suite = small_suite_good(small_suite);
    struct dataset_list datasets = small_datasets("small", "da7a");
    struct plan plan;
    datasets.rows[0].vocab_size = 500;
    expect_failure(plan_create(&plan, &suite, &datasets, backend_find("cpu")), "suite.yaml:10:3", "400", "500", NULL);
    expect_failure(plan_create(&plan, &suite, &(struct dataset_list){0}, backend_find("cpu")), "small", NULL);
    free(datasets.rows);
    suite_free(&suite);
}

/* --- declarations ------------------------------------------------------------------------------------------------- */

static void the_declaration_names_all_that_was_decided(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    char *text = plan_declaration(&p->plan, &p->datasets);
    const char *const lines[] = {"suite: small\n",     "baseline: none\n",   "metric: bpb.artifact\n",
                                 "margin: 0.01\n",     "test: paired-t\n",   "alpha: 0.05\n",
                                 "correction: holm\n", "seeds: 1 2\n",       "dataset: small da7a",
                                 "variant: none\n",    "  train.steps: 8\n", "variant: wide\n  model.mlp_mult: 2\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) assert_non_null(strstr(text, lines[i]));
    free(text);
    small_plan_free(p);
}

static void a_difference_of_declarations_is_told_by_its_key(void **state) {
    (void)state;
    char out[256];
    declaration_difference("a: 1\noptions:\n  b: 2\n", "a: 1\noptions:\n  b: 2\n", out, sizeof out);
    assert_string_equal(out, "");
    declaration_difference("a: 1\noptions:\n  b: 2\n", "a: 1\noptions:\n  b: 3\n", out, sizeof out);
    assert_string_equal(out, "b was 2 and is 3");
    declaration_difference("a: 1\nb: 2\n", "a: 1\n", out, sizeof out);
    assert_string_equal(out, "b was 2 and is no longer set");
    declaration_difference("a: 1\n", "a: 1\nb: 2\n", out, sizeof out);
    assert_string_equal(out, "b is 2 and was not set");
}

/* --- estimates ---------------------------------------------------------------------------------------------------- */

static void an_estimate_counts_stages_and_says_what_the_design_can_show(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    struct plan_estimate e;
    expect_good(plan_estimate(&p->plan, NULL, 1, 1, &e));
    assert_int_equal(e.runs, 4);
    assert_int_equal(e.stages[STAGE_TRAIN], 4);
    assert_int_equal(e.done[STAGE_TRAIN], 0);
    assert_true(e.seconds_left > 0 && e.seconds_left == e.seconds_total);
    assert_false(e.measured);
    assert_true(e.gflops > 0);
    assert_true(memory_peak(&e.memory) > e.memory.process + 1000);
    assert_int_equal(e.family, 1);
    assert_true(e.can_be_significant);
    small_plan_free(p);
    char *yaml = small_replace(small_suite, "paired-t", "sign-flip");
    p = small_plan_make(yaml);
    expect_good(plan_estimate(&p->plan, NULL, 1, 1, &e));
    assert_true(e.attainable_p == 0.5);
    assert_false(e.can_be_significant);
    assert_int_equal(e.needed_seeds, 6);
    small_plan_free(p);
    free(yaml);
}

/* Drawn figures take a known time each: 4 runs of 6 stages. */
static void a_job_takes_the_next_run_as_soon_as_it_is_free(void **state) {
    (void)state;
    static const int jobs[] = {1, 2, 3, 4, 9}, runs_of_the_longest[] = {4, 2, 2, 1, 1};
    char *yaml = small_replace(small_suite, "preset: small", "preset: small\nset: {run.backend: simulated}");
    struct small_plan *p = small_plan_make(yaml);
    for (int i = 0; i < 5; i++) {
        struct plan_estimate e;
        expect_good(plan_estimate(&p->plan, NULL, jobs[i], 1, &e));
        assert_int_equal(e.jobs, jobs[i]);
        assert_float_equal(e.seconds_left, runs_of_the_longest[i] * PART_COUNT * SIMULATED_STAGE_SECONDS, 1e-9);
    }
    small_plan_free(p);
    free(yaml);
}

/* 64 times as many jobs, of one lane each: a long training takes each 64 times as long. Both estimates are of the rates
 * that the first of them timed, so that how busy the machine is does not count. */
static void jobs_that_share_the_cores_slow_each_other_down(void **state) {
    (void)state;
    char *yaml = small_replace(small_suite, "preset: small", "preset: small\nset: {train.steps: 1000000}");
    struct small_plan *p = small_plan_make(yaml);
    struct plan_estimate e;
    expect_good(plan_estimate(&p->plan, NULL, 256, 1, &e));
    double few = p->plan.stages[0].seconds;
    assert_true(e.seconds_timing > 0);
    expect_good(plan_estimate(&p->plan, NULL, 64 * 256, 1, &e));
    assert_true(e.seconds_timing == 0);
    assert_float_equal(p->plan.stages[0].seconds / few, 64, 1e-3);
    small_plan_free(p);
    free(yaml);
}

static void twice_the_steps_are_twice_the_work(void **state) {
    (void)state;
    struct plan_estimate e;
    char *yaml = small_replace(small_suite, "preset: small", "preset: small\nset: {train.steps: 16}");
    struct small_plan *a = small_plan_make(small_suite), *b = small_plan_make(yaml);
    expect_good(plan_estimate(&a->plan, NULL, 1, 1, &e));
    expect_good(plan_estimate(&b->plan, NULL, 1, 1, &e));
    assert_true(b->plan.stages[0].work == 2 * a->plan.stages[0].work);
    small_plan_free(a);
    small_plan_free(b);
    free(yaml);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(nine_strategies_over_five_seeds_train_five_models),
        TEST(runs_come_in_blocks_of_every_variant_once_for_a_seed),
        TEST(a_parent_stands_before_its_children),
        TEST(equal_suites_have_equal_keys),
        TEST(every_option_changes_the_keys_from_its_own_stage_on_and_no_other),
        TEST(the_text_counts_and_not_its_name),
        TEST(a_tokenizer_of_another_size_is_refused_with_both_sizes),
        TEST(the_declaration_names_all_that_was_decided),
        TEST(a_difference_of_declarations_is_told_by_its_key),
        TEST(an_estimate_counts_stages_and_says_what_the_design_can_show),
        TEST(a_job_takes_the_next_run_as_soon_as_it_is_free),
        TEST(jobs_that_share_the_cores_slow_each_other_down),
        TEST(twice_the_steps_are_twice_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
