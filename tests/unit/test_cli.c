/* test_cli: the command line's parts: flags against their rows, nearest words, tables, units, JSON, programs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/cli.h"
#include "harness/json_out.h"
#include "harness/process.h"
#include "harness/progress_line.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/units.h"

static status nothing(const struct invocation *in) {
    (void)in;
    return NULL;
}

static const struct flag_row flags[] = {
    FLAG_ROW_DB,
    FLAG_ROW_JSON,
    FLAG_ROW_SET,
    {.name = "jobs", .letter = 'j', .type = FLAG_INT, .value_name = "N", .initial = "1", .low = 1, .high = 8},
    {.name = "rate", .type = FLAG_REAL, .value_name = "R"},
    FLAGS_END,
};
static const struct verb verb = {
    .name = "make", .arguments = "A [B]", .least = 1, .most = 2, .flags = flags, .run = nothing};

/* Parses the words up to the first NULL. */
static status parse(struct invocation *in, const char *const *words) {
    static char copies[16][64];
    char *pointers[16];
    int count = 0;
    for (; words[count]; count++) {
        snprintf(copies[count], sizeof copies[count], "%s", words[count]);
        pointers[count] = copies[count];
    }
    return cli_parse(&verb, count, pointers, in);
}
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void assert_refused(status s, const char *text) {
    assert_non_null(s);
    assert_int_equal(status_kind(s), STATUS_USAGE);
    if (!strstr(status_text(s), text)) fail_msg("expected \"%s\" in \"%s\"", text, status_text(s));
    status_free(s);
}

static void flags_that_are_not_given_have_their_defaults(void **state) {
    (void)state;
    struct invocation in;
    assert_null(parse(&in, WORDS("a")));
    assert_string_equal(cli_text(&in, "db"), "results/hinge.db");
    assert_int_equal(cli_int(&in, "jobs"), 1);
    assert_false(cli_switch(&in, "json"));
    assert_false(cli_given(&in, "jobs"));
    assert_null(cli_text(&in, "rate"));
    assert_true(isnan(cli_real(&in, "rate")));
}

static void values_stand_after_a_space_an_equals_sign_or_a_letter(void **state) {
    (void)state;
    struct invocation in;
    assert_null(parse(&in, WORDS("--db", "x.db", "a", "--rate=0.5", "-j", "3", "b", "--json")));
    assert_int_equal(in.count, 2);
    assert_string_equal(in.arguments[1], "b");
    assert_string_equal(cli_text(&in, "db"), "x.db");
    assert_true(cli_real(&in, "rate") == 0.5);
    assert_int_equal(cli_int(&in, "jobs"), 3);
    assert_true(cli_switch(&in, "json"));
    assert_null(parse(&in, WORDS("a", "-j4", "--db=")));
    assert_int_equal(cli_int(&in, "jobs"), 4);
    assert_string_equal(cli_text(&in, "db"), "");
}

static void repeated_flags_keep_their_order(void **state) {
    (void)state;
    struct invocation in;
    const char *values[CLI_REPEATS];
    assert_null(parse(&in, WORDS("--set", "a=1", "x", "--set=b=2=3")));
    assert_int_equal(cli_repeated(&in, "set", values), 2);
    assert_string_equal(values[0], "a=1");
    assert_string_equal(values[1], "b=2=3");
}

static void two_dashes_end_the_flags_and_one_dash_is_an_argument(void **state) {
    (void)state;
    struct invocation in;
    assert_null(parse(&in, WORDS("-", "--", "--json")));
    assert_int_equal(in.count, 2);
    assert_string_equal(in.arguments[0], "-");
    assert_string_equal(in.arguments[1], "--json");
    assert_false(cli_switch(&in, "json"));
}

static void wrong_command_lines_are_refused_with_the_reason(void **state) {
    (void)state;
    struct invocation in;
    assert_refused(parse(&in, WORDS("a", "--jbos", "2")), "nearest is --jobs");
    assert_refused(parse(&in, WORDS("a", "--zzzzzz")), "has no flag --zzzzzz");
    assert_refused(parse(&in, WORDS("a", "-q")), "has no flag -q");
    assert_refused(parse(&in, WORDS("a", "--jobs")), "needs a value");
    assert_refused(parse(&in, WORDS("a", "--jobs", "9")), "allowed are 1 to 8");
    assert_refused(parse(&in, WORDS("a", "--jobs", "")), "a whole number");
    assert_refused(parse(&in, WORDS("a", "--jobs", "99999999999999999999")), "a whole number");
    assert_refused(parse(&in, WORDS("a", "--rate", "nan")), "a number");
    assert_refused(parse(&in, WORDS("a", "--json=1")), "takes no value");
    assert_refused(parse(&in, WORDS("a", "b", "c")), "one argument too many");
    assert_refused(parse(&in, WORDS("--json")), "needs A [B]");
}

