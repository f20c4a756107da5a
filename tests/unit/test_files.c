/* Files: atomic writes, whole reads, folders, SHA-256. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/files.h"

static char folder[64];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/hinge-files-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static const char *in_folder(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void assert_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

static void assert_fails(status s, const char *words) {
    assert_non_null(s);
    if (!strstr(status_text(s), words)) fail_msg("message: %s", status_text(s));
    status_free(s);
}

static int files_in_folder(void) {
    char command[128];
    int count = -1;
    snprintf(command, sizeof command, "ls -A %s | wc -l", folder);
    FILE *pipe = popen(command, "r");
    if (fscanf(pipe, "%d", &count) != 1) count = -1;
    pclose(pipe);
    return count;
}

static void what_is_written_is_read_back_with_a_nul_behind(void **state) {
    (void)state;
    unsigned char *data;
    size_t size;
    assert_good(file_write_atomic(in_folder("a"), "one\0two", 7));
    assert_good(file_write_atomic(in_folder("a"), "three\0four", 10));
    assert_good(file_read(in_folder("a"), &data, &size));
    assert_int_equal(size, 10);
    assert_memory_equal(data, "three\0four\0", 11);
    free(data);
    assert_int_equal(files_in_folder(), 1);
}

static void an_abandoned_write_leaves_the_old_file_and_nothing_else(void **state) {
    (void)state;
    struct file_writer *writer;
    unsigned char *data;
    size_t size;
    assert_good(file_write_atomic(in_folder("a"), "old", 3));
    assert_good(file_writer_open(&writer, in_folder("a")));
    assert_good(file_writer_add(writer, "new", 3));
    file_writer_abandon(writer);
    assert_good(file_read(in_folder("a"), &data, &size));
    assert_string_equal((char *)data, "old");
    free(data);
    assert_int_equal(files_in_folder(), 1);
}

static void writing_into_a_missing_folder_names_the_path(void **state) {
    (void)state;
    assert_fails(file_write_atomic(in_folder("missing/a"), "x", 1), "missing/a");
}

static void a_target_that_is_a_folder_is_refused_and_no_temporary_stays(void **state) {
    (void)state;
    assert_good(make_directories(in_folder("b")));
    int before = files_in_folder();
    assert_fails(file_write_atomic(in_folder("b"), "x", 1), "cannot be replaced");
    assert_int_equal(files_in_folder(), before);
}

static void reading_what_is_not_a_file_is_refused(void **state) {
    (void)state;
    unsigned char *data;
    size_t size;
    assert_fails(file_read(in_folder("nothing"), &data, &size), "nothing");
    assert_fails(file_read(folder, &data, &size), "regular file");
}

static void folders_are_made_with_their_parents(void **state) {
    (void)state;
    struct stat info;
    assert_good(make_directories(in_folder("p/q/r")));
    assert_good(make_directories(in_folder("p/q/r/")));
    assert_int_equal(stat(in_folder("p/q/r"), &info), 0);
    assert_good(file_write_atomic(in_folder("plain"), "", 0));
    assert_fails(make_directories(in_folder("plain/sub")), "plain");
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
    assert_good(file_write_atomic(in_folder("abc"), "abc", 3));
    assert_good(file_sha256(in_folder("abc"), hex));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_fails(file_sha256(in_folder("nothing"), hex), "nothing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read_back_with_a_nul_behind, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(an_abandoned_write_leaves_the_old_file_and_nothing_else, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(writing_into_a_missing_folder_names_the_path, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_target_that_is_a_folder_is_refused_and_no_temporary_stays, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(reading_what_is_not_a_file_is_refused, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(folders_are_made_with_their_parents, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(sha256_gives_the_published_digests, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
