/* trace: the runs and the query behind each number of a report; see trace.h. */
#include "harness/report/trace.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"
#include "harness/plan.h"
#include "harness/report/sources.h"

/* --- figures ------------------------------------------------------------------------------------------------------ */

static bool of_sources(const struct trace_figure *figure) { return figure->basis == BASIS_ALL; }

static bool of_replicates(const struct trace_figure *figure) {
    return of_sources(figure) && figure->place == offsetof(struct variance_sources, replicate);
}

const char *trace_basis_name(enum trace_basis basis) {
    static char looks[MOST_LOOKS][24];
    static const char *const names[BASES] = {
        [BASIS_VARIANT] = "with the metric", [BASIS_DONE] = "finished",    [BASIS_PAIRS] = "compared",
        [BASIS_BLOCKS] = "in one block",     [BASIS_BOTH] = "of one seed", [BASIS_FAMILY] = "of the family",
        [BASIS_ALL] = "all with the metric"};
    if (names[basis]) return names[basis];
    int look = (int)basis - BASIS_LOOK_1;
    snprintf(looks[look], sizeof looks[look], "look %d", look + 1);
    return looks[look];
}

bool trace_of_look(const struct trace_figure *figure) {
    return figure->basis >= BASIS_LOOK_1 && figure->basis < BASIS_LOOK_1 + MOST_LOOKS;
}

bool trace_has(const struct analysis *a, int row, const struct trace_figure *figure) {
    if (row == TRACE_SOURCES || of_sources(figure)) return row == TRACE_SOURCES && of_sources(figure);
    if (trace_of_look(figure)) return (int)figure->place < a->table.rows[row].look_count;
    return row > 0 || figure->basis == BASIS_VARIANT || figure->basis == BASIS_DONE;
}

const char *trace_row_name(const struct analysis *a, int row) {
    return row == TRACE_SOURCES ? "sources" : a->table.rows[row].variant;
}

const struct place *trace_place(const struct analysis *a, const struct trace_figure *figure, int i) {
    if (figure->places[i]) return place_find(figure->places[i]);
    return i || figure->places[0] ? NULL : place_find(a->results->metric);
}

void trace_value(const struct analysis *a, int row, const struct trace_figure *figure, struct text *t) {
    double value = figure->value ? figure->value(a, row, figure) : (double)NAN;
    if (!figure->value)
        text_add(t, "%s", verdict_name(a->table.rows[row].verdict));
    else if (isfinite(value))
        text_add(t, "%.12g", value);
    else
        text_add(t, "-");
}

/* --- runs --------------------------------------------------------------------------------------------------------- */

static bool has_value(const struct analysis *a, int run) { return isfinite(a->metrics[run]); }

/* Failed runs count where they rank. */
static bool compared(const struct analysis *a, const struct comparison *row, int run) {
    return has_value(a, run) || (test_ranks(row->test) && run_failed(&a->results->runs[run]));
}

static void mark_variant(const struct analysis *a, int variant, bool with_metric, bool *used) {
    for (int s = 0; s < a->results->seed_count; s++) {
        int run = analysis_run(a, variant, s);
        if (run >= 0) used[run] |= with_metric ? has_value(a, run) : run_done(&a->results->runs[run]);
    }
}

/* A run that failed is compared wherever it ran. */
static bool same_machine(const struct analysis *a, int variant, int seed) {
    return !analysis_both(a, variant, seed) || analysis_block(a, variant, seed);
}

/* Of the first `seeds` ones. */
static void mark_pairs(const struct analysis *a, int row, int seeds, bool *used) {
    const struct comparison *c = &a->table.rows[row];
    for (int s = 0; s < seeds; s++) {
        int runs[] = {analysis_run(a, analysis_variant(a, row), s), analysis_run(a, a->baseline, s)};
        bool there[] = {runs[0] >= 0 && compared(a, c, runs[0]), runs[1] >= 0 && compared(a, c, runs[1])};
        if (a->metric->timed && !(there[0] && there[1] && same_machine(a, analysis_variant(a, row), s))) continue;
        for (int k = 0; k < 2; k++)
            if (there[k] && (!c->paired || there[!k])) used[runs[k]] = true;
    }
}

static void mark_both(const struct analysis *a, int variant, bool block, bool *used) {
    for (int s = 0; s < a->results->seed_count; s++)
        if (block ? analysis_block(a, variant, s) : analysis_both(a, variant, s))
            used[analysis_run(a, variant, s)] = used[analysis_run(a, a->baseline, s)] = true;
}

static void mark_family(const struct analysis *a, int row, bool *used) {
    const struct comparison *c = &a->table.rows[row];
    for (int r = 1; r < a->table.count; r++) {
        const struct comparison *other = &a->table.rows[r];
        bool together = c->late || (!other->late && other->group == c->group);
        if (!isnan(other->p) && together) mark_pairs(a, r, a->results->seed_count, used);
    }
}

static void mark(const struct analysis *a, int row, enum trace_basis basis, bool *used) {
    int variant = row >= 0 ? analysis_variant(a, row) : -1;
    for (int v = 0; basis == BASIS_ALL && v < a->results->variant_count; v++) mark_variant(a, v, true, used);
    if (basis == BASIS_VARIANT || basis == BASIS_DONE) mark_variant(a, variant, basis == BASIS_VARIANT, used);
    if (row <= 0) return; /* the baseline is compared with nothing */
    if (basis == BASIS_PAIRS) mark_pairs(a, row, a->results->seed_count, used);
    if (basis == BASIS_BLOCKS || basis == BASIS_BOTH) mark_both(a, variant, basis == BASIS_BLOCKS, used);
    if (basis == BASIS_FAMILY) mark_family(a, row, used);
    int look = (int)basis - BASIS_LOOK_1;
    if (look >= 0 && look < a->table.rows[row].look_count)
        mark_pairs(a, row, (int)a->table.rows[row].looks[look].n, used);
}