static void the_nearest_word_is_found_only_when_it_is_near(void **state) {
    (void)state;
    const char *const words[] = {"status", "show", "compare", "recurrence"};
    assert_string_equal(nearest_word("statsu", words, 4), "status");
    assert_string_equal(nearest_word("shwo", words, 4), "show");
    assert_string_equal(nearest_word("recurence", words, 4), "recurrence");
    assert_string_equal(nearest_word("comp", words, 4), "compare");
    assert_null(nearest_word("doctor", words, 4));
    assert_null(nearest_word("", words, 4));
    char longest[200];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_null(nearest_word(longest, words, 4));
}

static void width_counts_columns_not_bytes(void **state) {
    (void)state;
    assert_int_equal(text_columns("abc"), 3);
    assert_int_equal(text_columns("Δ λ · …"), 7);
    assert_int_equal(text_columns("漢字"), 4);
    assert_int_equal(text_columns("e\u0301"), 1);
    assert_int_equal(text_columns("a\xff"
                                  "b"),
                     3);
    assert_int_equal(text_prefix("漢字", 3), 3);
    assert_int_equal(text_prefix("Δλ", 1), 2);
}

static char *printed(const struct table *table) {
    char *text = NULL;
    size_t size;
    FILE *stream = tmpfile();
    table_print(table, stream, 1);
    size = (size_t)ftell(stream);
    rewind(stream);
    text = calloc(size + 1, 1);
    assert_int_equal(fread(text, 1, size, stream), size);
    fclose(stream);
    return text;
}

static void tables_align_text_left_and_numbers_right(void **state) {
    (void)state;
    static const struct table_column columns[] = {{"name", ALIGN_LEFT, COLUMN_WHOLE},
                                                  {"value", ALIGN_RIGHT, COLUMN_WHOLE}};
    struct table *table = table_new(columns, 2);
    table_cell(table, "λ");
    table_number(table, 1.25, 2);
    table_cell(table, "longer");
    table_number(table, (double)NAN, 2);
    char *text = printed(table);
    assert_string_equal(text, " name    value\n λ        1.25\n longer      -\n");
    free(text);
    table_free(table);
}

static void tables_cut_wide_cells_to_100_columns(void **state) {
    (void)state;
    static const struct table_column columns[] = {{"", ALIGN_LEFT, COLUMN_CUT}, {"", ALIGN_LEFT, COLUMN_WHOLE}};
    struct table *table = table_new(columns, 2);
    char wide[301] = "";
    for (int i = 0; i < 100; i++) text_append(wide, sizeof wide, "漢");
    table_cell(table, "%s", wide);
    table_cell(table, "end");
    char *text = printed(table);
    assert_non_null(strstr(text, "…"));
    assert_non_null(strstr(text, "end"));
    text[strcspn(text, "\n")] = 0;
    assert_in_range(text_columns(text), 98, 100);
    free(text);
    table_free(table);
}

static void tables_without_room_leave_out_what_can_be_missed_and_say_what(void **state) {
    (void)state;
    static const struct table_column columns[] = {
        {"name", ALIGN_LEFT, COLUMN_CUT}, {"note", ALIGN_LEFT, COLUMN_OPTIONAL}, {"end", ALIGN_LEFT, COLUMN_WHOLE}};
    struct table *table = table_new(columns, 3);
    char wide[81];
    snprintf(wide, sizeof wide, "%080d", 0);
    table_cell(table, "%s", wide);
    table_cell(table, "twenty-four more columns");
    table_cell(table, "kept");
    char *text = printed(table);
    assert_non_null(strstr(text, wide));
    assert_null(strstr(text, "twenty"));
    assert_non_null(strstr(text, "kept\n"));
    assert_non_null(strstr(text, "(too narrow here for: note)\n"));
    free(text);
    table_free(table);
}

