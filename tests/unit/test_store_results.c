/* test_store_results: what comes back of the steps and results that were put in. */
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

#include "harness/store/internal.h"
#include "tests/unit/small_store.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

static void steps_from_the_first_given_on_are_replaced(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    const char *key = p->plan.stages[0].key;
    struct worker worker = me();
    struct step_record steps[6], *back;
    size_t count;
    int64_t below, tokens;
    double seconds;
    for (int i = 0; i < 6; i++) steps[i] = (struct step_record){i, 5.0 - i / 3.0, 1.0 - i / 7.0, 10.0, 128 + i};
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    claim(store, key, &worker);
    expect_good(store_put_steps(store, key, &worker, 0, steps, 5));
    steps[3].loss = 0.1;
    expect_good(store_put_steps(store, key, &worker, 3, steps + 3, 3));
    expect_good(store_steps(store, key, &back, &count));
    assert_int_equal(count, 6);
    assert_memory_equal(back, steps, sizeof steps); /* a step_record has no padding */
    expect_good(store_count_steps(store, key, 4, &below));
    assert_int_equal(below, 4);
    expect_good(store_step_totals(store, key, &seconds, &tokens));
    assert_true(fabs(seconds - 0.06) < 1e-12);
    assert_int_equal(tokens, 6 * 128 + 15);
    free(back);
    store_close(store);
    small_plan_free(p);
}

static void finish_stage(struct store *store, const char *key, struct stage_result result) {
    struct worker worker = me();
    struct provenance provenance = {.count = 2, .rows = {{"revision", "abc"}, {"threads", "1"}}};
    result.provenance = &provenance;
    assert_int_equal(claim(store, key, &worker), CLAIM_TAKEN);
    expect_good(store_finish(store, key, &worker, &result));
}

/* Every stage of the first run, done with made-up figures. */
static void finish_run(struct store *store, const struct plan *plan) {
    const struct plan_run *run = &plan->runs[0];
    struct evaluation evaluation = {.bpb = 2.5, .nll = 100, .nll_per_token = 4, .bytes = 58, .tokens = 25};
    struct artifact_sizes sizes = {.bytes = 1000, .raw_bytes = 1500, .sha256 = "a57"};
    evaluation.blocks[3] = (struct evaluation_block){7.5, 4, 2};
    sizes.class_bytes[CLASS_MLP] = 600;
    sizes.class_parameters[CLASS_MLP] = 800;
    const struct stage_result results[PART_COUNT] = {
        [PART_TRAIN] = {.seconds = 3,
                        .work = 1e9,
                        .parameter_count = 77,
                        .steps = 8,
                        .final_loss = 4.5,
                        .tokens_per_second = 340,
                        .weights_sha256 = "3e1",
                        .averaged_sha256 = "3e2",
                        .trace_sha256 = "7ace",
                        .notes = "the loss rose"},
        [PART_RAW] = {.evaluation = &evaluation},
        [PART_AVERAGE] = {.weights_sha256 = "3e2"},
        [PART_AVERAGED] = {.evaluation = &evaluation},
        [PART_QUANTISE] = {.sizes = &sizes, .notes = "a note", .quantise_seconds = 0.5, .calibration_seconds = 0.25},
        [PART_ARTIFACT] = {.evaluation = &evaluation},
    };
    for (int part = 0; part < PART_COUNT; part++)
        finish_stage(store, plan->stages[run->stages[part]].key, results[part]);
}

