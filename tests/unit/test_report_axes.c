/* test_report_axes: what the axes of a report's figures span, and what they say of runs that lie beyond. The numbers
 * are invented (report_fixture.c). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/report/axis.h"
#include "harness/report/report.h"
#include "tests/unit/report_files.h"
#include "tests/unit/report_fixture.h"

/* The figures' settings, and the captions; the caller frees both. */
struct drawn {
    char *settings, *facts;
};

static struct drawn draw(struct results *results, const char *folder) {
    struct report_request request = {.results = results, .output_directory = folder, .templates = "reports"};
    char pdf[4096], path[4200];
    status failure = report_write(&request, pdf);
    if (failure) fail_msg("%s", status_text(failure));
    struct drawn drawn;
    snprintf(path, sizeof path, "%s/test-data/settings.gp", folder);
    drawn.settings = contents(path);
    snprintf(path, sizeof path, "%s/test-data/facts.tex", folder);
    drawn.facts = contents(path);
    return drawn;
}

static void forget(struct drawn *drawn) {
    free(drawn->settings);
    free(drawn->facts);
}

static double setting(const struct drawn *drawn, const char *name) {
    char start[64];
    snprintf(start, sizeof start, "\n%s = ", name);
    const char *at = strstr(drawn->settings, start);
    if (!at) fail_msg("no setting %s", name);
    return strtod(at + strlen(start), NULL);
}

static void blow_up(struct result_run *run) {
    run->raw.value.bpb = run->averaged.value.bpb = run->artifact.value.bpb = 9;
    for (size_t k = run->step_count / 2; k < run->step_count; k++) run->trace[k].loss = 12;
    strcpy(run->training_note, "the loss rose: 12.00");
}

static void the_axis_of_the_losses_holds_all_but_the_steep_start(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 2);
    for (int i = 0; i < results.run_count; i++) {
        struct result_run *run = &results.runs[i];
        for (size_t k = 0; k < run->step_count; k++) run->trace[k].loss = k < 4 ? 9.0 : 5.90 + 0.02 * (k > 200);
    }
    struct drawn drawn = draw(&results, in_scratch("losses"));
    assert_true(setting(&drawn, "LOSS_LEAST") > 5.89 && setting(&drawn, "LOSS_LEAST") < 5.90);
    assert_true(setting(&drawn, "LOSS_MOST") > 5.92 && setting(&drawn, "LOSS_MOST") < 5.93);
    forget(&drawn);
    results_free(&results);
}

static void runs_that_blew_up_lie_beyond_the_axes_and_are_told_there(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 3);
    for (int s = 0; s < 2; s++) blow_up(fixture_run(&results, 1, s));
    struct drawn drawn = draw(&results, in_scratch("beyond"));
    const char *const axes[] = {"VALUES_MOST", "STAGES_MOST", "SIZES_MOST"};
    for (size_t i = 0; i < sizeof axes / sizeof *axes; i++) assert_true(setting(&drawn, axes[i]) < 3);
    assert_true(setting(&drawn, "LOSS_MOST") < 8);
    assert_true(setting(&drawn, "DIFFERENCES_MOST") < 1);
    assert_holds(drawn.settings, "array MEAN_BEYOND[4] = ['', '6.7");
    assert_holds(drawn.settings, "array DIFFERENCE_BEYOND[4] = ['', '4.5");
    assert_holds(drawn.settings, "array PANEL_BEYOND[3] = ['2 runs beyond', '', '']");
    assert_holds(drawn.settings, "array STAGES_BEYOND[4] = ['', '2 runs beyond', '', '']");
    assert_holds(drawn.settings, "SIZES_BEYOND = '2 runs beyond'");
    assert_holds(drawn.facts, "\\newcommand{\\AxesCaption}{. The axis is that of the runs that did not blow up}");
    forget(&drawn);
    results_free(&results);
}

static void where_all_blew_up_the_axes_hold_them(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 2);
    for (int i = 0; i < results.run_count; i++) blow_up(&results.runs[i]);
    struct drawn drawn = draw(&results, in_scratch("all"));
    assert_true(setting(&drawn, "VALUES_LEAST") < 9 && setting(&drawn, "VALUES_MOST") > 9);
    assert_true(setting(&drawn, "LOSS_MOST") > 12);
    assert_holds(drawn.settings, "array MEAN_BEYOND[4] = ['', '', '', '']");
    assert_holds(drawn.facts, "\\newcommand{\\AxesCaption}{}");
    forget(&drawn);
    results_free(&results);
}

/* With the baseline's run every difference is one from a run that blew up. */
static void where_the_baseline_blew_up_every_difference_is_held(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 3);
    blow_up(fixture_run(&results, 0, 1));
    struct drawn drawn = draw(&results, in_scratch("baseline"));
    assert_true(setting(&drawn, "DIFFERENCES_LEAST") < -7);
    assert_holds(drawn.settings, "array DIFFERENCE_BEYOND[4] = ['', '', '', '']");
    assert_holds(drawn.settings, "array MEAN_BEYOND[4] = ['4.");
    forget(&drawn);
    results_free(&results);
}

static void a_mark_points_to_the_side_on_which_a_value_lies(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *mark;
    } rows[] = {{1.5, "''"},       {2.05, "''"},      {NAN, "''"},        {2.07, "'2.07 →'"},
                {0.5, "'← 0.50'"}, {-3, "'← −3.00'"}, {1234, "'1,234 →'"}};
    struct axis axis = axis_empty();
    assert_false(axis_any(&axis));
    axis_add(&axis, NAN, false);
    assert_false(axis_any(&axis));
    axis_add(&axis, 1, false);
    axis_add(&axis, 2, false);
    axis_add(&axis, 2000, true);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text t = {0};
        axis_mark(&t, &axis, rows[i].value);
        assert_string_equal(text_of(&t), rows[i].mark);
        text_free(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_axis_of_the_losses_holds_all_but_the_steep_start),
        cmocka_unit_test(runs_that_blew_up_lie_beyond_the_axes_and_are_told_there),
        cmocka_unit_test(where_all_blew_up_the_axes_hold_them),
        cmocka_unit_test(where_the_baseline_blew_up_every_difference_is_held),
        cmocka_unit_test(a_mark_points_to_the_side_on_which_a_value_lies),
    };
    return cmocka_run_group_tests_name("report axes", tests, make_scratch, remove_scratch);
}