status trace_runs(const struct analysis *a, int row, enum trace_basis basis, struct trace_runs *out) {
    size_t count = (size_t)a->results->run_count;
    bool *used = calloc(count + 1, sizeof *used);
    *out = (struct trace_runs){.runs = calloc(count + 1, sizeof *out->runs)};
    if (!used || !out->runs) {
        free(used);
        trace_runs_free(out);
        return status_new(STATUS_SYSTEM, "out of memory for %zu runs", count);
    }
    mark(a, row, basis, used);
    for (size_t i = 0; i < count; i++)
        if (used[i]) out->runs[out->count++] = (int)i;
    free(used);
    return NULL;
}

void trace_runs_free(struct trace_runs *runs) {
    free(runs->runs);
    *runs = (struct trace_runs){0};
}

static int64_t id_of(const struct analysis *a, const struct trace_runs *runs, int i) {
    return a->results->runs[runs->runs[i]].id;
}

void trace_ids(const struct analysis *a, const struct trace_runs *runs, struct text *t) {
    int64_t *ids = calloc((size_t)runs->count + 1, sizeof *ids);
    t->failed |= !ids;
    for (int i = 0; ids && i < runs->count; i++) ids[i] = id_of(a, runs, i);
    if (ids && runs->count)
        text_progressions(t, ids, (size_t)runs->count);
    else
        text_add(t, "none");
    free(ids);
}

/* --- queries ------------------------------------------------------------------------------------------------------ */

static void add_columns(const struct analysis *a, const struct trace_figure *figure, struct text *t) {
    for (int i = 0; i < 2; i++) {
        const struct place *place = trace_place(a, figure, i);
        if (place) text_add(t, ", ");
        if (place) place_column(place, t);
    }
}

/* A line for each time that a training was made again, in place of one a run. */
static void add_replicates(struct text *t) {
    text_add(t, " JOIN run_stages s ON s.run = r.id AND s.part = %d JOIN replicates m ON m.stage = s.stage",
             (int)PART_TRAIN);
}

void trace_query(const struct analysis *a, const struct trace_figure *figure, const struct trace_runs *runs,
                 struct text *t) {
    text_add(t, "SELECT r.id, v.name, r.seed");
    if (of_replicates(figure))
        text_add(t, ", m.at, m.host, m.equal, m.step");
    else
        add_columns(a, figure, t);
    text_add(t, " FROM runs r JOIN variants v ON v.id = r.variant");
    if (of_replicates(figure)) add_replicates(t);
    text_add(t, " WHERE r.id IN (");
    for (int k = 0; k < runs->count; k++) text_add(t, "%s%" PRId64, k ? ", " : "", id_of(a, runs, k));
    text_add(t, ") ORDER BY r.id");
}

/* --- cells -------------------------------------------------------------------------------------------------------- */

static status find_figure(const struct analysis *a, const char *cell, const char *name, int row,
                          const struct trace_figure **figure) {
    const char *names[128], *nearest;
    size_t count = 0;
    for (size_t i = 0; i < trace_figure_count; i++) {
        *figure = &trace_figures[i];
        if (!trace_has(a, row, *figure)) continue;
        if (strcmp((*figure)->name, name) == 0) return NULL;
        if (count < sizeof names / sizeof *names) names[count++] = (*figure)->name;
    }
    nearest = nearest_word(name, names, count);
    return status_new(STATUS_USAGE, "cell '%s': %s has no figure '%s'%s%s%s", cell, trace_row_name(a, row), name,
                      nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

static status unknown_variant(const struct analysis *a, const char *cell) {
    for (int r = 0; r < a->table.count; r++)
        if (strcmp(cell, a->table.rows[r].variant) == 0)
            return status_new(STATUS_USAGE, "cell '%s': which figure of it? a cell is VARIANT.FIGURE, as %s.%s", cell,
                              cell, r ? "delta" : "mean");
    const char **names = calloc((size_t)a->table.count + 1, sizeof *names), *nearest = NULL;
    size_t length = strrchr(cell, '.') ? (size_t)(strrchr(cell, '.') - cell) : strlen(cell);
    char variant[NAME_CAPACITY];
    snprintf(variant, sizeof variant, "%.*s", (int)length, cell);
    for (int r = 0; names && r < a->table.count; r++) names[r] = a->table.rows[r].variant;
    if (names) nearest = nearest_word(variant, names, (size_t)a->table.count);
    status unknown =
        status_new(STATUS_USAGE, "cell '%s': no variant '%s' is compared; a cell is VARIANT.FIGURE%s%s%s", cell,
                   variant, nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
    free(names);
    return unknown;
}

status trace_find(const struct analysis *a, const char *cell, int *row, const struct trace_figure **figure) {
    for (int r = 0; r <= a->table.count; r++) {
        *row = r < a->table.count ? r : TRACE_SOURCES; /* a variant of that name comes first */
        size_t length = strlen(trace_row_name(a, *row));
        if (strncmp(cell, trace_row_name(a, *row), length) == 0 && cell[length] == '.')
            return find_figure(a, cell, cell + length + 1, *row, figure);
    }
    return unknown_variant(a, cell);
}
