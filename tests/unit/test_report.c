/* test_report: foreign text is made harmless, and a report shows what its results hold, also unfinished ones. The
 * numbers are invented (report_fixture.c). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/process.h"
#include "harness/report/report.h"
#include "harness/report/text.h"
#include "tests/unit/report_files.h"
#include "tests/unit/report_fixture.h"

/* The text of a PDF, lines as on the page. */
static char *pdf_text(const char *pdf) {
    const char *const argv[] = {"pdftotext", "-layout", pdf, "-", NULL};
    char *output;
    int code;
    assert_null(program_output(argv, &output, &code));
    assert_int_equal(code, 0);
    return output;
}

/* The tables of a report are numbered from 1 to at least `least`, and none is left out. */
static void assert_tables_count_up(const char *text, int least) {
    int number = 0;
    for (const char *at = text; (at = strstr(at, "Table ")); at++) {
        char *end;
        long found = strtol(at + strlen("Table "), &end, 10);
        if (*end != '.') continue;
        if (found != number + 1) fail_msg("table %ld follows table %d", found, number);
        number++;
    }
    assert_true(number >= least);
}

static void write_report(struct results *results, const char *folder, char pdf[4096]) {
    struct report_request request = {.results = results, .output_directory = folder, .templates = "reports"};
    status failure = report_write(&request, pdf);
    if (failure) fail_msg("%s", status_text(failure));
}

static void assert_fails(const struct report_request *request, enum status_kind kind, const char *text) {
    char pdf[4096];
    status failure = report_write(request, pdf);
    assert_non_null(failure);
    assert_int_equal(status_kind(failure), kind);
    assert_holds(status_text(failure), text);
    status_free(failure);
}

/* --- reports ------------------------------------------------------------------------------------------------------ */

static void a_report_shows_verdicts_figures_and_hashes(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &plain_names, 3);
    write_report(&results, in_scratch("plain"), pdf);
    assert_string_equal(pdf, in_scratch("plain/test-data.pdf"));
    char *text = pdf_text(pdf);
    assert_holds(text, "recurrence is better than none by");
    assert_holds(text, "no-rope is worse than none by");
    assert_holds(text, "worse by the margin");
    assert_holds(text, "12 of 12 runs finished");
    assert_holds(text, "model read back from its");
    assert_holds(text, "all of them are under it");
    assert_null(strstr(text, "Incomplete"));
    char hash[11] = "";
    memcpy(hash, fixture_run(&results, 1, 2)->weights_sha256, 10);
    assert_holds(text, hash);
    free(text);
    results_free(&results);
}

static void every_table_and_figure_lies_beside_the_report(void **state) {
    (void)state;
    static const char *const tables[] = {"significance", "design", "spread",   "gap",        "timings",
                                         "classes",      "runs",   "variants", "provenance", "intervals",
                                         "sources",      "trace",  "sizes",    "numbers"};
    static const char *const figures[] = {"differences", "slopes", "curves", "front", "stages"};
    static const char *const endings[] = {"pdf", "png", "svg"};
    char path[256];
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        snprintf(path, sizeof path, "%s/plain/test-data/%s.tex", scratch, tables[i]);
        assert_true(exists(path));
        snprintf(path, sizeof path, "%s/plain/test-data/%s.csv", scratch, tables[i]);
        assert_true(exists(path));
    }
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        for (int e = 0; e < 3; e++) {
            struct stat info;
            snprintf(path, sizeof path, "%s/plain/test-data/%s.%s", scratch, figures[i], endings[e]);
            if (stat(path, &info) != 0 || info.st_size < 1000) fail_msg("%s is missing or empty", path);
        }
}

static void assert_fits_the_page(const char *path) {
    char *log = contents(path);
    assert_holds(log, "Output written");
    for (const char *at = log; (at = strstr(at, "Overfull \\hbox (")); at++)
        if (atof(at + strlen("Overfull \\hbox (")) > 2.0) fail_msg("%.200s", at);
    assert_null(strstr(log, "Missing character"));
    free(log);
}

static void no_line_of_the_document_is_wider_than_the_page(void **state) {
    (void)state;
    assert_fits_the_page(in_scratch("plain/test-data/document.log"));
}

