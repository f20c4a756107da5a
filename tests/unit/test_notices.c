/* test_notices: a database of version 1 is migrated; early looks, refused changes and deleted runs are kept and told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/report/caveats.h"
#include "harness/store.h"
#include "harness/store/database.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

/* Made by the program of that time: hinge run old.yaml, a simulated suite of two variants, three seeds and two nodes;
 * the names of its machine are changed. */
static const char version_1[] = "tests/unit/fixtures/version1.db";

static const char *old_database(void) {
    static char bytes[1 << 20];
    FILE *from = fopen(version_1, "rb");
    assert_non_null(from);
    size_t size = fread(bytes, 1, sizeof bytes, from);
    fclose(from);
    const char *path = small_path("old.db");
    small_write(path, bytes, size);
    return path;
}

static void run_sql(const char *path, const char *sql) {
    struct database *db;
    expect_good(database_open(&db, path, true));
    expect_good(database_script(db, sql));
    database_close(db);
}

static int64_t ask(const char *path, const char *sql) {
    struct database *db;
    int64_t value = -1;
    expect_good(database_open(&db, path, false));
    expect_good(query_one_int(db, &value, NULL, sql, ""));
    database_close(db);
    return value;
}

static struct results load(const char *path) {
    struct results results;
    struct store *store;
    expect_good(store_open(&store, path, STORE_READ));
    expect_good(store_load_results(store, "old", NULL, &results));
    store_close(store);
    return results;
}

static void assert_line(const struct results *r, const char *expected) {
    struct text line = {0};
    caveats_line(r, &line);
    assert_string_equal(text_of(&line), expected);
    text_free(&line);
}

static void version_1_is_migrated_when_it_is_read(void **state) {
    (void)state;
    const char *path = old_database();
    assert_int_equal(ask(path, "PRAGMA user_version"), 1);
    struct results r = load(path);
    assert_int_equal(ask(path, "PRAGMA user_version"), STORE_VERSION);
    assert_int_equal(r.run_count, 6);
    assert_true(r.runs[0].raw.value.bpb > 1.29 && r.runs[0].raw.value.bpb < 1.30);
    assert_int_equal(r.runs[0].step_count, 3);
    assert_string_equal(r.runs[0].node, "simulated node 1");
    assert_string_equal(r.runs[4].node, "simulated node 0");
    assert_int_equal(r.peek_count + r.refusal_count, 0);
    assert_line(&r, "");
    results_free(&r);
}

static void a_measured_stage_of_version_1_is_of_the_host_that_made_it(void **state) {
    (void)state;
    const char *path = old_database();
    run_sql(path, "DELETE FROM provenance WHERE name = 'simulated node'");
    struct results r = load(path);
    assert_string_equal(r.runs[0].node, "node1");
    results_free(&r);
}

static void a_migration_that_fails_leaves_version_1(void **state) {
    (void)state;
    struct store *store;
    const char *path = old_database();
    run_sql(path, "CREATE TABLE refusals (something TEXT)");
    expect_failure(store_open(&store, path, STORE_READ), "version 1", "refusals", NULL);
    assert_int_equal(ask(path, "PRAGMA user_version"), 1);
    assert_int_equal(ask(path, "SELECT count(*) FROM sqlite_master WHERE name = 'peeks'"), 0);
}

static void peeks_and_refusals_of_version_2_are_kept(void **state) {
    (void)state;
    const char *path = old_database();
    struct results r = load(path);
    results_free(&r);
    run_sql(path, "DROP TABLE peeks; DROP TABLE refusals; DROP TABLE replicates; PRAGMA user_version = 2;"
                  "CREATE TABLE peeks (suite INTEGER, done INTEGER, verb TEXT, declared INTEGER, at TEXT, "
                  "PRIMARY KEY (suite, done, verb)) WITHOUT ROWID;"
                  "CREATE TABLE refusals (suite INTEGER, difference TEXT, at TEXT, PRIMARY KEY (suite, difference)) "
                  "WITHOUT ROWID;"
                  "INSERT INTO peeks SELECT id, 5, 'compare', 6, '2000-01-02' FROM suites;"
                  "INSERT INTO peeks SELECT id, 4, 'status', 6, '2000-01-01' FROM suites;"
                  "INSERT INTO refusals SELECT id, 'margin', '2000-01-03' FROM suites");
    r = load(path);
    assert_line(&r, "2 peeks (first: status at 4 of 6 runs), 1 refused change");
    results_free(&r);
}

static void a_complete_suite_is_no_peek(void **state) {
    (void)state;
    const char *path = old_database();
    struct results r = load(path);
    expect_good(store_record_peek(path, &r, "compare"));
    assert_int_equal(ask(path, "SELECT count(*) FROM peeks"), 0);
    results_free(&r);
}

static void a_peek_is_noted_once_and_told_at_once(void **state) {
    (void)state;
    const char *path = old_database();
    struct results r = load(path);
    results_free(&r);
    run_sql(path, "UPDATE stages SET status = 'pending' WHERE seed = 3");
    r = load(path);
    expect_good(store_record_peek(path, &r, "compare"));
    expect_good(store_record_peek(path, &r, "compare"));
    assert_line(&r, "1 peek (compare at 4 of 6 runs)");
    results_free(&r);
    run_sql(path, "UPDATE stages SET status = 'done' WHERE seed = 3");
    r = load(path);
    assert_line(&r, "1 peek (compare at 4 of 6 runs)");
    struct text sentences = {0};
    caveats_sentences(&r, &sentences);
    assert_non_null(strstr(text_of(&sentences), "compare at 4 of 6 runs"));
    assert_non_null(strstr(text_of(&sentences), "error rate larger"));
    text_free(&sentences);
    results_free(&r);
}

