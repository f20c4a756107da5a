/* test_store_open: what is made, migrated, refused or left alone when a store is opened. */
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