static void durations_sizes_and_counts_read_well(void **state) {
    (void)state;
    char out[UNITS_CAPACITY];
    assert_string_equal(format_duration(0.421, out), "0.42 s");
    assert_string_equal(format_duration(59.4, out), "59 s");
    assert_string_equal(format_duration(59.7, out), "1 min 00 s");
    assert_string_equal(format_duration(3725, out), "1 h 02 min");
    assert_string_equal(format_duration(200000, out), "2 d 7 h");
    assert_string_equal(format_duration((double)NAN, out), "unknown");
    assert_string_equal(format_duration(-3, out), "0.00 s");
    assert_string_equal(format_bytes(812, out), "812 B");
    assert_string_equal(format_bytes(15940000, out), "15.9 MB");
    assert_string_equal(format_bytes(999960, out), "1.0 MB");
    assert_string_equal(format_count(26216040, out), "26,216,040");
    assert_string_equal(format_count(-1000, out), "-1,000");
    assert_string_equal(format_count(7, out), "7");
}

static void the_progress_line_gets_short_where_there_is_little_room(void **state) {
    (void)state;
    const struct runner_progress progress = {.run = 2,
                                             .run_count = 9,
                                             .variant = "none",
                                             .seed = 42,
                                             .part = PART_TRAIN,
                                             .done = 120,
                                             .total = 600,
                                             .loss = 3.25,
                                             .tokens_per_second = 7530,
                                             .run_seconds_left = 65,
                                             .suite_seconds_left = 3725};
    char text[512];
    assert_string_equal(progress_text(&progress, 200, text, sizeof text),
                        "run 2 of 9 · none · seed 42 · train · step 120/600 · loss 3.2500 · 7530 tokens/s · left: run "
                        "1 min 05 s, suite 1 h 02 min");
    assert_string_equal(progress_text(&progress, 100, text, sizeof text),
                        "2/9 none 42 train · step 120/600 · 3.250 · 7530 tok/s · 1 min 05 s, 1 h 02 min left");
    assert_string_equal(progress_text(&progress, 79, text, sizeof text),
                        "2/9 none 42 train · step 120/600 · 3.250 · 1 min 05 s, 1 h 02 min left");
    assert_string_equal(progress_text(&progress, 65, text, sizeof text),
                        "2/9 none 42 train · step 120/600 · 1 min 05 s, 1 h 02 min left");
    assert_string_equal(progress_text(&progress, 59, text, sizeof text), "2/9 train · step 120/600 · 1 h 02 min left");
    struct runner_progress done = progress; /* whose full line has room, but not those around it */
    done.part = PART_AVERAGE, done.stage_ended = true, done.loss = done.tokens_per_second = NAN;
    assert_string_equal(progress_text(&done, 100, text, sizeof text),
                        "2/9 none 42 average done · 1 min 05 s, 1 h 02 min left");
}

static void json_knows_no_nan_and_keeps_the_order_of_keys(void **state) {
    (void)state;
    json_t *object = json_object();
    json_object_set_new(object, "z", json_number((double)NAN));
    json_object_set_new(object, "a", json_text("\xff"));
    json_object_set_new(object, "m", json_text(""));
    char *text = json_dumps(object, JSON_COMPACT);
    assert_string_equal(text, "{\"z\":null,\"a\":\"?\",\"m\":null}");
    free(text);
    json_decref(object);
}

static void programs_get_their_arguments_as_they_are(void **state) {
    (void)state;
    char *output = NULL;
    int code = -1;
    const char *const argv[] = {"printf", "%s|%s", "$(id) `id`", "a b", NULL};
    assert_null(program_output(argv, &output, &code));
    assert_string_equal(output, "$(id) `id`|a b");
    assert_int_equal(code, 0);
    free(output);
    const char *const missing[] = {"no-such-program-anywhere", NULL};
    status s = program_output(missing, &output, &code);
    if (!s) assert_int_equal(code, 127); /* some systems notice only in the child */
    status_free(s);
    free(output);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_that_are_not_given_have_their_defaults),
        cmocka_unit_test(values_stand_after_a_space_an_equals_sign_or_a_letter),
        cmocka_unit_test(repeated_flags_keep_their_order),
        cmocka_unit_test(two_dashes_end_the_flags_and_one_dash_is_an_argument),
        cmocka_unit_test(wrong_command_lines_are_refused_with_the_reason),
        cmocka_unit_test(the_nearest_word_is_found_only_when_it_is_near),
        cmocka_unit_test(width_counts_columns_not_bytes),
        cmocka_unit_test(tables_align_text_left_and_numbers_right),
        cmocka_unit_test(tables_cut_wide_cells_to_100_columns),
        cmocka_unit_test(tables_without_room_leave_out_what_can_be_missed_and_say_what),
        cmocka_unit_test(durations_sizes_and_counts_read_well),
        cmocka_unit_test(the_progress_line_gets_short_where_there_is_little_room),
        cmocka_unit_test(json_knows_no_nan_and_keeps_the_order_of_keys),
        cmocka_unit_test(programs_get_their_arguments_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
