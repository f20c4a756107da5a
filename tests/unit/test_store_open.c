/* test_store_open: what is made, migrated, refused or left alone when a store is opened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/store/database.h"
#include "model/files.h"
#include "tests/unit/small_store.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

static void hash_of(const char *path, char hash[65]) { expect_good(file_sha256(path, hash)); }

static void a_store_is_made_with_its_folder_and_opens_again(void **state) {
    (void)state;
    store_close(open_store(STORE_WRITE));
    store_close(open_store(STORE_WRITE));
    struct store *store = open_store(STORE_READ);
    struct suite_summary *rows;
    int count;
    expect_good(store_list_suites(store, &rows, &count));
    assert_int_equal(count, 0);
    free(rows);
    store_close(store);
    assert_int_equal(ask("PRAGMA user_version"), STORE_VERSION);
}

static void reading_a_missing_store_makes_nothing(void **state) {
    (void)state;
    struct store *store;
    expect_failure(store_open(&store, small_path("r/hinge.db"), STORE_READ), "hinge.db", "no such database", NULL);
    assert_null(store);
    assert_int_not_equal(access(small_path("r"), F_OK), 0);
}

static void a_newer_version_is_refused_and_left_as_it_is(void **state) {
    (void)state;
    struct store *store;
    char before[65], after[65];
    store_close(open_store(STORE_WRITE));
    run_sql(small_path("r/hinge.db"), "PRAGMA user_version = 7");
    hash_of(small_path("r/hinge.db"), before);
    expect_failure(store_open(&store, small_path("r/hinge.db"), STORE_WRITE), "version 7", "up to version 3", NULL);
    expect_failure(store_open(&store, small_path("r/hinge.db"), STORE_READ), "version 7", NULL);
    hash_of(small_path("r/hinge.db"), after);
    assert_string_equal(before, after);
}

static void a_database_of_another_program_is_refused_and_left_as_it_is(void **state) {
    (void)state;
    struct store *store;
    char before[65], after[65];
    run_sql(small_path("other.db"), "CREATE TABLE recipes (name TEXT)");
    hash_of(small_path("other.db"), before);
    expect_failure(store_open(&store, small_path("other.db"), STORE_WRITE), "another program", "--db", NULL);
    expect_failure(store_open(&store, small_path("other.db"), STORE_READ), "another program", NULL);
    hash_of(small_path("other.db"), after);
    assert_string_equal(before, after);
}

static void a_file_that_is_no_database_is_refused(void **state) {
    (void)state;
    struct store *store;
    const char text[] = "this is a letter and not a database; it has more than enough bytes for a header of 100 bytes,"
                        " as one can see by counting them";
    small_write(small_path("letter.db"), text, sizeof text);
    expect_failure(store_open(&store, small_path("letter.db"), STORE_READ), "letter.db", "not a database", NULL);
    expect_failure(store_open(&store, small_path("letter.db"), STORE_WRITE), "letter.db", "not a database", NULL);
}

static void an_empty_database_becomes_one_of_this_version(void **state) {
    (void)state;
    struct store *store;
    small_write(small_path("empty.db"), "", 0);
    expect_failure(store_open(&store, small_path("empty.db"), STORE_READ), "nothing was ever run", NULL);
    expect_good(store_open_begun(&store, small_path("empty.db")));
    assert_null(store);
    expect_good(store_open(&store, small_path("empty.db"), STORE_WRITE));
    store_close(store);
    expect_good(store_open_begun(&store, small_path("empty.db")));
    assert_non_null(store);
    store_close(store);
}

static void a_folder_that_cannot_be_made_is_named(void **state) {
    (void)state;
    struct store *store;
    small_write(small_path("file"), "x", 1);
    status failed = store_open(&store, small_path("file/r/hinge.db"), STORE_WRITE);
    assert_int_equal(status_kind(failed), STATUS_SYSTEM);
    expect_failure(failed, "file", NULL);
}

/* --- what a folder or a limit keeps from being read ----------------------------------------------------------------
 */

/* Nobody may write to a folder of root's that is not open to all. */
static void become_nobody(void) {
    enum { NOBODY = 65534 };
    if (geteuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)) _exit(9);
}

/* What reading the store says to somebody who may not write to its folder. */
static void read_as_another(char words[1024]) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        struct store *store = NULL;
        become_nobody();
        status s = store_open(&store, small_path("r/hinge.db"), STORE_READ);
        const char *text = s ? status_text(s) : "read";
        _exit(write(ends[1], text, strlen(text) + 1) < 0);
    }
    assert_true(child > 0);
    close(ends[1]);
    words[0] = 0;
    assert_true(read(ends[0], words, 1023) > 0);
    close(ends[0]);
    waitpid(child, NULL, 0);
}

/* A worker that is killed leaves its last changes in the log alone. */
static void leave_a_log(void) {
    pid_t child = fork();
    if (child == 0) {
        struct database *db;
        expect_good(database_open(&db, small_path("r/hinge.db"), true));
        expect_good(database_script(db, "CREATE TABLE newest (value INTEGER)"));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    struct stat log;
    assert_int_equal(stat(small_path("r/hinge.db-wal"), &log), 0);
    assert_true(log.st_size > 0);
}

static void a_read_only_folder_is_read_unless_the_newest_results_are_in_its_log(void **state) {
    (void)state;
    char words[1024];
    store_close(open_store(STORE_WRITE));
    assert_int_equal(chmod(small_path("%s", ""), 0755), 0);
    assert_int_equal(chmod(small_path("r"), 0555), 0);
    read_as_another(words);
    assert_string_equal(words, "read");
    assert_int_equal(chmod(small_path("r"), 0755), 0);
    leave_a_log();
    assert_int_equal(unlink(small_path("r/hinge.db-shm")), 0);
    assert_int_equal(chmod(small_path("r"), 0555), 0);
    read_as_another(words);
    assert_int_equal(chmod(small_path("r"), 0755), 0);
    expect_failure(status_new(STATUS_SYSTEM, "%s", words), "r/hinge.db: cannot be read", "hinge.db-wal", "copy", "-shm",
                   NULL);
}

static void too_many_open_files_are_answered_with_their_limit(void **state) {
    (void)state;
    struct store *store;
    struct rlimit before, few;
    store_close(open_store(STORE_WRITE));
    leave_a_log();
    int next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    /* With one file more it is the log that cannot be opened. */
    for (int more = 0; more <= 1; more++) {
        few = (struct rlimit){(rlim_t)(next + more), before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        status s = store_open(&store, small_path("r/hinge.db"), STORE_READ);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        expect_failure(s, "Too many open files", "ulimit -n", NULL);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(a_store_is_made_with_its_folder_and_opens_again),
        TEST(reading_a_missing_store_makes_nothing),
        TEST(a_newer_version_is_refused_and_left_as_it_is),
        TEST(a_database_of_another_program_is_refused_and_left_as_it_is),
        TEST(a_file_that_is_no_database_is_refused),
        TEST(an_empty_database_becomes_one_of_this_version),
        TEST(a_folder_that_cannot_be_made_is_named),
        TEST(a_read_only_folder_is_read_unless_the_newest_results_are_in_its_log),
        TEST(too_many_open_files_are_answered_with_their_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