static void with_declared_looks_an_early_look_is_no_peek(void **state) {
    (void)state;
    int done, declared;
    const char *path = old_database();
    struct results r = load(path);
    snprintf(r.runs[5].status, sizeof r.runs[5].status, "pending");
    assert_true(results_peeked(&r, &done, &declared));
    assert_int_equal(done, 5);
    r.looks = calloc(1, sizeof *r.looks);
    assert_false(results_peeked(&r, &done, &declared));
    results_free(&r);
}

static void a_deleted_run_stays_in_the_table(void **state) {
    (void)state;
    const char *path = old_database();
    struct results r = load(path);
    int64_t id = r.runs[1].id;
    char sql[128];
    snprintf(sql, sizeof sql, "PRAGMA foreign_keys = OFF; DELETE FROM runs WHERE id = %lld", (long long)id);
    results_free(&r);
    run_sql(path, sql);
    r = load(path);
    assert_int_equal(r.run_count, 6);
    assert_string_equal(r.runs[1].status, "deleted");
    assert_int_equal(r.runs[1].variant, 1);
    assert_true(r.closed_early);
    assert_line(&r, "1 deleted run");
    results_free(&r);
}

static void a_deleted_seed_stays_in_the_table(void **state) {
    (void)state;
    const char *path = old_database();
    struct results r = load(path);
    results_free(&r);
    run_sql(path, "PRAGMA foreign_keys = OFF; DELETE FROM seeds WHERE seed = 2; DELETE FROM runs WHERE seed = 2");
    r = load(path);
    assert_int_equal(r.seed_count, 3);
    assert_int_equal(r.run_count, 6);
    assert_line(&r, "2 deleted runs");
    results_free(&r);
}

/* Seed 3 and the second variant as if they had come late. */
static void a_deleted_late_run_stays_in_the_table(void **state) {
    (void)state;
    const char *path = old_database();
    struct results r = load(path);
    results_free(&r);
    run_sql(path, "PRAGMA foreign_keys = OFF; UPDATE suites SET declaration = replace(declaration, 'seeds: 1 2 3', "
                  "'seeds: 1 2'); UPDATE seeds SET late = 1 WHERE seed = 3; UPDATE runs SET late = 1 WHERE seed = 3; "
                  "DELETE FROM runs WHERE id = (SELECT max(id) FROM runs)");
    r = load(path);
    assert_int_equal(r.run_count, 6);
    assert_string_equal(r.runs[5].status, "deleted");
    assert_true(r.runs[5].late);
    assert_line(&r, "1 late seed, 1 deleted run");
    results_free(&r);
}

static void a_training_that_was_made_again_is_counted_once(void **state) {
    (void)state;
    const char *path = old_database();
    struct results r = load(path);
    int64_t first = r.runs[0].id, second = r.runs[1].id;
    assert_int_equal(r.replicates, 0);
    results_free(&r);
    for (int k = 0; k < 2; k++) expect_good(store_record_replicate(path, first, true, -1));
    expect_good(store_record_replicate(path, second, false, 2));
    r = load(path);
    assert_int_equal(r.replicates, 2);
    assert_int_equal(r.replicates_differing, 1);
    assert_int_equal(ask(path, "SELECT count(*) FROM replicates WHERE equal AND step IS NULL OR step = 2"),
                     ask(path, "SELECT count(*) FROM replicates"));
    results_free(&r);
}

static void a_changed_declaration_is_refused_and_noted_once(void **state) {
    (void)state;
    struct store *store;
    struct results r;
    char *changed = small_replace(small_suite, "margin: 0.01", "margin: 0.02");
    for (int k = 0; k < 3; k++) {
        struct small_plan *p = small_plan_make(k ? changed : small_suite);
        expect_good(store_open(&store, small_path("new.db"), STORE_WRITE));
        status s = store_declare(store, &p->plan, &p->datasets);
        k ? expect_failure(s, "margin", NULL) : expect_good(s);
        if (k == 2) expect_good(store_load_results(store, "small", NULL, &r));
        store_close(store);
        small_plan_free(p);
    }
    assert_line(&r, "1 refused change");
    assert_non_null(strstr(r.refusals[0].value, "margin"));
    assert_true(r.design.margin == 0.01);
    results_free(&r);
    free(changed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(version_1_is_migrated_when_it_is_read),
        TEST(a_measured_stage_of_version_1_is_of_the_host_that_made_it),
        TEST(a_migration_that_fails_leaves_version_1),
        TEST(peeks_and_refusals_of_version_2_are_kept),
        TEST(a_complete_suite_is_no_peek),
        TEST(a_peek_is_noted_once_and_told_at_once),
        TEST(with_declared_looks_an_early_look_is_no_peek),
        TEST(a_deleted_run_stays_in_the_table),
        TEST(a_deleted_seed_stays_in_the_table),
        TEST(a_deleted_late_run_stays_in_the_table),
        TEST(a_training_that_was_made_again_is_counted_once),
        TEST(a_changed_declaration_is_refused_and_noted_once),
    };
    return cmocka_run_group_tests_name("notices", tests, NULL, NULL);
}