static void a_finished_run_comes_back_whole(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    finish_run(store, &p->plan);
    store_close(store);
    struct results r = load(RESULTS_ALL);
    const struct result_run *run = &r.runs[0];
    assert_string_equal(run->status, "done");
    assert_string_equal(r.runs[1].status, "pending");
    assert_int_equal(run->steps, 8);
    assert_int_equal(run->parameter_count, 77);
    assert_true(run->final_loss == 4.5 && run->train_seconds == 3 && run->tokens_per_second == 340);
    assert_string_equal(run->weights_sha256, "3e1");
    assert_string_equal(run->trace_sha256, "7ace");
    assert_true(run->raw.present && run->averaged.present && run->artifact.present);
    assert_true(run->artifact.value.bpb == 2.5 && run->artifact.value.blocks[3].nll == 7.5);
    assert_int_equal(run->sizes.bytes, 1000);
    assert_int_equal(run->sizes.class_bytes[CLASS_MLP], 600);
    assert_string_equal(run->artifact_notes, "a note");
    assert_string_equal(run->training_note, "the loss rose");
    assert_string_equal(r.runs[1].training_note, "");
    assert_true(run->quantise_seconds == 0.5 && run->calibration_seconds == 0.25);
    assert_int_equal(r.provenance_count, 2);
    assert_string_equal(r.provenance[0].value, "abc");
    assert_false(r.runs[1].raw.present);
    assert_true(isnan(r.runs[1].train_seconds));
    results_free(&r);
    small_plan_free(p);
}

/* What the stages of a run are, in their order, and what the run is then. */
static const struct {
    const char *stages[PART_COUNT], *run;
} states[] = {
    {{"pending", "pending", "pending", "pending", "pending", "pending"}, "pending"},
    {{"done", "pending", "pending", "pending", "pending", "pending"}, "pending"},
    {{"done", "done", "done", "done", "done", "pending"}, "pending"},
    {{"done", "done", "done", "done", "done", "done"}, "done"},
    {{"interrupted", "pending", "pending", "pending", "pending", "pending"}, "interrupted"},
    {{"done", "interrupted", "done", "pending", "pending", "pending"}, "interrupted"},
    {{"done", "running", "pending", "pending", "pending", "pending"}, "running"},
    {{"done", "running", "interrupted", "pending", "pending", "pending"}, "running"},
    {{"done", "interrupted", "running", "pending", "pending", "pending"}, "running"},
    {{"done", "failed", "running", "interrupted", "pending", "pending"}, "failed"},
    {{"done", "running", "failed", "interrupted", "pending", "pending"}, "failed"},
    {{"done", "interrupted", "done", "done", "done", "failed"}, "failed"},
};

static void set_state(const char *key, const char *state) {
    char sql[256];
    snprintf(sql, sizeof sql, "UPDATE stages SET status = '%s' WHERE key = '%s'", state, key);
    run_sql(small_path("r/hinge.db"), sql);
}

static void a_run_is_what_the_worst_of_its_stages_is_and_done_when_all_are(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    struct worker worker = me();
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    for (int part = 0; part < PART_COUNT; part++) /* a stage that runs has a worker who lives */
        claim(store, p->plan.stages[p->plan.runs[0].stages[part]].key, &worker);
    store_close(store);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        for (int part = 0; part < PART_COUNT; part++)
            set_state(p->plan.stages[p->plan.runs[0].stages[part]].key, states[i].stages[part]);
        struct results r = load(RESULTS_FIGURES);
        if (strcmp(r.runs[0].status, states[i].run) != 0)
            fail_msg("row %zu: %s, not %s", i, r.runs[0].status, states[i].run);
        results_free(&r);
    }
    small_plan_free(p);
}

/* Equal, and equal but for a name, for a value, and for where the one ends and the other begins. */
static void each_environment_is_kept_once(void **state) {
    (void)state;
    static const struct provenance environments[] = {
        {1, {{"cores", "12"}}}, {1, {{"cores", "12"}}}, {1, {{"corez", "12"}}},
        {1, {{"cores", "13"}}}, {1, {{"cores1", "2"}}}, {2, {{"cores", "12"}, {"gpu", "none"}}},
    };
    static const int64_t expected[] = {1, 1, 2, 3, 4, 5};
    struct store *store = open_store(STORE_WRITE);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int64_t id;
        expect_good(store_put_environment(store, &environments[i], &id));
        assert_int_equal(id, expected[i]);
    }
    store_close(store);
    assert_int_equal(ask("SELECT count(*) FROM provenance"), 6);
}

