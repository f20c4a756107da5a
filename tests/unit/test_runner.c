/* test_runner: whole suites on a model that trains in milliseconds; killed, stopped, shared, damaged, repeated. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/runner.h"
#include "harness/store/database.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

static char data_root[256]; /* prepared once for all tests */

static int prepare_data(void **state) {
    /* One lane: children of this process train too, and OpenMP's threads do not survive a fork. */
    backend_find("cpu")->limit_lanes(1);
    if (small_folder_make(state)) return 1;
    snprintf(data_root, sizeof data_root, "%s", small_path("%s", ""));
    char *text = small_text(1, 120);
    small_write(small_path("text"), text, strlen(text));
    free(text);
    expect_good(dataset_prepare(&(struct prepare_request){
        .root = data_root, .name = "small", .text = small_path("text"), .vocab_size = 400, .held_out = 0.1}));
    return 0;
}

static int remove_data(void **state) {
    (void)state;
    return small_remove(data_root);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

struct session {
    struct suite suite;
    struct dataset_list datasets;
    struct plan plan;
    char database[600];
    struct runner_request request;
    struct runner_summary summary;
    int reports, stop_after, messages; /* stop_after 0: never */
    int64_t first_done;                /* of the first report */
    double seconds_left;               /* of the suite, by the last report */
    pid_t process;                     /* that made it */
    char message[1024];
};

static void count_report(void *context, const struct runner_progress *progress) {
    struct session *s = context;
    assert_true(progress->run >= 1 && progress->run <= progress->run_count);
    if (s->reports++ == 0) s->first_done = progress->done;
    s->seconds_left = progress->suite_seconds_left;
}

static void keep_message(void *context, const char *line) {
    struct session *s = context;
    s->messages++;
    snprintf(s->message, sizeof s->message, "%s", line);
}

static bool stop_asked(void *context) {
    struct session *s = context;
    return s->stop_after && --s->stop_after == 0;
}

static struct session *session_make(const char *yaml, const char *database) {
    struct session *s = calloc(1, sizeof *s);
    s->suite = small_suite_good(yaml);
    expect_good(datasets_open(&s->datasets, &s->suite, data_root));
    expect_good(plan_create(&s->plan, &s->suite, &s->datasets, backend_find("cpu")));
    s->process = getpid();
    snprintf(s->database, sizeof s->database, "%s", small_path("%s/hinge.db", database));
    s->request = (struct runner_request){
        .database = s->database, .plan = &s->plan, .jobs = 1, .callbacks = {s, count_report, keep_message, stop_asked}};
    return s;
}

static void session_free(struct session *s) {
    plan_free(&s->plan);
    datasets_close(&s->datasets);
    suite_free(&s->suite);
    free(s);
}

static status session_run(struct session *s) { return runner_run(&s->request, &s->summary); }

static struct results load(const struct session *s) {
    struct results results;
    struct store *store;
    expect_good(store_open(&store, s->database, STORE_READ));
    expect_good(store_load_results(store, "small", NULL, &results));
    store_close(store);
    return results;
}

static void run_sql(const struct session *s, const char *sql) {
    struct database *db;
    expect_good(database_open(&db, s->database, true));
    expect_good(database_script(db, sql));
    database_close(db);
}

static int64_t ask(const struct session *s, const char *sql) {
    struct database *db;
    int64_t value = -1;
    expect_good(database_open(&db, s->database, false));
    expect_good(query_one_int(db, &value, NULL, sql, ""));
    database_close(db);
    return value;
}

/* Everything that must not depend on how a suite came to its end. */
static void assert_same_results(const struct results *a, const struct results *b) {
    assert_int_equal(a->run_count, b->run_count);
    for (int i = 0; i < a->run_count; i++) {
        const struct result_run *x = &a->runs[i], *y = &b->runs[i];
        assert_string_equal(x->status, "done");
        assert_string_equal(y->status, "done");
        assert_string_equal(x->weights_sha256, y->weights_sha256);
        assert_string_equal(x->trace_sha256, y->trace_sha256);
        assert_string_equal(x->sizes.sha256, y->sizes.sha256);
        assert_true(x->raw.value.bpb == y->raw.value.bpb && x->averaged.value.bpb == y->averaged.value.bpb);
        assert_true(x->artifact.value.bpb == y->artifact.value.bpb);
        assert_int_equal(x->step_count, y->step_count);
        for (size_t k = 0; k < x->step_count; k++) {
            assert_int_equal(x->trace[k].step, k);
            assert_memory_equal(&x->trace[k].loss, &y->trace[k].loss, sizeof(double));
        }
    }
}

static struct results reference(void) {
    struct session *s = session_make(small_suite, "reference");
    expect_good(session_run(s));
    struct results results = load(s);
    session_free(s);
    return results;
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

static const char *provenance_of(const struct results *r, const char *name) {
    for (int i = 0; i < r->provenance_count; i++)
        if (strcmp(r->provenance[i].name, name) == 0) return r->provenance[i].value;
    return "";
}

static void a_suite_runs_to_its_end_and_a_second_call_does_nothing(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    expect_good(session_run(s));
    assert_int_equal(s->summary.runs, 4);
    assert_int_equal(s->summary.done, 4);
    assert_int_equal(s->summary.failed, 0);
    assert_int_equal(s->summary.stages_run, s->plan.stage_count);
    assert_int_equal(s->summary.stages_reused, 0);
    assert_true(s->reports >= s->plan.stage_count);
    struct results r = load(s);
    assert_false(r.closed_early);
    assert_int_equal(r.runs[0].step_count, 8);
    assert_true(r.runs[0].raw.value.bpb > 0 && r.runs[0].raw.value.bpb < 20);
    assert_true(r.runs[0].sizes.bytes > 0);
    assert_true(r.provenance_count > 10);
    assert_string_equal(provenance_of(&r, "jobs"), "1");
    results_free(&r);
    s->reports = 0;
    expect_good(session_run(s));
    assert_int_equal(s->summary.stages_run, 0);
    assert_int_equal(s->summary.stages_reused, s->plan.stage_count);
    assert_int_equal(s->reports, 0);
    session_free(s);
}

static void a_stopped_suite_goes_on_to_the_same_bits(void **state) {
    (void)state;
    struct results expected = reference();
    struct session *s = session_make(small_suite, "r");
    int stops = 0;
    for (int after = 2;; after += 3) {
        s->stop_after = after;
        status failed = session_run(s);
        if (!failed) break;
        assert_int_equal(status_kind(failed), STATUS_INTERRUPTED);
        expect_failure(failed, "stopped: ", "of 4 runs are done", "goes on", NULL);
        stops++;
    }
    assert_true(stops >= 3);
    struct results found = load(s);
    assert_same_results(&expected, &found);
    results_free(&found);
    results_free(&expected);
    session_free(s);
}

static void a_resumed_training_goes_on_after_the_last_step_kept(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    s->stop_after = 5;
    expect_failure(session_run(s), "stopped", NULL);
    int64_t kept = ask(s, "SELECT count(*) FROM steps");
    assert_true(kept > 0 && kept < 8);
    s->reports = 0;
    expect_good(session_run(s));
    assert_int_equal(s->first_done, kept + 1);
    session_free(s);
}

static void a_killed_suite_goes_on_to_the_same_bits(void **state) {
    (void)state;
    struct results expected = reference();
    struct session *s = session_make(small_suite, "r");
    s->request.checkpoint_seconds = 1e-4;
    int kills = 0;
    for (int round = 0;; round++) {
        pid_t child = fork();
        if (child == 0) _exit(session_run(s) != NULL);
        const long microseconds = 3000 + round * 7919 % 40000;
        nanosleep(&(struct timespec){.tv_nsec = 1000 * microseconds}, NULL);
        int result;
        if (round < 25) kill(child, SIGKILL);
        waitpid(child, &result, 0);
        kills += WIFSIGNALED(result);
        if (WIFSIGNALED(result)) continue;
        assert_int_equal(WEXITSTATUS(result), 0);
        break;
    }
    assert_true(kills >= 3);
    assert_int_equal(ask(s, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"), 0);
    struct results found = load(s);
    assert_same_results(&expected, &found);
    results_free(&found);
    results_free(&expected);
    session_free(s);
}

static void several_workers_come_to_the_same_bits_and_do_nothing_twice(void **state) {
    (void)state;
    struct results expected = reference();
    struct session *s = session_make(small_suite, "r");
    s->request.jobs = 3;
    expect_good(session_run(s));
    assert_int_equal(s->summary.stages_run, s->plan.stage_count);
    assert_true(s->reports >= s->plan.stage_count);
    assert_int_equal(s->messages, 0); /* no stage was taken over */
    struct results found = load(s);
    assert_same_results(&expected, &found);
    results_free(&found);
    results_free(&expected);
    session_free(s);
}

/* A device that takes the longer to open the lower the worker's number is. */
static void open_late(int number) { usleep((useconds_t)(150000 * (2 - number))); }

static int trained_by[3]; /* by run: each of small_suite's has a training */

static void note_trainer(void *context, const struct runner_progress *progress) {
    count_report(context, progress);
    if (progress->part == PART_TRAIN && progress->run <= 3) trained_by[progress->run - 1] = progress->worker;
}

static void workers_take_their_first_stages_in_their_order_whoever_is_ready_first(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    struct backend late = *s->plan.ops;
    late.choose_device = open_late;
    s->plan.ops = &late;
    s->request.jobs = 3;
    s->request.callbacks.progress = note_trainer;
    expect_good(session_run(s));
    for (int i = 0; i < 3; i++) assert_int_equal(trained_by[i], i);
    session_free(s);
}

/* As if another worker had done all of the last seed while this one was at its first stage. */
static void another_does_the_last_seed(void *context, const struct runner_progress *progress) {
    struct session *s = context;
    count_report(context, progress);
    if (s->reports > 1) return;
    assert_true(s->seconds_left > 1e6);
    run_sql(s, "UPDATE stages SET status = 'done' WHERE seed = 6");
}

/* By the last report the others' part, which would take for ever, is known to be done. */
static void what_other_workers_did_is_not_left(void **state) {
    (void)state;
    char yaml[1024];
    const char *seeds = strstr(small_suite, "[1, 2]");
    snprintf(yaml, sizeof yaml, "%.*s[1, 2, 3, 4, 5, 6]%s", (int)(seeds - small_suite), small_suite, seeds + 6);
    struct session *s = session_make(yaml, "r");
    s->request.callbacks.progress = another_does_the_last_seed;
    for (int i = 0; i < s->plan.stage_count; i++) s->plan.stages[i].seconds = s->plan.stages[i].seed == 6 ? 1e9 : 1e-3;
    expect_good(session_run(s));
    if (!(s->seconds_left < 1e6)) fail_msg("%g s left at the end", s->seconds_left);
    session_free(s);
}

static bool end_of_a_worker(void *context) {
    const struct session *s = context;
    if (getpid() != s->process) _exit(STATUS_SYSTEM);
    return false;
}

static void workers_that_end_in_the_middle_of_their_work_are_no_success(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    s->request.jobs = 2;
    s->request.callbacks.stop = end_of_a_worker;
    status failed = session_run(s);
    assert_non_null(failed);
    assert_int_equal(status_kind(failed), STATUS_SYSTEM);
    assert_non_null(strstr(status_text(failed), "of 2 ended with status 4"));
    status_free(failed);
    assert_int_equal(s->messages, 2);
    session_free(s);
}

static void two_runners_on_one_database_share_the_stages(void **state) {
    (void)state;
    struct results expected = reference();
    struct session *s = session_make(small_suite, "r");
    int ends[2], theirs;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        status failed = session_run(s);
        ssize_t written = write(ends[1], &s->summary.stages_run, sizeof(int));
        _exit(failed || written != sizeof(int));
    }
    expect_good(session_run(s));
    assert_int_equal(read(ends[0], &theirs, sizeof theirs), sizeof theirs);
    waitpid(child, NULL, 0);
    assert_int_equal(s->summary.stages_run + theirs, s->plan.stage_count);
    assert_int_equal(s->messages, 0);
    struct results found = load(s);
    assert_same_results(&expected, &found);
    results_free(&found);
    results_free(&expected);
    session_free(s);
}

/* As if another build, alive, had claimed the trainings of the second seed after this one's first report. */
static void another_build_comes(void *context, const struct runner_progress *progress) {
    struct session *s = context;
    struct worker other;
    char sql[1024];
    (void)progress;
    if (s->reports++ > 0) return;
    worker_current(&other);
    snprintf(sql, sizeof sql,
             "INSERT INTO environments (id, sha256) VALUES (99, 'other');"
             "INSERT INTO provenance VALUES (99, 0, 'program', '937b');"
             "UPDATE stages SET status = 'running', worker = '%s', host = '%s', pid = %lld, environment = 99 "
             "WHERE kind = 'train' AND seed = 2",
             other.name, other.host, (long long)other.pid);
    run_sql(s, sql);
}

static void of_two_builds_at_once_one_is_refused(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    s->request.callbacks.progress = another_build_comes;
    status failed = session_run(s);
    assert_int_equal(status_kind(failed), STATUS_USAGE);
    expect_failure(failed, "2 of its stages were made by another build: program was 937b and is ", "at work on 2 now",
                   "--mix-builds", NULL);
    assert_int_equal(ask(s, "SELECT count(*) FROM stages WHERE status = 'done'"), 1);
    assert_int_equal(ask(s, "SELECT count(*) FROM stages WHERE status = 'running'"), 2); /* the other's */
    run_sql(s, "UPDATE stages SET pid = 1 WHERE status = 'running'"); /* it has ended: what it began is no result */
    expect_good(session_run(s));
    assert_int_equal(ask(s, "SELECT count(DISTINCT environment) FROM stages"), 1);
    session_free(s);
}

static void stop_at_message(void *context, const char *line) {
    struct session *s = context;
    keep_message(context, line);
    s->stop_after = 1;
}

static void where_builds_may_be_mixed_one_waits_for_the_other_and_says_for_whom(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    char who[64];
    s->request.callbacks.progress = another_build_comes;
    s->request.callbacks.message = stop_at_message; /* the other build never ends */
    s->stop_after = 400;
    s->request.mix_builds = true;
    expect_failure(session_run(s), "stopped: 2 of 4 runs are done", NULL);
    snprintf(who, sizeof who, "kill -KILL %lld", (long long)getpid());
    assert_int_equal(s->messages, 1);
    expect_failure(status_new(STATUS_SYSTEM, "%s", s->message), "waiting for ", "none seed 2: train", who, NULL);
    session_free(s);
}

/* After the first report the database is gone, which the next sign of life notices. */
static void delete_the_database(void *context, const struct runner_progress *progress) {
    struct session *s = context;
    (void)progress;
    if (s->reports++ > 0) return;
    assert_int_equal(unlink(s->database), 0);
    nanosleep(&(struct timespec){.tv_sec = 5, .tv_nsec = 100000000}, NULL);
}

static void a_deleted_database_ends_the_work_at_once(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    s->request.callbacks.progress = delete_the_database;
    status failed = session_run(s);
    assert_int_equal(status_kind(failed), STATUS_SYSTEM);
    expect_failure(failed, "r/hinge.db: was deleted or moved while it was in use", NULL);
    assert_int_equal(s->reports, 2); /* of the step that was at work, and the one whose sign of life was due */
    assert_int_equal(access(s->database, F_OK), -1);
    session_free(s);
}

static void replace_the_database(void *context, const struct runner_progress *progress) {
    struct session *s = context;
    (void)progress;
    if (s->reports++ > 0) return;
    assert_int_equal(rename(s->database, small_path("r/old.db")), 0);
    small_write(s->database, "", 0);
}

static void a_replaced_database_ends_the_work_with_its_stage(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    s->request.callbacks.progress = replace_the_database;
    status failed = session_run(s);
    assert_int_equal(status_kind(failed), STATUS_SYSTEM);
    expect_failure(failed, "r/hinge.db: was replaced by another file while it was in use", NULL);
    assert_int_equal(s->summary.stages_run, 0);
    session_free(s);
}

static void a_run_that_diverges_is_marked_and_the_others_go_on(void **state) {
    (void)state;
    char *yaml = small_replace(small_suite, "{model.mlp_mult: 2}",
                               "{optim.muon_rate: 10, optim.adam_rate: 10, optim.embedding_rate: 10, "
                               "optim.muon_decay: 10, train.steps: 400, train.warmdown: 0}");
    struct session *s = session_make(yaml, "r");
    expect_good(session_run(s));
    assert_int_equal(s->summary.done, 2);
    assert_int_equal(s->summary.failed, 2);
    assert_non_null(strstr(s->message, "wide seed 2: train failed: "));
    struct results r = load(s);
    assert_string_equal(r.runs[0].status, "done");
    assert_string_equal(r.runs[1].status, "failed");
    assert_true(strlen(r.runs[1].error) > 0);
    results_free(&r);
    session_free(s);
    free(yaml);
}

static void stage_file(const struct session *s, int stage, const char *name, char path[4096]) {
    struct store *store;
    expect_good(store_open(&store, s->database, STORE_READ));
    expect_good(store_file(store, s->plan.stages[stage].key, name, false, path));
    store_close(store);
}

static void flip_bit_near_the_end(const char *path) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, -5, SEEK_END);
    int byte = fgetc(file);
    fseek(file, -5, SEEK_END);
    fputc(byte ^ 1, file);
    fclose(file);
}

static int stage_of(const struct session *s, int run, enum run_part part) { return s->plan.runs[run].stages[part]; }

static void damaged_and_missing_files_are_named_and_made_again(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    char path[4096];
    expect_good(session_run(s));
    struct results expected = load(s);
    const struct {
        enum run_part part;
        const char *name;
        bool missing;
    } faults[] = {{PART_TRAIN, "weights.safetensors", false},
                  {PART_TRAIN, "averaged.safetensors", true},
                  {PART_QUANTISE, "artifact.xz", false},
                  {PART_QUANTISE, "artifact.xz", true}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        stage_file(s, stage_of(s, 1, faults[i].part), faults[i].name, path);
        if (faults[i].missing)
            assert_int_equal(unlink(path), 0);
        else
            flip_bit_near_the_end(path);
        run_sql(s, "UPDATE stages SET status = 'pending' WHERE kind = 'evaluate'");
        s->messages = 0;
        expect_good(session_run(s));
        assert_int_equal(s->messages, 1);
        assert_non_null(strstr(s->message, faults[i].name));
        assert_int_equal(s->summary.done, 4);
        struct results found = load(s);
        assert_same_results(&expected, &found);
        results_free(&found);
    }
    results_free(&expected);
    session_free(s);
}

static void a_file_that_comes_out_different_again_fails_its_run(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    expect_good(session_run(s));
    run_sql(s, "UPDATE stages SET weights_sha256 = 'other' WHERE kind = 'average'");
    run_sql(s, "UPDATE stages SET status = 'pending' WHERE kind = 'evaluate'");
    expect_good(session_run(s));
    assert_int_equal(s->summary.failed, 4);
    assert_non_null(strstr(s->message, "averaged.safetensors"));
    session_free(s);
}

static void a_run_is_reproduced_and_the_first_different_step_is_named(void **state) {
    (void)state;
    struct session *s = session_make(small_suite, "r");
    struct reproduction result;
    struct store *store;
    expect_good(session_run(s));
    expect_good(store_open(&store, s->database, STORE_READ));
    expect_good(runner_reproduce(store, 2, data_root, backend_find("cpu"), NULL, &result));
    assert_int_equal(result.steps, 8);
    assert_int_equal(result.first_different, -1);
    assert_true(result.weights_equal && result.trace_equal);
    run_sql(s, "UPDATE steps SET loss = loss + 1e-9 WHERE step >= 5");
    status failed = runner_reproduce(store, 2, data_root, backend_find("cpu"), NULL, &result);
    assert_int_equal(status_kind(failed), STATUS_DIFFERS);
    expect_failure(failed, "run 2: step 5", NULL);
    assert_int_equal(result.first_different, 5);
    run_sql(s, "UPDATE stages SET status = 'pending', weights_sha256 = NULL");
    expect_failure(runner_reproduce(store, 2, data_root, backend_find("cpu"), NULL, &result), "training is not done",
                   NULL);
    store_close(store);
    session_free(s);
}

static void a_checkpoint_of_a_lost_database_is_not_trusted(void **state) {
    (void)state;
    struct results expected = reference();
    struct session *s = session_make(small_suite, "r");
    s->stop_after = 6;
    expect_failure(session_run(s), "stopped", NULL);
    run_sql(s, "DELETE FROM steps WHERE step = 1");
    expect_good(session_run(s));
    assert_non_null(strstr(s->message, "lacks steps"));
    struct results found = load(s);
    assert_same_results(&expected, &found);
    results_free(&found);
    results_free(&expected);
    session_free(s);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(a_suite_runs_to_its_end_and_a_second_call_does_nothing),
        TEST(a_stopped_suite_goes_on_to_the_same_bits),
        TEST(a_resumed_training_goes_on_after_the_last_step_kept),
        TEST(a_killed_suite_goes_on_to_the_same_bits),
        TEST(several_workers_come_to_the_same_bits_and_do_nothing_twice),
        TEST(workers_take_their_first_stages_in_their_order_whoever_is_ready_first),
        TEST(what_other_workers_did_is_not_left),
        TEST(workers_that_end_in_the_middle_of_their_work_are_no_success),
        TEST(two_runners_on_one_database_share_the_stages),
        TEST(of_two_builds_at_once_one_is_refused),
        TEST(where_builds_may_be_mixed_one_waits_for_the_other_and_says_for_whom),
        TEST(a_deleted_database_ends_the_work_at_once),
        TEST(a_replaced_database_ends_the_work_with_its_stage),
        TEST(a_run_that_diverges_is_marked_and_the_others_go_on),
        TEST(damaged_and_missing_files_are_named_and_made_again),
        TEST(a_file_that_comes_out_different_again_fails_its_run),
        TEST(a_run_is_reproduced_and_the_first_different_step_is_named),
        TEST(a_checkpoint_of_a_lost_database_is_not_trusted),
    };
    return cmocka_run_group_tests(tests, prepare_data, remove_data);
}
