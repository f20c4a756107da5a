/* cmd_trace: from a number of the report back to the runs that it rests on, and the query that reads them. */
#include <inttypes.h>
#include <stdio.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/report/calibration.h"
#include "harness/report/trace.h"
#include "harness/store.h"
#include "harness/table.h"
#include "harness/verbs.h"

/* A number of the report, and the runs behind it. */
struct cell {
    const struct analysis *a;
    int row;
    const struct trace_figure *figure;
    struct trace_runs runs;
};

static double value_of(const struct cell *c, int place, int run) {
    return place_value(trace_place(c->a, c->figure, place), &c->a->results->runs[run]);
}

static json_t *run_json(const struct cell *c, int index) {
    const struct result_run *run = &c->a->results->runs[index];
    json_t *out = json_object();
    json_object_set_new(out, "run", json_integer(run->id));
    json_object_set_new(out, "variant", json_text(c->a->results->variants[run->variant].name));
    json_object_set_new(out, "seed", json_integer(run->seed));
    json_object_set_new(out, "status", json_text(run->status));
    json_object_set_new(out, "late", json_boolean(run->late));
    json_object_set_new(out, "value", json_number(value_of(c, 0, index)));
    if (trace_place(c->a, c->figure, 1)) json_object_set_new(out, "minus", json_number(value_of(c, 1, index)));
    return out;
}

static json_t *cell_json(const struct cell *c) {
    struct text value = {0}, query = {0}, name = {0};
    json_t *out = json_object(), *list = json_array();
    trace_value(c->a, c->row, c->figure, &value);
    trace_query(c->a, c->figure, &c->runs, &query);
    text_add(&name, "%s.%s", trace_row_name(c->a, c->row), c->figure->name);
    json_object_set_new(out, "cell", json_text(text_of(&name)));
    json_object_set_new(out, "value", json_text(text_of(&value)));
    json_object_set_new(out, "formula", json_text(c->figure->formula));
    json_object_set_new(out, "query", json_text(text_of(&query)));
    json_object_set_new(out, "read_with", json_text(c->a->caveats));
    for (int i = 0; i < c->runs.count; i++) json_array_append_new(list, run_json(c, c->runs.runs[i]));
    json_object_set_new(out, "runs", list);
    text_free(&value);
    text_free(&query);
    text_free(&name);
    return out;
}

static void print_runs(const struct cell *c) {
    const struct place *places[] = {trace_place(c->a, c->figure, 0), trace_place(c->a, c->figure, 1)};
    const struct table_column columns[] = {
        {"run", ALIGN_RIGHT, COLUMN_WHOLE},
        {"variant", ALIGN_LEFT, COLUMN_CUT},
        {"seed", ALIGN_RIGHT, COLUMN_WHOLE},
        {"status", ALIGN_LEFT, COLUMN_WHOLE},
        {place_name(places[0]), ALIGN_RIGHT, COLUMN_WHOLE},
        {places[1] ? place_name(places[1]) : "", ALIGN_RIGHT, COLUMN_WHOLE},
    };
    int count = places[1] ? 6 : 5;
    struct table *table = table_new(columns, (size_t)count);
    for (int i = 0; i < c->runs.count; i++) {
        const struct result_run *run = &c->a->results->runs[c->runs.runs[i]];
        table_cell(table, "%" PRId64, run->id);
        table_cell(table, "%s", c->a->results->variants[run->variant].name);
        table_cell(table, "%" PRId64, run->seed);
        table_cell(table, "%s%s", run->status, run->late ? " (late)" : "");
        for (int k = 0; k < count - 4; k++) table_cell(table, "%.12g", value_of(c, k, c->runs.runs[i]));
    }
    table_print(table, stdout, 0);
    table_free(table);
}

