/* test_store: declarations, claims, and what comes back of what was put in. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/store.h"
#include "harness/store/database.h"
#include "model/files.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

static struct store *open_store(enum store_mode mode) {
    struct store *store;
    expect_good(store_open(&store, small_path("r/hinge.db"), mode));
    return store;
}

static void run_sql(const char *path, const char *sql) {
    struct database *db;
    expect_good(database_open(&db, path, true));
    expect_good(database_script(db, sql));
    database_close(db);
}

static int64_t ask(const char *sql) {
    struct database *db;
    int64_t value = -1;
    expect_good(database_open(&db, small_path("r/hinge.db"), false));
    expect_good(query_one_int(db, &value, NULL, sql, ""));
    database_close(db);
    return value;
}

/* --- declarations ----------------------------------------------------------------------------------------------------
 */

static status declare(const char *yaml) {
    struct small_plan *p = small_plan_make(yaml);
    struct store *store = open_store(STORE_WRITE);
    status s = store_declare(store, &p->plan, &p->datasets);
    store_close(store);
    small_plan_free(p);
    return s;
}

static status check_only(const char *yaml) {
    struct small_plan *p = small_plan_make(yaml);
    struct store *store = open_store(STORE_READ);
    status s = store_check_declaration(store, &p->plan, &p->datasets);
    store_close(store);
    small_plan_free(p);
    return s;
}

static struct results load(enum results_detail detail) {
    struct results results;
    struct store *store = open_store(STORE_READ);
    expect_good(store_load_results_at(store, "small", NULL, detail, &results));
    store_close(store);
    return results;
}

static void declaring_twice_changes_nothing(void **state) {
    (void)state;
    expect_good(declare(small_suite));
    int64_t stages = ask("SELECT count(*) FROM stages"), runs = ask("SELECT count(*) FROM runs");
    expect_good(declare(small_suite));
    expect_good(check_only(small_suite));
    assert_int_equal(ask("SELECT count(*) FROM stages"), stages);
    assert_int_equal(ask("SELECT count(*) FROM runs"), runs);
    assert_int_equal(runs, 4);
    assert_int_equal(ask("SELECT count(*) FROM run_options WHERE run = 1"), option_row_count);
    assert_int_equal(ask("SELECT count(*) FROM run_stages"), 4 * PART_COUNT);
}

static void what_was_declared_comes_back(void **state) {
    (void)state;
    expect_good(declare(small_suite));
    struct results r = load(RESULTS_ALL);
    assert_string_equal(r.suite, "small");
    assert_string_equal(r.question, "Is it so?");
    assert_string_equal(r.metric, "bpb.artifact");
    assert_string_equal(r.design.baseline, "none");
    assert_true(r.design.alpha == 0.05 && r.design.margin == 0.01);
    assert_string_equal(r.dataset_sha256, "da7a");
    assert_true(fabs(r.unigram_bpb - 5 / log(2) / 2) < 1e-12);
    assert_int_equal(r.config.train_steps, 8);
    assert_int_equal(r.variant_count, 2);
    assert_string_equal(r.variants[1].overrides, "model.mlp_mult=2");
    assert_int_equal(r.seed_count, 2);
    assert_int_equal(r.run_count, 4);
    assert_string_equal(r.runs[0].status, "pending");
    assert_string_equal(r.runs[0].strategy, "int6-gptq");
    assert_true(r.closed_early);
    char hash[65];
    bytes_sha256(r.declaration, strlen(r.declaration), hash);
    assert_string_equal(r.declaration_sha256, hash);
    results_free(&r);
}

static void seeds_and_variants_added_later_are_marked_late(void **state) {
    (void)state;
    char *seeds = small_replace(small_suite, "[1, 2]", "[3, 1, 2]");
    char *more = small_replace(seeds, "variants:\n", "variants:\n  deep: {model.layers: 3}\n");
    expect_good(declare(small_suite));
    expect_good(check_only(more));
    expect_good(declare(more));
    struct results r = load(RESULTS_FIGURES);
    assert_int_equal(r.variant_count, 3);
    assert_false(r.variants[0].late || r.variants[1].late);
    assert_true(r.variants[2].late);
    assert_string_equal(r.variants[2].name, "deep");
    assert_string_equal(r.design.baseline, "none");
    assert_int_equal(r.seeds[2], 3);
    assert_int_equal(r.run_count, 9);
    for (int i = 0; i < r.run_count; i++)
        assert_int_equal(r.runs[i].late, r.runs[i].seed == 3 || r.runs[i].variant == 2);
    results_free(&r);
    expect_good(declare(more));
    free(seeds);
    free(more);
}

