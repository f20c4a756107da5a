/* cmd_status: what is done, running, failed and left, of every suite in the database or run by run of one. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/report/analysis.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "harness/verbs.h"

/* --- all suites ----------------------------------------------------------------------------------------------- */

static json_t *summary_json(const struct suite_summary *s) {
    json_t *object = json_object();
    json_object_set_new(object, "suite", json_text(s->name));
    json_object_set_new(object, "scale", json_text(s->scale));
    json_object_set_new(object, "file", json_text(s->path));
    json_object_set_new(object, "simulated", json_boolean(s->simulated));
    json_object_set_new(object, "declared_at", json_text(s->declared_at));
    json_object_set_new(object, "last_activity", json_text(s->last_activity));
    const struct {
        const char *name;
        int value;
    } counts[] = {{"runs", s->runs},
                  {"done", s->done},
                  {"running", s->running},
                  {"failed", s->failed},
                  {"interrupted", s->interrupted},
                  {"pending", s->pending},
                  {"deleted", s->deleted},
                  {"late", s->late}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        json_object_set_new(object, counts[i].name, json_integer(counts[i].value));
    return object;
}

static void print_summaries(const struct suite_summary *rows, int count) {
    static const struct table_column columns[] = {
        {"suite", ALIGN_LEFT, COLUMN_CUT},      {"scale", ALIGN_LEFT, COLUMN_WHOLE},
        {"runs", ALIGN_RIGHT, COLUMN_WHOLE},    {"done", ALIGN_RIGHT, COLUMN_WHOLE},
        {"running", ALIGN_RIGHT, COLUMN_WHOLE}, {"failed", ALIGN_RIGHT, COLUMN_WHOLE},
        {"pending", ALIGN_RIGHT, COLUMN_WHOLE}, {"interrupted", ALIGN_RIGHT, COLUMN_WHOLE},
        {"deleted", ALIGN_RIGHT, COLUMN_WHOLE}, {"declared", ALIGN_LEFT, COLUMN_OPTIONAL},
    };
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    for (int i = 0; i < count; i++) {
        const int counts[] = {rows[i].runs,    rows[i].done,        rows[i].running, rows[i].failed,
                              rows[i].pending, rows[i].interrupted, rows[i].deleted};
        table_cell(table, "%s%s", rows[i].name, rows[i].simulated ? " (simulated)" : "");
        table_cell(table, "%s", *rows[i].scale ? rows[i].scale : "-");
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) table_cell(table, "%d", counts[c]);
        table_cell(table, "%.16s", rows[i].declared_at);
    }
    table_print(table, stdout, 0);
    table_free(table);
}

static status show_suites(const struct invocation *in, struct store *store) {
    struct suite_summary *rows = NULL;
    int count = 0;
    TRY(store_list_suites(store, &rows, &count));
    status failed = NULL;
    if (cli_switch(in, "json")) {
        json_t *list = json_array();
        for (int i = 0; i < count; i++) json_array_append_new(list, summary_json(&rows[i]));
        failed = json_print(stdout, list);
    } else if (count == 0) {
        printf("no suite has been run yet in %s\n", store_path(store));
    } else {
        print_summaries(rows, count);
    }
    free(rows);
    return failed;
}

/* --- one suite ------------------------------------------------------------------------------------------------ */

static const char not_needed[] = "not needed"; /* of runs after the look that decided */

static double or_zero(double value) { return isfinite(value) ? value : 0; }

static double evaluation_seconds(const struct result_evaluation *evaluation) {
    return evaluation->present ? or_zero(evaluation->value.seconds) : 0;
}

static double after_training(const struct result_run *run) {
    return or_zero(run->calibration_seconds) + or_zero(run->quantise_seconds) + evaluation_seconds(&run->raw) +
           evaluation_seconds(&run->averaged) + evaluation_seconds(&run->artifact);
}

static bool is(const struct result_run *run, const char *state) { return strcmp(run->status, state) == 0; }

