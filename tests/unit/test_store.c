/* test_store: declarations and claims. */
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
#include "model/files.h"
#include "tests/unit/small_store.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

/* --- declarations ------------------------------------------------------------------------------------------------- */

static status check_only(const char *yaml) {
    struct small_plan *p = small_plan_make(yaml);
    struct store *store = open_store(STORE_READ);
    status s = store_check_declaration(store, &p->plan, &p->datasets);
    store_close(store);
    small_plan_free(p);
    return s;
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
    {"question: Is it so?", "question: Was it so?", {"question was 'Is it so?' and is 'Was it so?'"}},
    {"question: Is it so?\n", "", {"question was 'Is it so?' and is ''"}},
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

/* --- claims ------------------------------------------------------------------------------------------------------- */

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
