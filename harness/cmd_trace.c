/* cmd_trace: from a number of the report back to the runs that it rests on, and the query that reads them. */
#include <inttypes.h>
#include <stdio.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/report/trace.h"
#include "harness/store.h"
#include "harness/table.h"
#include "harness/verbs.h"

static double value_of(const struct analysis *a, int run) {
    double value;
    status unknown = results_metric(a->results, run, a->results->metric, &value);
    if (unknown) status_free(unknown);
    return value;
}

static json_t *run_json(const struct analysis *a, int index) {
    const struct result_run *run = &a->results->runs[index];
    json_t *out = json_object();
    json_object_set_new(out, "run", json_integer(run->id));
    json_object_set_new(out, "variant", json_text(a->results->variants[run->variant].name));
    json_object_set_new(out, "seed", json_integer(run->seed));
    json_object_set_new(out, "status", json_text(run->status));
    json_object_set_new(out, "late", json_boolean(run->late));
    json_object_set_new(out, "value", json_number(value_of(a, index)));
    return out;
}

static json_t *cell_json(const struct analysis *a, int row, const struct trace_figure *figure,
                         const struct trace_runs *runs) {
    struct text value = {0}, query = {0}, name = {0};
    json_t *out = json_object(), *list = json_array();
    figure->value(&a->table.rows[row], &value);
    trace_query(a, runs, &query);
    text_add(&name, "%s.%s", a->table.rows[row].variant, figure->name);
    json_object_set_new(out, "cell", json_text(text_of(&name)));
    json_object_set_new(out, "value", json_text(text_of(&value)));
    json_object_set_new(out, "formula", json_text(figure->formula));
    json_object_set_new(out, "query", json_text(text_of(&query)));
    for (int i = 0; i < runs->count; i++) json_array_append_new(list, run_json(a, runs->runs[i]));
    json_object_set_new(out, "runs", list);
    text_free(&value);
    text_free(&query);
    text_free(&name);
    return out;
}

static void print_runs(const struct analysis *a, const struct trace_runs *runs) {
    static const struct table_column columns[] = {
        {"run", ALIGN_RIGHT, false},   {"variant", ALIGN_LEFT, true}, {"seed", ALIGN_RIGHT, false},
        {"value", ALIGN_RIGHT, false}, {"status", ALIGN_LEFT, false},
    };
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    for (int i = 0; i < runs->count; i++) {
        const struct result_run *run = &a->results->runs[runs->runs[i]];
        table_cell(table, "%" PRId64, run->id);
        table_cell(table, "%s", a->results->variants[run->variant].name);
        table_cell(table, "%" PRId64, run->seed);
        table_cell(table, "%.12g", value_of(a, runs->runs[i]));
        table_cell(table, "%s%s", run->status, run->late ? " (late)" : "");
    }
    table_print(table, stdout, 0);
    table_free(table);
}

static void print_cell(const struct analysis *a, int row, const struct trace_figure *figure,
                       const struct trace_runs *runs) {
    struct text value = {0}, query = {0};
    figure->value(&a->table.rows[row], &value);
    trace_query(a, runs, &query);
    printf("%s.%s = %s\n%s; %s\n\n", a->table.rows[row].variant, figure->name, text_of(&value), a->results->metric,
           figure->formula);
    print_runs(a, runs);
    printf("\n%s;\n", text_of(&query));
    text_free(&value);
    text_free(&query);
}

static status show_cell(const struct invocation *in, const struct analysis *a) {
    const struct trace_figure *figure;
    struct trace_runs runs;
    int row;
    TRY(trace_find(a, in->arguments[1], &row, &figure));
    TRY(trace_runs(a, row, figure->basis, &runs));
    status failure = NULL;
    if (cli_switch(in, "json"))
        failure = json_print(stdout, cell_json(a, row, figure, &runs));
    else
        print_cell(a, row, figure, &runs);
    trace_runs_free(&runs);
    return failure;
}

/* Adds a cell to the table, or to the JSON list. */
static status add_cell(const struct analysis *a, int row, const struct trace_figure *figure, struct table *table,
                       json_t *list) {
    struct trace_runs runs;
    TRY(trace_runs(a, row, figure->basis, &runs));
    if (list) {
        json_array_append_new(list, cell_json(a, row, figure, &runs));
    } else {
        struct text value = {0}, ids = {0};
        figure->value(&a->table.rows[row], &value);
        trace_ids(a, &runs, &ids);
        table_cell(table, "%s.%s", a->table.rows[row].variant, figure->name);
        table_cell(table, "%s", text_of(&value));
        table_cell(table, "%s", text_of(&ids));
        text_free(&value);
        text_free(&ids);
    }
    trace_runs_free(&runs);
    return NULL;
}

static status show_all(const struct invocation *in, const struct analysis *a) {
    static const struct table_column columns[] = {
        {"cell", ALIGN_LEFT, false}, {"value", ALIGN_RIGHT, false}, {"runs", ALIGN_LEFT, true}};
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    status failure = NULL;
    for (int r = 0; r < a->table.count && !failure; r++)
        for (size_t i = 0; i < trace_figure_count && !failure; i++)
            if (r > 0 || trace_figures[i].basis == BASIS_VARIANT)
                failure = add_cell(a, r, &trace_figures[i], table, list);
    if (!failure && !list) {
        table_print(table, stdout, 0);
        print_caveats(a->results);
    }
    table_free(table);
    if (failure) json_decref(list);
    return failure || !list ? failure : json_print(stdout, list);
}

static status show(const struct invocation *in, const struct results *results) {
    struct analysis a;
    TRY(analyse(results, &a));
    status failure = NULL;
    if (!a.compared)
        failure = status_new(STATUS_DATA, "%s", a.not_compared);
    else
        failure = in->count > 1 ? show_cell(in, &a) : show_all(in, &a);
    analysis_free(&a);
    return failure;
}

static status run(const struct invocation *in) {
    struct results results = {0};
    struct store *store;
    char name[NAME_CAPACITY];
    TRY(suite_name(in->arguments[0], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failure = store_load_results_at(store, name, cli_text(in, "scale"), RESULTS_FIGURES, &results);
    store_close(store);
    if (!failure) note_peek(in, &results);
    if (!failure) failure = show(in, &results);
    results_free(&results);
    return failure;
}

static const struct flag_row flags[] = {
    FLAG_ROW_SCALE,
    FLAG_ROW_DB,
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge trace demo",
    "hinge trace demo no-rope.p_adjusted",
    NULL,
};

const struct verb verb_trace = {
    .name = "trace",
    .purpose = "say which runs a number of the report rests on",
    .arguments = "SUITE [VARIANT.FIGURE]",
    .least = 1,
    .most = 2,
    .flags = flags,
    .examples = examples,
    .run = run,
};