/* Mean seconds of the done runs of a variant; of all done runs when it has none yet; NAN when there is none at all. */
static double mean_seconds(const struct results *results, int variant) {
    double sum = 0, all = 0;
    int count = 0, all_count = 0;
    for (int i = 0; i < results->run_count; i++) {
        const struct result_run *run = &results->runs[i];
        if (!is(run, "done")) continue;
        double seconds = or_zero(run->train_seconds) + after_training(run);
        all += seconds;
        all_count++;
        if (run->variant != variant) continue;
        sum += seconds;
        count++;
    }
    if (count) return sum / count;
    return all_count ? all / all_count : NAN;
}

/* An earlier run of the list has the same training: it costs nothing again. */
static bool shares_training(const struct results *results, int index) {
    for (int i = 0; i < index; i++)
        if (strcmp(results->runs[i].train_key, results->runs[index].train_key) == 0) return true;
    return false;
}

/* NAN when no run is done that would tell. */
static double seconds_left(const struct results *results) {
    double sum = 0;
    for (int i = 0; i < results->run_count; i++) {
        const struct result_run *run = &results->runs[i];
        if (is(run, "done") || is(run, "failed") || is(run, not_needed) || shares_training(results, i)) continue;
        double left = mean_seconds(results, run->variant) - or_zero(run->train_seconds);
        sum += left < 0 ? 0 : left; /* fmax would hide a NAN */
    }
    return sum;
}

static int count_state(const struct results *results, const char *state) {
    int count = 0;
    for (int i = 0; i < results->run_count; i++) count += is(&results->runs[i], state);
    return count;
}

static void bpb_cell(struct table *table, const struct result_evaluation *evaluation) {
    table_number(table, evaluation->present ? evaluation->value.bpb : NAN, 4);
}

static void print_runs(const struct results *results) {
    static const struct table_column columns[] = {
        {"run", ALIGN_RIGHT, COLUMN_WHOLE},      {"variant", ALIGN_LEFT, COLUMN_CUT},
        {"seed", ALIGN_RIGHT, COLUMN_WHOLE},     {"status", ALIGN_LEFT, COLUMN_WHOLE},
        {"steps", ALIGN_RIGHT, COLUMN_WHOLE},    {"train", ALIGN_RIGHT, COLUMN_WHOLE},
        {"bpb raw", ALIGN_RIGHT, COLUMN_WHOLE},  {"averaged", ALIGN_RIGHT, COLUMN_WHOLE},
        {"artifact", ALIGN_RIGHT, COLUMN_WHOLE}, {"bytes", ALIGN_RIGHT, COLUMN_WHOLE},
    };
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    char text[UNITS_CAPACITY];
    for (int i = 0; i < results->run_count; i++) {
        const struct result_run *run = &results->runs[i];
        table_cell(table, "%" PRId64, run->id);
        table_cell(table, "%s", results->variants[run->variant].name);
        table_cell(table, "%" PRId64, run->seed);
        table_cell(table, "%s%s", run->status, run->late ? " (late)" : "");
        table_cell(table, "%" PRId64, run->steps);
        table_cell(table, "%s", isfinite(run->train_seconds) ? format_duration(run->train_seconds, text) : "-");
        bpb_cell(table, &run->raw);
        bpb_cell(table, &run->averaged);
        bpb_cell(table, &run->artifact);
        table_cell(table, "%s", run->sizes.bytes ? format_count((long long)run->sizes.bytes, text) : "-");
    }
    table_print(table, stdout, 0);
    table_free(table);
}

static void print_errors(const struct results *results) {
    for (int i = 0; i < results->run_count; i++)
        if (*results->runs[i].error) printf("run %" PRId64 ": %s\n", results->runs[i].id, results->runs[i].error);
}

static void print_suite(const struct results *results) {
    char title[TITLE_CAPACITY], left[UNITS_CAPACITY];
    printf("%s: %d runs", suite_title(results->suite, results->scale, title), results->run_count);
    static const char *const states[] = {"done", "running", "failed", "interrupted", "pending", "deleted"};
    int spared = count_state(results, not_needed);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        printf(", %d %s", count_state(results, states[i]), states[i]);
    if (spared) printf(", %d %s", spared, not_needed);
    if (count_state(results, "done") + count_state(results, "failed") + spared < results->run_count) {
        double seconds = seconds_left(results);
        if (isfinite(seconds))
            printf("; about %s left, one job at a time", format_duration(seconds, left));
        else
            printf("; hinge plan estimates the time left");
    }
    if (simulated_note(results)) printf("\n%s", simulated_note(results));
    printf("\n");
    print_caveats(results);
    printf("\n");
    print_runs(results);
    print_errors(results);
}

