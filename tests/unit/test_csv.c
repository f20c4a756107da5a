/* test_csv: observations from CSV files, and what is refused by file and line. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/stats/csv.h"

static char path[64];

static int make_file(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/hinge-csv-XXXXXX");
    int descriptor = mkstemp(path);
    return descriptor < 0 ? -1 : close(descriptor);
}

static int remove_file(void **state) {
    (void)state;
    return remove(path);
}

static status read_text(const char *text, struct csv_observations *csv) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return csv_read(path, csv);
}

static void assert_refused(const char *text, const char *message) {
    struct csv_observations csv;
    status failure = read_text(text, &csv);
    assert_non_null(failure);
    assert_int_equal(status_kind(failure), STATUS_DATA);
    if (!strstr(status_text(failure), message)) fail_msg("'%s' does not hold '%s'", status_text(failure), message);
    assert_non_null(strstr(status_text(failure), path));
    assert_null(csv.rows);
    status_free(failure);
}

static void columns_may_stand_in_any_order_among_others(void **state) {
    (void)state;
    struct csv_observations csv;
    assert_null(read_text("note,value,seed,variant\nx,1.5,-7,a\n\"y,\nz\",2e-3,8,b\n", &csv));
    assert_int_equal(csv.count, 2);
    assert_string_equal(csv.rows[0].variant, "a");
    assert_int_equal(csv.rows[0].seed, -7);
    assert_true(csv.rows[1].value == 2e-3 && !csv.rows[1].failed);
    csv_free(&csv);
}

static void quotes_crlf_and_a_byte_order_mark_are_read(void **state) {
    (void)state;
    struct csv_observations csv;
    assert_null(read_text("\xEF\xBB\xBFvariant,seed,value\r\n\"a, \"\"b\"\"\",1,2\r\n\r\nplain,1,3", &csv));
    assert_int_equal(csv.count, 2);
    assert_string_equal(csv.rows[0].variant, "a, \"b\"");
    assert_string_equal(csv.rows[1].variant, "plain");
    assert_true(csv.rows[1].value == 3.0);
    csv_free(&csv);
}

/* Found by fuzzing: rows were counted by line feeds, and records end at a lone carriage return as well. */
static void lone_carriage_returns_end_records(void **state) {
    (void)state;
    struct csv_observations csv;
    assert_null(read_text("variant,seed,value\ra,1,2\ra,2,3\ra,3,4\ra,4,5\ra,5,6\r", &csv));
    assert_int_equal(csv.count, 5);
    assert_true(csv.rows[4].seed == 5 && csv.rows[4].value == 6.0);
    csv_free(&csv);
}

static void failed_seeds_are_kept_as_failed(void **state) {
    (void)state;
    struct csv_observations csv;
    assert_null(read_text("variant,seed,value\na,1,failed\na,2,\na,3,nan\na,4,0\na,5,inf\n", &csv));
    assert_int_equal(csv.count, 5);
    assert_true(csv.rows[0].failed && csv.rows[1].failed && isnan(csv.rows[2].value) && !csv.rows[3].failed);
    csv_free(&csv);
}

static void what_is_wrong_is_named_with_its_line(void **state) {
    (void)state;
    assert_refused("", ":1: the header needs the columns variant, seed and value; missing: 'variant'");
    assert_refused("variant,seed\n", ":1: the header needs the columns variant, seed and value; missing: 'value'");
    assert_refused("variant,seed,value,seed\n", ":1: a column stands twice in the header: 'seed'");
    assert_refused("variant,seed,value,variant\n", ":1: a column stands twice in the header: 'variant'");
    assert_refused("variant,seed,value\na,1,2\n\na,1.5,2\n", ":4: the seed must be a whole number: '1.5'");
    assert_refused("variant,seed,value\na,1,two\n", ":2: the value must be a number");
    assert_refused("variant,seed,value\na,1,1e400\n", ":2: values from 1e-30 to 1e30 in size, and 0, can be compared");
    assert_refused("variant,seed,value\na,1,-1e-170\n", "choose another unit for: '-1e-170'");
    assert_refused("variant,seed,value\na,99999999999999999999,2\n", ":2: the seed must be a whole number");
    assert_refused("variant,seed,value\na,1\n", ":2: 2 fields; the header has 3");
    assert_refused("variant,seed,value\n\"a,1,2\n", ":2: a quoted field has no closing quote");
    assert_refused("variant,seed,value\n\"a\"b,1,2\n", ":2: text behind a closing quote");
    assert_refused("variant,seed,value\n,1,2\n", ":2: the variant has no name");
    assert_refused("variant,seed,value\na\x1b[2J,1,2\n", ":2: the variant's name holds a control character");
}

static void a_missing_file_is_named(void **state) {
    (void)state;
    struct csv_observations csv;
    status failure = csv_read("/nowhere/x.csv", &csv);
    assert_int_equal(status_kind(failure), STATUS_SYSTEM);
    assert_non_null(strstr(status_text(failure), "/nowhere/x.csv"));
    status_free(failure);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_may_stand_in_any_order_among_others),
        cmocka_unit_test(quotes_crlf_and_a_byte_order_mark_are_read),
        cmocka_unit_test(lone_carriage_returns_end_records),
        cmocka_unit_test(failed_seeds_are_kept_as_failed),
        cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests_name("csv", tests, make_file, remove_file);
}
