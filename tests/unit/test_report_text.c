/* test_report_text: foreign text, numbers and names as LaTeX, gnuplot and CSV get them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/report/grid.h"
#include "harness/report/text.h"

static void assert_written(void (*write)(struct text *, const char *), const char *input, const char *expected) {
    struct text t = {0};
    write(&t, input);
    assert_string_equal(text_of(&t), expected);
    text_free(&t);
}

static void latex_sees_no_command_in_foreign_text(void **state) {
    (void)state;
    assert_written(text_latex, "\\input{x}", "\\textbackslash{}input\\{x\\}");
    assert_written(text_latex, "50% $a_1$ #&~^", "50\\% \\$a\\_1\\$ \\#\\&\\textasciitilde{}\\textasciicircum{}");
    assert_written(text_latex, "-- ?`", "-{}- ?{}\\textasciigrave{}");
    assert_written(text_latex, "α ü 中", "$\\alpha$ ü {\\footnotesize[U+4E2D]}");
    assert_written(text_latex, "a\n\xFF\xC3", "a ??");
}

static void long_words_may_break_and_numbers_may_not(void **state) {
    (void)state;
    assert_written(text_latex, "0.12345", "0.12345");
    assert_written(text_latex, "train.steps", "train.\\allowbreak{}steps");
    assert_written(text_latex, "aaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa\\allowbreak{}aa");
    assert_written(text_latex, "aaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa\\allowbreak{}aaaa\\allowbreak{}aa");
    assert_written(text_latex, "中中中",
                   "{\\footnotesize[U+4E2D]}{\\footnotesize[U+4E2D]}\\allowbreak{}{\\footnotesize[U+4E2D]}");
}

static void gnuplot_and_csv_quote_what_needs_it(void **state) {
    (void)state;
    assert_written(text_gnuplot, "O'Neill `id` $(x)\n", "'O''Neill `id` $(x) '");
    assert_written(text_csv, "plain", "plain");
    assert_written(text_csv, "a,\"b\"\n", "\"a,\"\"b\"\" \"");
    assert_written(text_slug, "../$(rm) a", "_.---rm--a");
    assert_written(text_slug, "", "suite");
}

static void assert_file(const char *suite, const char *scale, const char *expected) {
    struct text t = {0};
    text_file_name(&t, suite, scale);
    assert_string_equal(text_of(&t), expected);
    text_free(&t);
}

static void no_two_suites_share_a_file(void **state) {
    (void)state;
    char first[400], second[400];
    struct text one = {0}, other = {0};
    assert_file("a-b", "", "a-b");
    assert_file("a", "b", "a@b");
    assert_file("a b", "", "a-b-c8687a08");
    assert_file("a@b", "", "a-b-7508d8b5");
    assert_file("demo.pdf", "", "demo.pdf-16271259"); /* demo's report is a file of that name */
    memset(first, 'x', sizeof first);
    memset(second, 'x', sizeof second);
    first[300] = second[299] = '\0';
    text_file_name(&one, first, second);
    text_file_name(&other, second, first);
    assert_string_not_equal(text_of(&one), text_of(&other));
    assert_true(one.size < 200); /* file systems take 255, with what is added to it */
    text_free(&one);
    text_free(&other);
}

static void assert_number(double value, int decimals, const char *expected) {
    struct text t = {0};
    text_number(&t, value, decimals);
    assert_string_equal(text_of(&t), expected);
    text_free(&t);
}

static void numbers_have_a_true_minus_and_no_negative_zero(void **state) {
    (void)state;
    assert_number(-0.0123, 3, "−0.012");
    assert_number(-0.0001, 3, "0.000");
    assert_number(NAN, 3, "–");
    assert_number(INFINITY, 2, "∞");
    assert_number(-INFINITY, 2, "−∞");
    assert_written(text_latex, "|t| = ∞", "\\textbar{}t\\textbar{} = $\\infty$");
    struct text t = {0};
    text_integer(&t, 16000000);
    assert_string_equal(text_of(&t), "16,000,000");
    text_free(&t);
}

static void assert_short(const char *name, size_t letters, const char *expected) {
    struct text t = {0};
    text_short(&t, name, letters);
    assert_string_equal(text_of(&t), expected);
    assert_true(text_width(text_of(&t)) <= letters);
    text_free(&t);
}

static void names_lose_their_middle_by_the_width_that_is_shown(void **state) {
    (void)state;
    assert_short("äbcdefghij", 7, "äbcd…ij");
    assert_short("äbcdefg", 7, "äbcdefg");
    assert_short("漢字", 16, "漢字");  /* [U+6F22][U+5B57] */
    assert_short("漢字x", 16, "漢…x"); /* what is left of the room is too little for another */
    assert_short("漢字の名前は", 24, "漢字…");
    assert_short("MMMMMMMM", 15, "MMMMM…MM");
}

static void numbers_in_steps_are_shortened(void **state) {
    (void)state;
    const int64_t values[] = {7, 1, 2, 3, 4, 5, 20, 30, 40, 50, 60, -1};
    struct text t = {0};
    text_progressions(&t, values, sizeof values / sizeof *values);
    assert_string_equal(text_of(&t), "7, 1–5, 20, 30 … 60 (by 10), -1");
    text_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latex_sees_no_command_in_foreign_text),
        cmocka_unit_test(long_words_may_break_and_numbers_may_not),
        cmocka_unit_test(gnuplot_and_csv_quote_what_needs_it),
        cmocka_unit_test(no_two_suites_share_a_file),
        cmocka_unit_test(numbers_have_a_true_minus_and_no_negative_zero),
        cmocka_unit_test(names_lose_their_middle_by_the_width_that_is_shown),
        cmocka_unit_test(numbers_in_steps_are_shortened),
    };
    return cmocka_run_group_tests_name("report text", tests, NULL, NULL);
}