/* The small suite with one text replaced, and what the refusal must hold. */
static const struct {
    const char *from, *to, *words[3];
} changes[] = {
    {"preset: small", "preset: small\nset: {train.steps: 9}", {"train.steps was 8 and is 9", "another name", "--db"}},
    {"margin: 0.01", "margin: 0.02", {"margin was 0.01 and is 0.02"}},
    {"baseline: none", "baseline: wide", {"baseline was none and is wide"}},
    {"alpha: 0.05", "alpha: 0.01", {"alpha was 0.05 and is 0.01"}},
    {"bpb.artifact", "bpb.raw", {"metric was bpb.artifact and is bpb.raw"}},
    {"model.mlp_mult: 2", "model.mlp_mult: 3", {"variant wide: model.mlp_mult was 2 and is 3"}},
    {"{model.mlp_mult: 2}", "{}", {"variant wide: model.mlp_mult was 2 and is no longer set"}},
    {"  wide: {model.mlp_mult: 2}\n", "", {"variant wide is missing now"}},
    {"seeds: [1, 2]", "seeds: [1, 3]", {"seed 2 is missing now"}},
};

static void a_changed_suite_is_refused_with_what_differs_and_changes_nothing(void **state) {
    (void)state;
    expect_good(declare(small_suite));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char *yaml = small_replace(small_suite, changes[i].from, changes[i].to);
        expect_failure(declare(yaml), "small was declared otherwise on 20", changes[i].words[0], changes[i].words[1],
                       changes[i].words[2], NULL);
        expect_failure(check_only(yaml), changes[i].words[0], NULL);
        free(yaml);
    }
    assert_int_equal(ask("SELECT count(*) FROM runs"), 4);
    assert_int_equal(ask("SELECT count(*) FROM seeds"), 2);
}

static void an_unknown_suite_is_answered_with_those_there_are(void **state) {
    (void)state;
    struct results r;
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_READ);
    expect_failure(store_load_results(store, "smell", NULL, &r), "smell", "it has: small", NULL);
    expect_failure(store_load_results(store, "small", "tiny", &r), "at scale tiny", NULL);
    expect_failure(store_load_run(store, 99, &r), "no run 99", NULL);
    store_close(store);
}

/* --- claims ----------------------------------------------------------------------------------------------------------
 */

static struct worker me(void) {
    struct worker worker;
    worker_current(&worker);
    return worker;
}

static enum claim claim(struct store *store, const char *key, const struct worker *worker) {
    enum claim result;
    expect_good(store_claim(store, key, worker, &result));
    return result;
}

/* Claims every stage; writes to the pipe how many it got. */
static void claim_all(const struct plan *plan, int pipe_end) {
    struct worker worker = me();
    struct store *store = open_store(STORE_WRITE);
    int got = 0;
    for (int i = 0; i < plan->stage_count; i++) got += claim(store, plan->stages[i].key, &worker) == CLAIM_TAKEN;
    store_close(store);
    assert_int_equal(write(pipe_end, &got, sizeof got), sizeof got);
    pause(); /* alive until all have claimed */
    _exit(0);
}