static void the_csv_of_significance_holds_the_compared_figures(void **state) {
    (void)state;
    struct results results;
    struct observation *observations;
    struct comparison_table table;
    size_t count;
    char expected[128];
    fixture_results(&results, &plain_names, 3);
    assert_null(results_observations(&results, results.metric, &observations, &count));
    assert_null(compare_variants(&results.design, observations, count, &table));
    char *csv = contents(in_scratch("plain/test-data/significance.csv"));
    for (int v = 1; v < table.count; v++) {
        snprintf(expected, sizeof expected, "%s,0,3,%.12g,%.12g,", table.rows[v].variant, table.rows[v].summary.mean,
                 table.rows[v].delta);
        assert_holds(csv, expected);
    }
    free(csv);
    free(observations);
    comparison_table_free(&table);
    results_free(&results);
}

/* A field of a CSV's line that starts with `line`, from 0. */
static double csv_field(const char *csv, const char *line, int field) {
    const char *found = strstr(csv, line);
    size_t at = found ? (size_t)(found - csv) : 0;
    if (!found) fail_msg("no line '%s' in:\n%s", line, csv);
    for (int i = 0; i < field; i++) at += strcspn(csv + at, ",") + 1;
    return strtod(csv + at, NULL);
}

static void the_table_of_sizes_pairs_the_bytes_by_seed_and_tells_the_way_to_the_cap(void **state) {
    (void)state;
    struct results results;
    double differences[3], low, high, largest = 0;
    fixture_results(&results, &plain_names, 3);
    for (int s = 0; s < 3; s++) {
        double bytes = (double)fixture_run(&results, 3, s)->sizes.bytes;
        differences[s] = bytes - (double)fixture_run(&results, 0, s)->sizes.bytes;
        largest = fmax(largest, bytes);
    }
    interval_t(differences, 3, results.design.alpha, &low, &high);
    char *csv = contents(in_scratch("plain/test-data/sizes.csv"));
    assert_float_equal(csv_field(csv, "int8,", 5), (differences[0] + differences[1] + differences[2]) / 3, 1e-6);
    assert_float_equal(csv_field(csv, "int8,", 6), low, 1e-5);
    assert_float_equal(csv_field(csv, "int8,", 7), high, 1e-5);
    assert_float_equal(csv_field(csv, "int8,", 8), 16e6 - largest, 1e-6);
    assert_non_null(strstr(csv, ",,,,")); /* the baseline is compared with nothing */
    free(csv);
    results_free(&results);
}
static void the_variance_by_source_adds_up_to_what_was_put_in(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &plain_names, 3);
    static const double seed_effect[] = {-0.01, 0.0, 0.01}, own[] = {0.002, -0.004, 0.002};
    for (int s = 0; s < 3; s++)
        for (int v = 0; v < 4; v++) {
            struct evaluation *e = &fixture_run(&results, v, s)->artifact.value;
            e->bpb = 2.0 + 0.1 * v + seed_effect[s] + (v == 0 ? own[s] : v == 1 ? -own[s] : 0.0);
            for (int b = 0; b < EVALUATION_BLOCKS; b++)
                e->blocks[b] =
                    (struct evaluation_block){1000.0 * M_LN2 * (e->bpb + (b % 2 ? 0.064 : -0.064)), 1000, 400};
        }
    write_report(&results, in_scratch("sources"), pdf);
    char *csv = contents(in_scratch("sources/test-data/sources.csv"));
    double left = 2.0 * 24e-6 / 6.0, between = 4.0 * 1e-4;
    assert_true(fabs(csv_field(csv, "\"seed, own\"", 2) - sqrt(left)) < 1e-9);
    assert_true(fabs(csv_field(csv, "\"seed, shared\"", 2) - sqrt((between - left) / 4.0)) < 1e-9);
    assert_true(fabs(csv_field(csv, "evaluated text", 1) - 0.008) < 3e-4);
    free(csv);
    csv = contents(in_scratch("sources/test-data/intervals.csv"));
    assert_true(fabs(csv_field(csv, "no-rope", 9)) < 1e-9); /* every block differs alike: no noise in the difference */
    free(csv);
    results_free(&results);
}

static void a_calibration_that_is_not_there_says_why(void **state) {
    (void)state;
    char *text = pdf_text(in_scratch("plain/test-data.pdf"));
    assert_holds(text, "Not measured: to tell how often a difference is called where there is none takes at least 4");
    free(text);
}

static void declared_looks_show_boundaries_path_and_where_it_stopped(void **state) {
    (void)state;
    const size_t n[] = {3, 6};
    struct results results;
    struct look_plan plan;
    char pdf[4096];
    fixture_results(&results, &plain_names, 6);
    assert_null(look_plan_make(SPEND_POCOCK, n, 2, 0.05 / 3, &plan));
    results.design.looks = &plan;
    write_report(&results, in_scratch("looks"), pdf);
    char *text = pdf_text(pdf);
    assert_holds(text, "no-rope is worse than none: stopped at look");
    free(text);
    text = contents(in_scratch("looks/test-data/methods.tex"));
    assert_holds(text, "were looked at after 3 and 6 seeds");
    free(text);
    assert_true(exists(in_scratch("looks/test-data/looks.pdf")));
    char *csv = contents(in_scratch("looks/test-data/looks.csv"));
    assert_holds(csv, "stopped");
    free(csv);
    results_free(&results);
}