static json_t *run_json(const struct results *results, const struct result_run *run) {
    json_t *object = json_object();
    json_object_set_new(object, "run", json_integer(run->id));
    json_object_set_new(object, "variant", json_text(results->variants[run->variant].name));
    json_object_set_new(object, "seed", json_integer(run->seed));
    json_object_set_new(object, "status", json_text(run->status));
    json_object_set_new(object, "late", json_boolean(run->late));
    json_object_set_new(object, "error", json_text(run->error));
    json_object_set_new(object, "steps", json_integer(run->steps));
    json_object_set_new(object, "train_seconds", json_number(run->train_seconds));
    json_object_set_new(object, "bpb_raw", json_number(run->raw.present ? run->raw.value.bpb : NAN));
    json_object_set_new(object, "bpb_averaged", json_number(run->averaged.present ? run->averaged.value.bpb : NAN));
    json_object_set_new(object, "bpb_artifact", json_number(run->artifact.present ? run->artifact.value.bpb : NAN));
    json_object_set_new(object, "artifact_bytes",
                        run->sizes.bytes ? json_integer((json_int_t)run->sizes.bytes) : json_null());
    json_object_set_new(object, "weights_sha256", json_text(run->weights_sha256));
    json_object_set_new(object, "trace_sha256", json_text(run->trace_sha256));
    return object;
}

static json_t *suite_json(const struct results *results) {
    json_t *object = json_object(), *runs = json_array();
    json_object_set_new(object, "suite", json_text(results->suite));
    json_object_set_new(object, "scale", json_text(results->scale));
    json_object_set_new(object, "simulated", json_boolean(simulated_note(results) != NULL));
    json_object_set_new(object, "declared_at", json_text(results->declared_at));
    json_object_set_new(object, "declaration_sha256", json_text(results->declaration_sha256));
    json_object_set_new(object, "done", json_integer(count_state(results, "done")));
    json_object_set_new(object, "seconds_left", json_number(seconds_left(results)));
    for (int i = 0; i < results->run_count; i++) json_array_append_new(runs, run_json(results, &results->runs[i]));
    json_object_set_new(object, "caveats", caveats_json(results));
    json_object_set_new(object, "runs", runs);
    return object;
}

/* What no comparison needs any more is not pending. Without a finished run nothing is decided. */
static void mark_spared(struct results *results) {
    struct analysis analysis;
    status failed = analyse(results, &analysis);
    for (int i = 0; !failed && i < results->run_count; i++)
        if (analysis.spares[i]) snprintf(results->runs[i].status, sizeof results->runs[i].status, "%s", not_needed);
    if (!failed) analysis_free(&analysis);
    status_free(failed);
}

static status show_suite(const struct invocation *in, struct store *store) {
    char name[NAME_CAPACITY];
    struct results results = {0};
    TRY(suite_name(in->arguments[0], name));
    TRY(store_load_results_at(store, name, cli_text(in, "scale"), RESULTS_FIGURES, &results));
    note_peek(in, &results);
    if (results.looks) mark_spared(&results);
    status failed = NULL;
    if (cli_switch(in, "json"))
        failed = json_print(stdout, suite_json(&results));
    else
        print_suite(&results);
    results_free(&results);
    return failed;
}

static status run(const struct invocation *in) {
    struct store *store;
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failed = in->count ? show_suite(in, store) : show_suites(in, store);
    store_close(store);
    return failed;
}

static const struct flag_row flags[] = {FLAG_ROW_SCALE, FLAG_ROW_DB, FLAG_ROW_JSON, FLAGS_END};

static const char *const examples[] = {
    "hinge status",
    "hinge status demo --scale tiny",
    NULL,
};

const struct verb verb_status = {
    .name = "status",
    .purpose = "what is done, running, failed and left: of all suites, or of one with its figures",
    .arguments = "[SUITE]",
    .least = 0,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