static void every_stage_goes_to_one_of_many_processes(void **state) {
    (void)state;
    enum { PROCESSES = 6 };
    struct small_plan *p = small_plan_make(small_suite);
    int ends[2], total = 0;
    pid_t pids[PROCESSES];
    expect_good(declare(small_suite));
    assert_int_equal(pipe(ends), 0);
    for (int i = 0; i < PROCESSES; i++)
        if ((pids[i] = fork()) == 0) claim_all(&p->plan, ends[1]);
    for (int i = 0, got; i < PROCESSES; i++) {
        assert_int_equal(read(ends[0], &got, sizeof got), sizeof got);
        total += got;
    }
    assert_int_equal(total, p->plan.stage_count);
    for (int i = 0; i < PROCESSES; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    struct store *store = open_store(STORE_WRITE);
    struct worker worker = me();
    assert_int_equal(claim(store, p->plan.stages[0].key, &worker), CLAIM_TAKEN_OVER);
    store_close(store);
    small_plan_free(p);
}

static void a_worker_whose_stage_was_taken_over_can_write_nothing(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    const char *key = p->plan.stages[0].key;
    struct worker one = me(), other = me();
    const struct step_record step = {0, 5.0, 1.0, 10.0, 128};
    snprintf(other.name, sizeof other.name, "elsewhere:1:1");
    snprintf(other.host, sizeof other.host, "elsewhere");
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    assert_int_equal(claim(store, key, &other), CLAIM_TAKEN);
    assert_int_equal(claim(store, key, &one), CLAIM_BUSY); /* a fresh heartbeat of another host */
    run_sql(small_path("r/hinge.db"), "UPDATE stages SET heartbeat = heartbeat - 1000");
    assert_int_equal(claim(store, key, &one), CLAIM_TAKEN_OVER);
    expect_failure(store_heartbeat(store, key, &other), "taken over", NULL);
    expect_failure(store_put_steps(store, key, &other, 0, &step, 1), "taken over", NULL);
    expect_failure(store_release(store, key, &other, STAGE_FAILED, "no"), "taken over", NULL);
    expect_good(store_heartbeat(store, key, &one));
    expect_good(store_put_steps(store, key, &one, 0, &step, 1));
    store_close(store);
    small_plan_free(p);
}

static void a_failed_stage_stays_failed_until_it_is_tried_again(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    const char *key = p->plan.stages[0].key;
    struct worker worker = me();
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    assert_int_equal(claim(store, key, &worker), CLAIM_TAKEN);
    expect_good(store_release(store, key, &worker, STAGE_FAILED, "step 3: the loss is nan"));
    assert_int_equal(claim(store, key, &worker), CLAIM_FAILED);
    struct results r = load(RESULTS_FIGURES);
    assert_string_equal(r.runs[0].status, "failed");
    assert_string_equal(r.runs[0].error, "step 3: the loss is nan");
    results_free(&r);
    expect_good(store_retry(store, key));
    assert_int_equal(claim(store, key, &worker), CLAIM_TAKEN);
    store_close(store);
    small_plan_free(p);
}

/* --- steps and results -----------------------------------------------------------------------------------------------
 */

static void steps_from_the_first_given_on_are_replaced(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    const char *key = p->plan.stages[0].key;
    struct worker worker = me();
    struct step_record steps[6], *back;
    size_t count;
    int64_t below, tokens;
    double seconds;
    for (int i = 0; i < 6; i++) steps[i] = (struct step_record){i, 5.0 - i / 3.0, 1.0, 10.0, 128};
    expect_good(declare(small_suite));
    struct store *store = open_store(STORE_WRITE);
    claim(store, key, &worker);
    expect_good(store_put_steps(store, key, &worker, 0, steps, 5));
    steps[3].loss = 0.1;
    expect_good(store_put_steps(store, key, &worker, 3, steps + 3, 3));
    expect_good(store_steps(store, key, &back, &count));
    assert_int_equal(count, 6);
    for (int i = 0; i < 6; i++) assert_memory_equal(&back[i].loss, &steps[i].loss, sizeof(double));
    expect_good(store_count_steps(store, key, 4, &below));
    assert_int_equal(below, 4);
    expect_good(store_step_totals(store, key, &seconds, &tokens));
    assert_true(fabs(seconds - 0.06) < 1e-12);
    assert_int_equal(tokens, 6 * 128);
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
                        .trace_sha256 = "7ace"},
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
    assert_true(run->quantise_seconds == 0.5 && run->calibration_seconds == 0.25);
    assert_int_equal(r.provenance_count, 2);
    assert_string_equal(r.provenance[0].value, "abc");
    assert_false(r.runs[1].raw.present);
    assert_true(isnan(r.runs[1].train_seconds));
    results_free(&r);
    small_plan_free(p);
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

static void a_batch_is_kept_or_undone_as_a_whole(void **state) {
    (void)state;
    struct small_plan *p = small_plan_make(small_suite);
    struct store *store = open_store(STORE_WRITE);
    struct worker worker;
    enum claim claim;
    worker_current(&worker);
    expect_good(store_declare(store, &p->plan, &p->datasets));
    for (int keep = 0; keep <= 1; keep++) {
        expect_good(store_batch_begin(store));
        expect_good(store_claim(store, p->plan.stages[0].key, &worker, &claim));
        assert_int_equal(claim, CLAIM_TAKEN);
        /* What fails inside is undone alone. */
        expect_failure(store_release(store, p->plan.stages[1].key, &worker, STAGE_PENDING, NULL), "taken over", NULL);
        assert_int_equal(ask("SELECT count(*) FROM stages WHERE status = 'running'"), 0);
        if (keep)
            expect_good(store_batch_end(store, NULL));
        else
            expect_failure(store_batch_end(store, status_new(STATUS_SYSTEM, "as asked")), "as asked", NULL);
        assert_int_equal(ask("SELECT count(*) FROM stages WHERE status = 'running'"), keep);
    }
    store_close(store);
    small_plan_free(p);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(a_batch_is_kept_or_undone_as_a_whole),
        TEST(declaring_twice_changes_nothing),
        TEST(what_was_declared_comes_back),
        TEST(seeds_and_variants_added_later_are_marked_late),
        TEST(a_changed_suite_is_refused_with_what_differs_and_changes_nothing),
        TEST(an_unknown_suite_is_answered_with_those_there_are),
        TEST(every_stage_goes_to_one_of_many_processes),
        TEST(a_worker_whose_stage_was_taken_over_can_write_nothing),
        TEST(a_failed_stage_stays_failed_until_it_is_tried_again),
        TEST(steps_from_the_first_given_on_are_replaced),
        TEST(a_finished_run_comes_back_whole),
        TEST(metrics_are_found_by_name_and_failed_runs_are_observed),
        TEST(a_stage_done_in_one_suite_is_done_in_every_other),
        TEST(the_time_of_a_stage_is_predicted_from_those_alike),
        TEST(the_options_of_a_run_come_back_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
