/* files tests: atomic writes, whole reads, folders, SHA-256. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/files.h"
#include "tests/unit/small_text.h"

static void what_is_written_is_read_back_with_a_nul_behind(void **state) {
    (void)state;
    unsigned char *data;
    size_t size;
    expect_good(file_write_atomic(small_path("a"), "one\0two", 7));
    expect_good(file_write_atomic(small_path("a"), "three\0four", 10));
    expect_good(file_read(small_path("a"), &data, &size));
    assert_int_equal(size, 10);
    assert_memory_equal(data, "three\0four\0", 11);
    free(data);
    assert_int_equal(small_count_files(small_path(".")), 1);
}

static void an_abandoned_write_leaves_the_old_file_and_nothing_else(void **state) {
    (void)state;
    struct file_writer *writer;
    unsigned char *data;
    size_t size;
    expect_good(file_write_atomic(small_path("a"), "old", 3));
    expect_good(file_writer_open(&writer, small_path("a")));
    expect_good(file_writer_add(writer, "new", 3));
    file_writer_abandon(writer);
    expect_good(file_read(small_path("a"), &data, &size));
    assert_string_equal((char *)data, "old");
    free(data);
    assert_int_equal(small_count_files(small_path(".")), 1);
}

static void what_a_killed_writer_left_is_overwritten(void **state) {
    (void)state;
    unsigned char *data;
    size_t size;
    small_write(small_path("a.tmp"), "half of something long", 22);
    expect_good(file_write_atomic(small_path("a"), "new", 3));
    expect_good(file_read(small_path("a"), &data, &size));
    assert_string_equal((char *)data, "new");
    free(data);
    assert_int_equal(small_count_files(small_path(".")), 1);
}

/* In many small pieces, so that two writers of one file would surely meet inside it. */
static void write_forever(const char *path, char letter) {
    char piece[500];
    memset(piece, letter, sizeof piece);
    for (;;) {
        struct file_writer *writer;
        if (file_writer_open(&writer, path)) _exit(1);
        for (int i = 0; i < (letter == 'a' ? 100 : 50); i++) status_free(file_writer_add(writer, piece, sizeof piece));
        status_free(file_writer_commit(writer));
    }
}

static void writers_of_one_path_never_mix(void **state) {
    (void)state;
    pid_t writers[2];
    int changes = 0, before = 0;
    expect_good(file_write_atomic(small_path("shared"), "a", 1));
    for (int i = 0; i < 2; i++)
        if ((writers[i] = fork()) == 0) write_forever(small_path("shared"), i ? 'b' : 'a');
    for (int i = 0; i < 100000 && changes < 30; i++) {
        unsigned char *data;
        size_t size;
        expect_good(file_read(small_path("shared"), &data, &size));
        assert_true(size == 1 || size == (data[0] == 'a' ? 50000 : 25000));
        assert_int_equal(strspn((char *)data, (char[2]){(char)data[0], 0}), size);
        changes += data[0] != before;
        before = data[0];
        free(data);
    }
    assert_true(changes > 1);
    for (int i = 0; i < 2; i++) kill(writers[i], SIGKILL), waitpid(writers[i], NULL, 0);
}

static void writing_into_a_missing_folder_names_the_path(void **state) {
    (void)state;
    expect_failure(file_write_atomic(small_path("missing/a"), "x", 1), "missing/a", NULL);
}

static void a_target_that_is_a_folder_is_refused_and_no_temporary_stays(void **state) {
    (void)state;
    expect_good(make_directories(small_path("b")));
    int before = small_count_files(small_path("."));
    expect_failure(file_write_atomic(small_path("b"), "x", 1), "cannot be replaced", NULL);
    assert_int_equal(small_count_files(small_path(".")), before);
}

static void reading_what_is_not_a_file_is_refused(void **state) {
    (void)state;
    unsigned char *data;
    size_t size;
    expect_failure(file_read(small_path("nothing"), &data, &size), "nothing", NULL);
    expect_failure(file_read(small_path("."), &data, &size), "regular file", NULL);
}

static void folders_are_made_with_their_parents(void **state) {
    (void)state;
    struct stat info;
    expect_good(make_directories(small_path("p/q/r")));
    expect_good(make_directories(small_path("p/q/r/")));
    assert_int_equal(stat(small_path("p/q/r"), &info), 0);
    expect_good(file_write_atomic(small_path("plain"), "", 0));
    expect_failure(make_directories(small_path("plain/sub")), "plain", NULL);
}

/* FIPS 180-4's examples. */
static void sha256_gives_the_published_digests(void **state) {
    (void)state;
    char hex[65];
    bytes_sha256("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct digest *digest = digest_new();
    for (int i = 0; i < 1000; i++) {
        char block[1000];
        memset(block, 'a', sizeof block);
        digest_add(digest, block, sizeof block);
    }
    digest_finish(digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    expect_good(file_write_atomic(small_path("abc"), "abc", 3));
    expect_good(file_sha256(small_path("abc"), hex));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_failure(file_sha256(small_path("nothing"), hex), "nothing", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read_back_with_a_nul_behind, small_folder_make,
                                        small_folder_remove),
        cmocka_unit_test_setup_teardown(an_abandoned_write_leaves_the_old_file_and_nothing_else, small_folder_make,
                                        small_folder_remove),
        cmocka_unit_test_setup_teardown(what_a_killed_writer_left_is_overwritten, small_folder_make,
                                        small_folder_remove),
        cmocka_unit_test_setup_teardown(writers_of_one_path_never_mix, small_folder_make, small_folder_remove),
        cmocka_unit_test_setup_teardown(writing_into_a_missing_folder_names_the_path, small_folder_make,
                                        small_folder_remove),
        cmocka_unit_test_setup_teardown(a_target_that_is_a_folder_is_refused_and_no_temporary_stays, small_folder_make,
                                        small_folder_remove),
        cmocka_unit_test_setup_teardown(reading_what_is_not_a_file_is_refused, small_folder_make, small_folder_remove),
        cmocka_unit_test_setup_teardown(folders_are_made_with_their_parents, small_folder_make, small_folder_remove),
        cmocka_unit_test_setup_teardown(sha256_gives_the_published_digests, small_folder_make, small_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