static void a_statistic_without_bound_is_told_and_drawn(void **state) {
    (void)state;
    const size_t n[] = {2, 4};
    struct results results;
    struct look_plan plan;
    char pdf[4096];
    fixture_results(&results, &plain_names, 4);
    for (int i = 0; i < results.run_count; i++)
        results.runs[i].artifact.value.bpb = 2.0 + 0.25 * results.runs[i].variant;
    assert_null(look_plan_make(SPEND_POCOCK, n, 2, 0.05 / 3, &plan));
    results.design.looks = &plan;
    write_report(&results, in_scratch("unbounded"), pdf);
    char *findings = contents(in_scratch("unbounded/test-data/findings.tex"));
    assert_holds(findings, "= $\\infty$ reaches the boundary of");
    assert_true(exists(in_scratch("unbounded/test-data/looks.pdf")));
    free(findings);
    results_free(&results);
}

static void trainings_with_many_variants_have_short_names_in_the_legend(void **state) {
    (void)state;
    static const char *const names[] = {"fp16", "int6-rowwise", "int6-gptq", "int8-rowwise", "dsq-a", "ternary"};
    const struct fixture_names shared = {"shared", "One training, stored in six ways?", 6, names};
    struct results results;
    char pdf[4096];
    fixture_results(&results, &shared, 2);
    for (int i = 0; i < results.run_count; i++)
        snprintf(results.runs[i].train_key, sizeof results.runs->train_key, "%d", (int)results.runs[i].seed);
    write_report(&results, in_scratch("sharing"), pdf);
    char *settings = contents(in_scratch("sharing/shared/settings.gp"));
    assert_holds(settings, "array CURVE[1] = ['fp16, int6-rowwise, int6-gptq and 3 more']");
    free(settings);
    results_free(&results);
}

static void times_are_compared_within_blocks_of_one_machine(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &plain_names, 3);
    for (int s = 0; s < 3; s++) {
        fixture_run(&results, 0, s)->train_seconds = 100.0 + s;
        fixture_run(&results, 1, s)->train_seconds = s == 2 ? 900.0 : 110.0 + s;
        snprintf(fixture_run(&results, 1, s)->node, sizeof results.runs->node, s == 2 ? "another" : "");
    }
    write_report(&results, in_scratch("blocks"), pdf);
    char *csv = contents(in_scratch("blocks/test-data/timings.csv"));
    assert_true(fabs(csv_field(csv, "recurrence", 6) - 10.0) < 1e-9);
    free(csv);
    results_free(&results);
}

static void drawn_results_claim_no_training(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &plain_names, 9);
    results.config.run_backend = BACKEND_SIMULATED;
    write_report(&results, in_scratch("drawn"), pdf);
    char *text = pdf_text(pdf), *facts = contents(in_scratch("drawn/test-data/facts.tex"));
    assert_holds(text, "Nothing was trained");
    assert_null(strstr(text, "A hybrid decoder"));
    assert_null(strstr(text, "GPTQ with"));
    assert_holds(facts, "\\newcommand{\\SeedsLegend}{}"); /* nine seeds have no names in the figure */
    free(text);
    free(facts);
    results_free(&results);
}

static void the_same_results_make_the_same_bytes(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &plain_names, 3);
    assert_int_equal(rename(in_scratch("plain/test-data.pdf"), in_scratch("first.pdf")), 0);
    write_report(&results, in_scratch("plain"), pdf);
    const char *const argv[] = {"cmp", in_scratch("first.pdf"), pdf, NULL};
    char *output;
    int code;
    assert_null(program_output(argv, &output, &code));
    assert_int_equal(code, 0);
    free(output);
    results_free(&results);
}

static const char *const hostile_variants[] = {
    "none $(touch pwned) `touch pwned` \\input{/etc/passwd}",
    "O'Neill \"quoted\" 100% #1 ~^_&{}",
    "Größe – 中文 αβ",
    "漢字の名前はとても長くて幅が広い",
    "Модель с длинным русским именем",
    "WIDE CAPITALS @@@@ %%%% MMMMMMMMMM",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};
static const struct fixture_names hostile_names = {"../$(rm) \\end{document} %", "Is \\input{/etc/passwd} 50% & $x$?",
                                                   7, hostile_variants};