static void print_cell(const struct cell *c) {
    struct text value = {0}, query = {0};
    trace_value(c->a, c->row, c->figure, &value);
    trace_query(c->a, c->figure, &c->runs, &query);
    printf("%s.%s = %s\n%s\n", trace_row_name(c->a, c->row), c->figure->name, text_of(&value), c->figure->formula);
    print_caveats(c->a->results);
    putchar('\n');
    print_runs(c);
    printf("\n%s;\n", text_of(&query));
    text_free(&value);
    text_free(&query);
}

static status show_cell(const struct invocation *in, const struct analysis *a) {
    struct cell c = {.a = a};
    status failure = NULL;
    TRY(trace_find(a, in->arguments[1], &c.row, &c.figure));
    TRY(trace_runs(a, c.row, c.figure->basis, &c.runs));
    if (cli_switch(in, "json"))
        failure = json_print(stdout, cell_json(&c));
    else
        print_cell(&c);
    trace_runs_free(&c.runs);
    return failure;
}

/* Adds a cell to the table, or to the JSON list. */
static status add_cell(struct cell *c, struct table *table, json_t *list) {
    struct text value = {0}, ids = {0};
    TRY(trace_runs(c->a, c->row, c->figure->basis, &c->runs));
    if (list) {
        json_array_append_new(list, cell_json(c));
    } else {
        trace_value(c->a, c->row, c->figure, &value);
        trace_ids(c->a, &c->runs, &ids);
        table_cell(table, "%s.%s", trace_row_name(c->a, c->row), c->figure->name);
        table_cell(table, "%s", text_of(&value));
        table_cell(table, "%s", text_of(&ids));
        text_free(&value);
        text_free(&ids);
    }
    trace_runs_free(&c->runs);
    return NULL;
}

static status add_row(const struct analysis *a, int row, struct table *table, json_t *list) {
    for (size_t i = 0; i < trace_figure_count; i++) {
        struct cell c = {.a = a, .row = row, .figure = &trace_figures[i]};
        if (trace_has(a, row, c.figure)) TRY(add_cell(&c, table, list));
    }
    return NULL;
}

static status show_all(const struct invocation *in, const struct analysis *a) {
    static const struct table_column columns[] = {
        {"cell", ALIGN_LEFT, COLUMN_WHOLE}, {"value", ALIGN_RIGHT, COLUMN_WHOLE}, {"runs", ALIGN_LEFT, COLUMN_CUT}};
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    status failure = NULL;
    for (int r = 0; r <= a->table.count && !failure; r++)
        failure = add_row(a, r < a->table.count ? r : TRACE_SOURCES, table, list);
    if (!failure && !list) {
        print_caveats(a->results);
        table_print(table, stdout, 0);
    }
    table_free(table);
    if (failure) json_decref(list);
    return failure || !list ? failure : json_print(stdout, list);
}

/* Whether there is anything to show: only what is shown is a peek. */
static status check(const struct invocation *in, const struct results *results) {
    struct analysis a;
    struct cell c;
    TRY(analyse(results, &a));
    status failure = a.compared ? NULL : status_new(STATUS_DATA, "%s", a.not_compared);
    if (!failure && in->count > 1) failure = trace_find(&a, in->arguments[1], &c.row, &c.figure);
    analysis_free(&a);
    return failure;
}

static status show(const struct invocation *in, const struct results *results) {
    struct analysis a;
    TRY(analyse(results, &a));
    status failure = calibrations_make(&a);
    if (!failure) failure = in->count > 1 ? show_cell(in, &a) : show_all(in, &a);
    analysis_free(&a);
    return failure;
}

static status run(const struct invocation *in) {
    struct results results = {0};
    struct store *store;
    char name[NAME_CAPACITY];
    TRY(suite_name(in->arguments[0], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failure = store_load_results_at(store, name, cli_text(in, "scale"), RESULTS_ALL, &results);
    store_close(store);
    if (!failure) failure = check(in, &results);
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
    "hinge trace demo no-rope.artifact_bytes",
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
