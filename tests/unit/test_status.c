/* test_status: messages, kinds and context of a failure. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/status.h"

static void a_status_carries_its_kind_and_text(void **state) {
    (void)state;
    status s = status_new(STATUS_DATA, "%s: %d tokens, expected %d", "a.bin", 3, 4);
    assert_int_equal(status_kind(s), STATUS_DATA);
    assert_string_equal(status_text(s), "a.bin: 3 tokens, expected 4");
    status_free(s);
}

static void context_goes_before_the_message(void **state) {
    (void)state;
    status s = status_new(STATUS_USAGE, "no such layer");
    s = status_context(s, "variant %s", "deep");
    s = status_context(s, "demo.yaml");
    assert_string_equal(status_text(s), "demo.yaml: variant deep: no such layer");
    assert_int_equal(status_kind(s), STATUS_USAGE);
    status_free(s);
}

static void success_stays_success(void **state) {
    (void)state;
    assert_null(status_context(NULL, "while doing %s", "nothing"));
    assert_string_equal(status_text(NULL), "success");
    status_free(NULL);
}

static void a_system_failure_names_its_errno(void **state) {
    (void)state;
    errno = ENOENT;
    status s = status_errno("cannot open %s", "a.bin");
    assert_int_equal(status_kind(s), STATUS_SYSTEM);
    assert_string_equal(status_text(s), "cannot open a.bin: No such file or directory");
    status_free(s);
}

static void a_lack_of_room_is_told_with_what_to_do(void **state) {
    (void)state;
    errno = EDQUOT;
    status s = status_errno("a.bin");
    assert_string_equal(status_text(s), "a.bin: Disk quota exceeded; make room, or have the quota raised, and repeat");
    status_free(s);
    assert_string_equal(status_advice(ENOSPC), "; make room and repeat");
    assert_string_equal(status_advice(ENOENT), "");
}

static void a_long_message_is_kept_whole(void **state) {
    (void)state;
    char path[5000];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    status s = status_context(status_new(STATUS_DATA, "%s", path), "%s", path);
    assert_int_equal(strlen(status_text(s)), 2 * (sizeof path - 1) + 2);
    status_free(s);
}

static status fails_when(int fail, int *reached) {
    TRY(fail ? status_new(STATUS_DIFFERS, "differs") : NULL);
    ++*reached;
    return NULL;
}

static void control_characters_of_a_message_are_shown(void **state) {
    (void)state;
    status s = status_new(STATUS_DATA, "tensor 'a\x1b[2Jb\xC2\x9B\xE2\x80\xAE\xE2\x81\xA6 \xE2\x80\x93 é\n'");
    assert_string_equal(status_text(s), "tensor 'a?[2Jb???????? \xE2\x80\x93 é?'");
    s = status_context(s, "file\x7F");
    assert_string_equal(status_text(s), "file?: tensor 'a?[2Jb???????? \xE2\x80\x93 é?'");
    status_free(s);
    assert_false(has_control("λ – é 漢"));
    assert_true(has_control("a\xE2\x80\xAE"
                            "b"));
}

static void try_returns_the_failure_and_passes_success(void **state) {
    (void)state;
    int reached = 0;
    assert_null(fails_when(0, &reached));
    assert_int_equal(reached, 1);
    status s = fails_when(1, &reached);
    assert_int_equal(status_kind(s), STATUS_DIFFERS);
    assert_int_equal(reached, 1);
    status_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_status_carries_its_kind_and_text),
        cmocka_unit_test(context_goes_before_the_message),
        cmocka_unit_test(success_stays_success),
        cmocka_unit_test(a_system_failure_names_its_errno),
        cmocka_unit_test(a_lack_of_room_is_told_with_what_to_do),
        cmocka_unit_test(a_long_message_is_kept_whole),
        cmocka_unit_test(control_characters_of_a_message_are_shown),
        cmocka_unit_test(try_returns_the_failure_and_passes_success),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