static void hostile_names_come_out_as_text(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &hostile_names, 2);
    write_report(&results, in_scratch("hostile"), pdf);
    assert_fits_the_page(in_scratch("hostile/_.---rm---end-document----f5473518/document.log"));
    char *settings = contents(in_scratch("hostile/_.---rm---end-document----f5473518/settings.gp"));
    assert_holds(settings, "'[U+6F22][U+5B57]…'");
    assert_holds(settings, "LONGEST = 24\n"); /* as wide as what is shown, which the margin has room for */
    free(settings);
    char *text = pdf_text(pdf);
    assert_holds(text, "../$(rm) \\end{document} %");
    assert_holds(text, "Is \\input{/etc/passwd} 50% & $x$?");
    assert_holds(text, "O'Neill \"quoted\" 100% #1");
    assert_holds(text, "[U+4E2D]");
    assert_null(strstr(text, "root:"));
    assert_false(exists("pwned"));
    free(text);
    results_free(&results);
}

/* Takes a run's results away, as if it had ended so. */
static void end_run(struct result_run *run, const char *how, const char *error) {
    snprintf(run->status, sizeof run->status, "%s", how);
    snprintf(run->error, sizeof run->error, "%s", error);
    run->raw.present = run->averaged.present = run->artifact.present = false;
    run->sizes.bytes = 0;
}

static void an_unfinished_suite_says_so_and_lists_what_failed(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &plain_names, 3);
    end_run(fixture_run(&results, 1, 2), "failed", "step 122: the loss is not finite");
    end_run(fixture_run(&results, 3, 2), "pending", "");
    results.variants[2].late = true;
    for (int s = 0; s < 3; s++) fixture_run(&results, 2, s)->late = true;
    results.unigram_bpb = 2.2;
    strcpy(fixture_run(&results, 1, 0)->training_note, "the loss rose: 8.00");
    write_report(&results, in_scratch("partial"), pdf);
    char *text = pdf_text(pdf), *settings = contents(in_scratch("partial/test-data/settings.gp"));
    assert_holds(settings, "BROKEN = 0");
    assert_holds(text, "some of them are under it");
    assert_holds(
        text, "Incomplete. This suite is not complete: of 12 planned runs 10 are done, 1 failed, 1 have not finished");
    assert_holds(text, "step 122: the loss is not finite");
    assert_holds(text, "Blown up. Of 12 runs 1 blew up (recurrence 1): over the last fifth of the steps");
    assert_holds(text, "1 blown-up run");
    assert_holds(text, "2 of 3");
    assert_tables_count_up(text, 10);
    assert_holds(text, "no-rope (late)");
    assert_null(strstr(text, "(late) no-rope"));
    assert_null(strstr(text, "late: no-rope"));
    assert_holds(settings, "'recurrence (1 failed)', 'no-rope (late)'");
    free(settings);
    free(text);
    text = contents(in_scratch("partial/test-data/significance.csv"));
    assert_holds(text, "variant,late,seeds,");
    assert_holds(text, "\nno-rope,1,");
    assert_holds(text, "\nrecurrence,0,");
    free(text);
    text = contents(in_scratch("partial/test-data/runs.csv"));
    assert_holds(text, "\n3,no-rope,1337,done,1,");
    free(text);
    results_free(&results);
}

static void keep_one_run(struct results *results) {
    for (int i = 1; i < results->run_count; i++) end_run(&results->runs[i], "pending", "");
}

static void one_finished_run_makes_a_report_without_a_comparison(void **state) {
    (void)state;
    struct results results;
    char pdf[4096];
    fixture_results(&results, &plain_names, 3);
    keep_one_run(&results);
    write_report(&results, in_scratch("one"), pdf);
    char *text = pdf_text(pdf);
    assert_holds(text, "No comparison is possible yet");
    free(text);
    assert_false(exists(in_scratch("one/test-data/significance.tex")));
    results_free(&results);
}

static void without_a_finished_run_there_is_no_report(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 2);
    keep_one_run(&results);
    end_run(&results.runs[0], "failed", "no memory");
    struct report_request request = {
        .results = &results, .output_directory = in_scratch("none"), .templates = "reports"};
    assert_fails(&request, STATUS_DATA, "'test-data' has no finished run");
    assert_false(exists(in_scratch("none")));
    results_free(&results);
}