static void metrics_are_found_by_name_and_failed_runs_are_observed(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    struct worker worker = me();
    struct observation *observations;
    size_t count;
    double value;
    const char *second = p->plan.stages[p->plan.runs[1].stages[PART_TRAIN]].key;
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    finish_run(store, &p->plan);
    claim(store, second, &worker);
    expect_good(store_release(store, second, &worker, STAGE_FAILED, "diverged"));
    store_close(store);
    struct results r = load(RESULTS_FIGURES);
    expect_good(results_metric(&r, 0, "artifact_bytes", &value));
    assert_true(value == 1000);
    expect_good(results_metric(&r, 2, "bpb.raw", &value));
    assert_true(isnan(value));
    expect_failure(results_metric(&r, 0, "bpb.row", &value), "bpb.row", "bpb.raw", NULL);
    expect_good(results_observations(&r, "bpb.artifact", &observations, &count));
    assert_int_equal(count, 2);
    assert_true(observations[0].value == 2.5 && !observations[0].failed);
    assert_true(isnan(observations[1].value) && observations[1].failed);
    assert_string_equal(observations[1].variant, "wide");
    free(observations);
    results_free(&r);
    small_plan_free(p);
}

static void a_stage_done_in_one_suite_is_done_in_every_other(void **state) {
    (void)state;
    char *other = small_replace(small_suite, "name: small", "name: other");
    struct small_plan *p = small_plan_make(small_suite), *q = small_plan_make(other);
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    finish_run(store, &p->plan);
    expect_good(store_declare(store, &q->plan, &q->datasets));
    expect_good(plan_refresh(&q->plan, store));
    for (int part = 0; part < PART_COUNT; part++)
        assert_int_equal(q->plan.stages[q->plan.runs[0].stages[part]].state, STAGE_DONE);
    struct suite_summary *rows;
    int count;
    expect_good(store_list_suites(store, &rows, &count));
    assert_int_equal(count, 2);
    assert_string_equal(rows[1].name, "other");
    assert_int_equal(rows[1].runs, 4);
    assert_int_equal(rows[1].done, 1);
    assert_int_equal(rows[1].pending, 3);
    free(rows);
    store_close(store);
    small_plan_free(p);
    small_plan_free(q);
    free(other);
}

static double predicted(struct store *store, int lanes, double work) {
    double seconds;
    expect_good(store_predict_seconds(store, STAGE_TRAIN, "cpu", lanes, work, &seconds));
    return seconds;
}

static void the_time_of_a_stage_is_predicted_from_those_alike(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    finish_run(store, &p->plan);
    assert_true(fabs(predicted(store, 1, 2e9) - 6) < 1e-9);
    assert_true(isnan(predicted(store, 1, 2e12)) && isnan(predicted(store, 2, 2e9)));
    store_close(store);
    small_plan_free(p);
}

static void the_options_of_a_run_come_back_as_they_were(void **state) {
    (void)state;
    char *yaml = small_replace(small_suite, "{model.mlp_mult: 2}", "{quant.strategy: int8-rowwise, quant.bits: 5}");
    struct small_plan *p = small_plan_make(yaml);
    struct config config;
    struct run_details details;
    expect_good(declare(yaml));
    struct store *store = open_store(STORE_READ);
    expect_good(store_run_config(store, 2, &config));
    for (size_t i = 0; i < option_row_count; i++) {
        char before[512], after[512];
        option_text(&option_rows[i], &p->suite.variants[1].config, before);
        assert_string_equal(option_text(&option_rows[i], &config, after), before);
    }
    expect_good(store_run_details(store, 2, &details));
    assert_int_equal(details.stage_count, PART_COUNT);
    assert_int_equal(details.stages[PART_TRAIN].shared_by, 2);
    assert_string_equal(details.stages[PART_RAW].parent, details.stages[PART_TRAIN].key);
    run_details_free(&details);
    store_close(store);
    small_plan_free(p);
    free(yaml);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(steps_from_the_first_given_on_are_replaced),
        TEST(a_finished_run_comes_back_whole),
        TEST(a_run_is_what_the_worst_of_its_stages_is_and_done_when_all_are),
        TEST(each_environment_is_kept_once),
        TEST(metrics_are_found_by_name_and_failed_runs_are_observed),
        TEST(a_stage_done_in_one_suite_is_done_in_every_other),
        TEST(the_time_of_a_stage_is_predicted_from_those_alike),
        TEST(the_options_of_a_run_come_back_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
