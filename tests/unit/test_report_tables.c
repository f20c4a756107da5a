/* test_report_tables: what tables hold where there is more than fits on paper, and published figures beside ours. The
 * numbers are invented (report_fixture.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/report/grid.h"
#include "harness/report/published.h"
#include "harness/report/tables.h"
#include "tests/unit/report_files.h"
#include "tests/unit/report_fixture.h"

static void more_runs_than_fit_on_paper_are_all_in_the_csv(void **state) {
    (void)state;
    static const struct grid_column columns[] = {{"run", "r", "run"}};
    struct grid g;
    grid_start(&g, columns, 1, true, "1 failed run, 5 % & more");
    for (int i = 0; i < GRID_PAPER_ROWS + 50; i++) grid_integer(&g, i);
    assert_null(grid_write(&g, scratch, "many"));
    char *latex = contents(in_scratch("many.tex")), *csv = contents(in_scratch("many.csv"));
    assert_holds(latex, "50 further rows are in many.csv");
    assert_null(strstr(latex, "\n400 "));
    assert_holds(csv, "run,read_with\n0,\"1 failed run, 5 % & more\"\n");
    assert_holds(csv, "\n449,");
    assert_holds(latex, "Read with: 1 failed run, 5 \\% \\& more.");
    free(latex);
    free(csv);
}

/* "\\*" ends a row that stays on the next one's page. */
static void the_last_rows_of_a_long_table_stay_on_one_page(void **state) {
    (void)state;
    static const struct grid_column columns[] = {{"run", "r", "run"}};
    struct grid g;
    grid_start(&g, columns, 1, true, "");
    for (int i = 0; i < 7; i++) grid_integer(&g, i);
    assert_null(grid_write(&g, scratch, "kept"));
    char *latex = contents(in_scratch("kept.tex"));
    assert_holds(latex, "2 \\\\ \n3 \\\\*\n4 \\\\*\n5 \\\\*\n6 \\\\ \n\\end");
    free(latex);
}

/* The design of so many seeds, of which those from `late` on are late. */
static void write_design(const int64_t *seeds, int count, int late, char **latex, char **csv) {
    struct results results;
    struct analysis analysis;
    fixture_results(&results, &plain_names, count);
    for (int i = 0; i < results.run_count; i++) {
        int s = i / results.variant_count;
        results.runs[i].seed = results.seeds[s] = seeds[s];
        results.runs[i].late = s >= late;
    }
    assert_null(analyse(&results, &analysis));
    assert_null(tables_write(&analysis, scratch));
    *latex = contents(in_scratch("design.tex"));
    *csv = contents(in_scratch("design.csv"));
    analysis_free(&analysis);
    results_free(&results);
}

static void more_seeds_than_fit_on_paper_are_all_in_the_csv(void **state) {
    (void)state;
    enum { MANY = 120 };
    int64_t in_steps[MANY], in_none[MANY];
    char *latex, *csv;
    for (int s = 0; s < MANY; s++) in_steps[s] = s < 100 ? 1 + s : 1000 + 5 * s;
    for (int s = 0; s < MANY; s++) in_none[s] = 1000 + s * s * s;
    write_design(in_steps, MANY, 110, &latex, &csv);
    assert_holds(latex, "Seeds & 120: 1--100, 1500, 1505 \\dots{} 1545 (by 5); 1550, 1555 \\dots{} 1595 (by 5) (late)");
    assert_holds(csv, ", 98, 99, 100, 1500, 1505, ");
    assert_holds(csv, ", 1590 (late), 1595 (late)\"");
    free(latex);
    free(csv);
    write_design(in_none, MANY, MANY, &latex, &csv);
    assert_holds(latex, "Seeds & 120: 1000, 1001, 1008, 1027, 1064, 1125, 1216, 1343, \\dots{} 1686159 \\\\");
    assert_holds(csv, ", 1686159\"");
    free(latex);
    free(csv);
}

/* --- published figures -------------------------------------------------------------------------------------------- */

static status write_published(const char *rows, char **csv) {
    struct results results;
    struct analysis analysis;
    fixture_results(&results, &plain_names, 3);
    snprintf(results.source, sizeof results.source, "%s", in_scratch("suite.yaml"));
    FILE *file = fopen(in_scratch("published-figures.csv"), "w");
    assert_non_null(file);
    fprintf(file, "suites,variant,bpb_raw,bpb_artifact,milliseconds,bytes,note\n");
    fprintf(file, rows, results.suite, results.variants[1].name);
    assert_int_equal(fclose(file), 0);
    unlink(in_scratch("published.csv"));
    assert_null(analyse(&results, &analysis));
    status failed = published_write(&analysis, scratch);
    *csv = !failed && exists(in_scratch("published.csv")) ? contents(in_scratch("published.csv")) : NULL;
    analysis_free(&analysis);
    results_free(&results);
    return failed;
}

static void published_figures_stand_beside_the_means_of_their_variants(void **state) {
    (void)state;
    char *csv;
    assert_null(write_published("other,%2$s,9,,,,not this suite\nother %1$s,%2$s,1.25,,470,,a note\n", &csv));
    assert_non_null(csv);
    assert_non_null(strstr(csv, ",1.25,"));
    assert_non_null(strstr(csv, ",470,"));
    assert_non_null(strstr(csv, ",a note"));
    assert_null(strstr(csv, "not this suite"));
    free(csv);
}

static void published_figures_of_other_suites_make_no_table(void **state) {
    (void)state;
    char *csv;
    assert_null(write_published("other%1$s,%2$s,1,,,,\n%1$s,nobody,1,,,,\n", &csv));
    assert_null(csv);
}

static void a_published_figure_that_is_no_number_is_refused_with_its_line(void **state) {
    (void)state;
    const char *const rows[] = {"%s,%s,one,,,,\n", "%s,%s,1,2\n", "%s,%s,1,,,,,more\n"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *csv;
        status failed = write_published(rows[i], &csv);
        assert_non_null(failed);
        assert_int_equal(status_kind(failed), STATUS_DATA);
        assert_non_null(strstr(status_text(failed), "published-figures.csv:2: "));
        status_free(failed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_runs_than_fit_on_paper_are_all_in_the_csv),
        cmocka_unit_test(the_last_rows_of_a_long_table_stay_on_one_page),
        cmocka_unit_test(more_seeds_than_fit_on_paper_are_all_in_the_csv),
        cmocka_unit_test(published_figures_stand_beside_the_means_of_their_variants),
        cmocka_unit_test(published_figures_of_other_suites_make_no_table),
        cmocka_unit_test(a_published_figure_that_is_no_number_is_refused_with_its_line),
    };
    return cmocka_run_group_tests_name("report tables", tests, make_scratch, remove_scratch);
}