static void a_missing_program_is_named_with_its_package(void **state) {
    (void)state;
    struct results results;
    char *path = strdup(getenv("PATH"));
    fixture_results(&results, &plain_names, 2);
    struct report_request request = {
        .results = &results, .output_directory = in_scratch("lacking"), .templates = "reports"};
    setenv("PATH", scratch, 1);
    assert_fails(&request, STATUS_SYSTEM, "apt-get install gnuplot-nox");
    setenv("PATH", path, 1);
    assert_false(exists(in_scratch("lacking/test-data")));
    free(path);
    results_free(&results);
}

static void break_template(const char *folder) {
    const char *const copy[] = {"cp", "-r", "reports", folder, NULL};
    char *output, path[256];
    int code;
    assert_null(program_output(copy, &output, &code));
    free(output);
    snprintf(path, sizeof path, "%s/document.tex", folder);
    FILE *file = fopen(path, "w");
    fputs("\\documentclass{article}\n\\begin{document}\n\\undefinedmacro\n\\end{document}\n", file);
    fclose(file);
}

static void a_failure_of_latex_names_file_and_line_and_keeps_the_log(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 2);
    break_template(in_scratch("templates"));
    struct report_request request = {
        .results = &results, .output_directory = in_scratch("broken"), .templates = in_scratch("templates")};
    assert_fails(&request, STATUS_SYSTEM, "document.tex:3: Undefined control sequence");
    assert_true(exists(in_scratch("broken/test-data.failed/document.log")));
    assert_false(exists(in_scratch("broken/test-data.pdf")));
    results_free(&results);
}

static void a_missing_template_is_named(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 2);
    struct report_request request = {
        .results = &results, .output_directory = in_scratch("bare"), .templates = in_scratch("absent")};
    assert_fails(&request, STATUS_SYSTEM, "absent/document.tex");
    results_free(&results);
}

static void a_folder_that_is_no_report_is_left_alone(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 2);
    mkdir(in_scratch("mine"), 0777);
    mkdir(in_scratch("mine/test-data"), 0777);
    struct report_request request = {
        .results = &results, .output_directory = in_scratch("mine"), .templates = "reports"};
    assert_fails(&request, STATUS_USAGE, "exists and is no report");
    assert_true(exists(in_scratch("mine/test-data")));
    results_free(&results);
}

static bool stop_at_once(void *context, const char *what, double fraction) {
    (void)context, (void)what, (void)fraction;
    return true;
}

static void an_interrupted_report_leaves_nothing(void **state) {
    (void)state;
    struct results results;
    fixture_results(&results, &plain_names, 2);
    struct report_request request = {.results = &results,
                                     .output_directory = in_scratch("stopped"),
                                     .templates = "reports",
                                     .progress = stop_at_once};
    assert_fails(&request, STATUS_INTERRUPTED, "interrupted");
    assert_int_equal(rmdir(in_scratch("stopped")), 0); /* it is empty */
    results_free(&results);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_shows_verdicts_figures_and_hashes),
        cmocka_unit_test(every_table_and_figure_lies_beside_the_report),
        cmocka_unit_test(no_line_of_the_document_is_wider_than_the_page),
        cmocka_unit_test(the_csv_of_significance_holds_the_compared_figures),
        cmocka_unit_test(the_table_of_sizes_pairs_the_bytes_by_seed_and_tells_the_way_to_the_cap),
        cmocka_unit_test(the_variance_by_source_adds_up_to_what_was_put_in),
        cmocka_unit_test(a_calibration_that_is_not_there_says_why),
        cmocka_unit_test(declared_looks_show_boundaries_path_and_where_it_stopped),
        cmocka_unit_test(a_statistic_without_bound_is_told_and_drawn),
        cmocka_unit_test(trainings_with_many_variants_have_short_names_in_the_legend),
        cmocka_unit_test(times_are_compared_within_blocks_of_one_machine),
        cmocka_unit_test(drawn_results_claim_no_training),
        cmocka_unit_test(the_same_results_make_the_same_bytes),
        cmocka_unit_test(hostile_names_come_out_as_text),
        cmocka_unit_test(an_unfinished_suite_says_so_and_lists_what_failed),
        cmocka_unit_test(one_finished_run_makes_a_report_without_a_comparison),
        cmocka_unit_test(without_a_finished_run_there_is_no_report),
        cmocka_unit_test(a_missing_program_is_named_with_its_package),
        cmocka_unit_test(a_failure_of_latex_names_file_and_line_and_keeps_the_log),
        cmocka_unit_test(a_missing_template_is_named),
        cmocka_unit_test(a_folder_that_is_no_report_is_left_alone),
        cmocka_unit_test(an_interrupted_report_leaves_nothing),
    };
    return cmocka_run_group_tests_name("report", tests, make_scratch, remove_scratch);
}
