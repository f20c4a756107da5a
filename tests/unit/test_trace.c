/* test_trace: every number of a report names the runs it rests on, and no others. The numbers are invented
 * (report_fixture.c). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/report/trace.h"
#include "tests/unit/report_fixture.h"

static void assert_holds(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("'%s' is not in:\n%.3000s", part, text);
}

static void assert_rests_on(const struct analysis *a, const char *cell, const char *expected) {
    struct trace_runs runs;
    const struct trace_figure *figure;
    struct text ids = {0};
    int row;
    assert_null(trace_find(a, cell, &row, &figure));
    assert_null(trace_runs(a, row, figure->basis, &runs));
    trace_ids(a, &runs, &ids);
    assert_string_equal(text_of(&ids), expected);
    text_free(&ids);
    trace_runs_free(&runs);
}

static void every_number_of_the_comparison_names_its_runs(void **state) {
    (void)state;
    struct results results;
    struct analysis a;
    struct trace_runs runs;
    const struct trace_figure *figure;
    int row;
    fixture_results(&results, &plain_names, 6);
    snprintf(fixture_run(&results, 2, 1)->status, sizeof results.runs->status, "failed");
    assert_null(analyse(&results, &a));
    const struct {
        const char *cell, *ids;
    } cells[] = {
        {"none.mean", "1, 5 … 21 (by 4)"},
        {"recurrence.delta", "1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22"},
        {"no-rope.n", "3, 11, 15 … 23 (by 4)"},
        {"no-rope.p", "1, 3, 9, 11 … 23 (by 2)"},
    };
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) assert_rests_on(&a, cells[i].cell, cells[i].ids);
    assert_null(trace_find(&a, "int8.verdict", &row, &figure));
    assert_null(trace_runs(&a, row, figure->basis, &runs));
    assert_int_equal(runs.count, 23);
    trace_runs_free(&runs);
    status unknown = trace_find(&a, "int8.delt", &row, &figure);
    assert_holds(status_text(unknown), "did you mean 'delta'?");
    status_free(unknown);
    unknown = trace_find(&a, "int9.delta", &row, &figure);
    assert_holds(status_text(unknown), "did you mean 'int8'?");
    status_free(unknown);
    analysis_free(&a);
    results_free(&results);
}

static void times_of_two_machines_are_neither_compared_nor_traced(void **state) {
    (void)state;
    struct results results;
    struct analysis a;
    struct text sentence = {0};
    fixture_results(&results, &plain_names, 3);
    snprintf(results.metric, sizeof results.metric, "train_seconds");
    for (int s = 0; s < 3; s++) {
        fixture_run(&results, 0, s)->train_seconds = 100.0 + s;
        fixture_run(&results, 1, s)->train_seconds = s == 2 ? 900.0 : 110.0 + s;
    }
    snprintf(fixture_run(&results, 1, 2)->node, sizeof results.runs->node, "another");
    assert_null(analyse(&results, &a));
    assert_float_equal(a.table.rows[1].delta, 10.0, 1e-9);
    assert_rests_on(&a, "recurrence.delta", "1, 2, 5, 6");
    sentence_verdict(&sentence, &a.wording, &a.table.rows[1]);
    assert_holds(text_of(&sentence), "Left out: 1 seed whose two times were taken on different machines.");
    text_free(&sentence);
    analysis_free(&a);
    results_free(&results);
}

static void assert_replicate(struct results *results, int made_again, int differing, const char *expected) {
    struct analysis a;
    struct trace_runs runs;
    const struct trace_figure *figure;
    struct text value = {0}, query = {0};
    int row;
    results->replicates = made_again;
    results->replicates_differing = differing;
    assert_null(analyse(results, &a));
    assert_null(trace_find(&a, "sources.replicate", &row, &figure));
    assert_null(trace_runs(&a, row, figure->basis, &runs));
    trace_value(&a, row, figure, &value);
    trace_query(&a, figure, &runs, &query);
    assert_string_equal(text_of(&value), expected);
    assert_holds(text_of(&query), "m.equal, m.step FROM runs r");
    assert_holds(text_of(&query), "JOIN replicates m ON");
    text_free(&value);
    text_free(&query);
    trace_runs_free(&runs);
    analysis_free(&a);
}

static void a_training_made_again_is_traced_to_its_record(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 3);
    assert_replicate(&results, 0, 0, "-");
    assert_replicate(&results, 2, 0, "0");
    assert_replicate(&results, 2, 1, "-");
    results_free(&results);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_the_comparison_names_its_runs),
        cmocka_unit_test(a_training_made_again_is_traced_to_its_record),
        cmocka_unit_test(times_of_two_machines_are_neither_compared_nor_traced),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
