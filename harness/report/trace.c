/* trace: from every number of the significance and spread tables back to the runs it rests on; see trace.h. */
#include "harness/report/trace.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"

/* --- figures ------------------------------------------------------------------------------------------------------ */

static void add_value(struct text *t, double value) {
    if (isfinite(value))
        text_add(t, "%.12g", value);
    else
        text_add(t, "-");
}

#define REAL(member) \
    static void value_##member(const struct comparison *row, struct text *t) { add_value(t, row->member); }
#define SUMMARY(member) \
    static void value_##member(const struct comparison *row, struct text *t) { add_value(t, row->summary.member); }
SUMMARY(mean)
SUMMARY(sd)
SUMMARY(median)
SUMMARY(min)
SUMMARY(max)
REAL(delta)
REAL(ci_low)
REAL(ci_high)
REAL(family_low)
REAL(family_high)
REAL(bca_low)
REAL(bca_high)
REAL(sd_delta)
REAL(rho)
REAL(superiority)
REAL(hedges_g)
REAL(p)
REAL(p_adjusted)
REAL(p_margin)
REAL(p_margin_adjusted)
REAL(p_tost)
REAL(p_tost_adjusted)
REAL(attainable_p)
REAL(mde80)

static void value_n(const struct comparison *row, struct text *t) { text_add(t, "%zu", row->summary.n); }
static void value_seeds_needed(const struct comparison *row, struct text *t) {
    add_value(t, row->seeds_needed ? (double)row->seeds_needed : (double)NAN);
}
static void value_verdict(const struct comparison *row, struct text *t) {
    text_add(t, "%s", verdict_name(row->verdict));
}

#define FIGURE(name, basis, formula) \
    { #name, formula, basis, value_##name }
const struct trace_figure trace_figures[] = {
    FIGURE(n, BASIS_VARIANT, "finished runs with a finite value"),
    FIGURE(mean, BASIS_VARIANT, "sum of the values / n"),
    FIGURE(sd, BASIS_VARIANT, "square root of the squared deviations / (n - 1)"),
    FIGURE(median, BASIS_VARIANT, "middle of the sorted values"),
    FIGURE(min, BASIS_VARIANT, "least value"),
    FIGURE(max, BASIS_VARIANT, "greatest value"),
    FIGURE(delta, BASIS_PAIRS, "mean of variant - baseline, by seed; difference of the means without pairs"),
    FIGURE(ci_low, BASIS_PAIRS, "delta - t quantile x standard error, at 1 - alpha"),
    FIGURE(ci_high, BASIS_PAIRS, "delta + t quantile x standard error, at 1 - alpha"),
    FIGURE(bca_low, BASIS_PAIRS, "BCa bootstrap of the differences, at 1 - alpha"),
    FIGURE(bca_high, BASIS_PAIRS, "BCa bootstrap of the differences, at 1 - alpha"),
    FIGURE(sd_delta, BASIS_PAIRS, "sd of the differences by seed"),
    FIGURE(rho, BASIS_PAIRS, "correlation of variant and baseline over the seeds"),
    FIGURE(superiority, BASIS_PAIRS, "share of pairs in which the variant is better, ties half"),
    FIGURE(hedges_g, BASIS_PAIRS, "delta / sd, times the exact small-sample factor"),
    FIGURE(p, BASIS_PAIRS, "of the declared test, two-sided"),
    FIGURE(p_margin, BASIS_PAIRS, "one-sided t against the margin"),
    FIGURE(p_tost, BASIS_PAIRS, "greater of two one-sided t tests against the margin on both sides"),
    FIGURE(attainable_p, BASIS_PAIRS, "least p that the test can give at this n"),
    FIGURE(family_low, BASIS_FAMILY, "as ci_low, at 1 - alpha / comparisons"),
    FIGURE(family_high, BASIS_FAMILY, "as ci_high, at 1 - alpha / comparisons"),
    FIGURE(mde80, BASIS_FAMILY, "difference that t finds with 80 % power at alpha / comparisons"),
    FIGURE(seeds_needed, BASIS_FAMILY, "seeds that find the margin with 80 % power at alpha / comparisons"),
    FIGURE(p_adjusted, BASIS_FAMILY, "p, corrected over the comparisons"),
    FIGURE(p_margin_adjusted, BASIS_FAMILY, "p_margin, corrected over the comparisons"),
    FIGURE(p_tost_adjusted, BASIS_FAMILY, "p_tost, corrected over the comparisons"),
    FIGURE(verdict, BASIS_FAMILY, "from p_adjusted, p_margin_adjusted, p_tost_adjusted and alpha"),
};
const size_t trace_figure_count = sizeof trace_figures / sizeof *trace_figures;

/* --- runs --------------------------------------------------------------------------------------------------------- */

static bool has_value(const struct analysis *a, int run) { return isfinite(a->metrics[run]); }

/* Failed runs count where they rank. */
static bool compared(const struct analysis *a, const struct comparison *row, int run) {
    return has_value(a, run) || (test_ranks(row->test) && run_failed(&a->results->runs[run]));
}

static void mark_variant(const struct analysis *a, int variant, bool *used) {
    for (int s = 0; s < a->results->seed_count; s++) {
        int run = analysis_run(a, variant, s);
        if (run >= 0) used[run] |= has_value(a, run);
    }
}

static void mark_pairs(const struct analysis *a, const struct comparison *row, int variant, bool *used) {
    for (int s = 0; s < a->results->seed_count; s++) {
        int runs[] = {analysis_run(a, variant, s), analysis_run(a, a->baseline, s)};
        bool there[] = {runs[0] >= 0 && compared(a, row, runs[0]), runs[1] >= 0 && compared(a, row, runs[1])};
        for (int k = 0; k < 2; k++)
            if (there[k] && (!row->paired || there[!k])) used[runs[k]] = true;
    }
}

static void mark_family(const struct analysis *a, const struct comparison *row, bool *used) {
    for (int r = 1; r < a->table.count; r++) {
        const struct comparison *other = &a->table.rows[r];
        if (!isnan(other->p) && (row->late || !other->late)) mark_pairs(a, other, analysis_variant(a, r), used);
    }
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
    int variant = analysis_variant(a, row);
    if (basis == BASIS_VARIANT)
        mark_variant(a, variant, used);
    else if (row > 0 && basis == BASIS_PAIRS)
        mark_pairs(a, &a->table.rows[row], variant, used);
    else if (row > 0)
        mark_family(a, &a->table.rows[row], used);
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

/* The last place of the arithmetic progression that starts here. */
static int progression_end(const struct analysis *a, const struct trace_runs *runs, int start) {
    if (start + 1 >= runs->count) return start;
    int64_t step = id_of(a, runs, start + 1) - id_of(a, runs, start);
    int end = start + 1;
    while (end + 1 < runs->count && id_of(a, runs, end + 1) - id_of(a, runs, end) == step) end++;
    return end;
}

void trace_ids(const struct analysis *a, const struct trace_runs *runs, struct text *t) {
    enum { SHORTEST = 4 };
    if (!runs->count) text_add(t, "none");
    for (int i = 0; i < runs->count; i++) {
        int end = progression_end(a, runs, i);
        text_add(t, "%s%" PRId64, i ? ", " : "", id_of(a, runs, i));
        if (end - i + 1 < SHORTEST) continue;
        int64_t step = id_of(a, runs, i + 1) - id_of(a, runs, i);
        if (step == 1)
            text_add(t, "–%" PRId64, id_of(a, runs, end));
        else
            text_add(t, ", %" PRId64 " … %" PRId64 " (by %" PRId64 ")", id_of(a, runs, i + 1), id_of(a, runs, end),
                     step);
        i = end;
    }
}

/* --- queries ------------------------------------------------------------------------------------------------------ */

/* Where a metric stands: the part of the run, and the table and column of its stage. */
static const struct {
    const char *metric;
    int part;
    const char *table, *key, *column;
} places[] = {
    {"bpb.raw", 1, "evaluations", "stage", "bpb"},      {"bpb.averaged", 3, "evaluations", "stage", "bpb"},
    {"bpb.artifact", 5, "evaluations", "stage", "bpb"}, {"artifact_bytes", 4, "artifacts", "stage", "bytes"},
    {"train_seconds", 0, "stages", "id", "seconds"},    {"tokens_per_second", 0, "stages", "id", "tokens_per_second"},
    {"loss.final", 0, "stages", "id", "final_loss"},
};

void trace_query(const struct analysis *a, const struct trace_runs *runs, struct text *t) {
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (strcmp(places[i].metric, a->results->metric) != 0) continue;
        text_add(t,
                 "SELECT r.id, v.name, r.seed, m.%s FROM runs r JOIN variants v ON v.id = r.variant JOIN run_stages s "
                 "ON s.run = r.id AND s.part = %d JOIN %s m ON m.%s = s.stage WHERE r.id IN (",
                 places[i].column, places[i].part, places[i].table, places[i].key);
        for (int k = 0; k < runs->count; k++) text_add(t, "%s%" PRId64, k ? ", " : "", id_of(a, runs, k));
        text_add(t, ") ORDER BY r.id");
    }
}

/* --- cells -------------------------------------------------------------------------------------------------------- */

static const struct trace_figure *figure_named(const char *name) {
    for (size_t i = 0; i < trace_figure_count; i++)
        if (strcmp(trace_figures[i].name, name) == 0) return &trace_figures[i];
    return NULL;
}

static status unknown_figure(const char *cell, const char *name) {
    const char *names[64], *nearest;
    for (size_t i = 0; i < trace_figure_count; i++) names[i] = trace_figures[i].name;
    nearest = nearest_word(name, names, trace_figure_count);
    return status_new(STATUS_USAGE, "cell '%s': the comparison has no figure '%s'%s%s%s", cell, name,
                      nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

static status unknown_variant(const struct analysis *a, const char *cell) {
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
    for (int r = 0; r < a->table.count; r++) {
        size_t length = strlen(a->table.rows[r].variant);
        if (strncmp(cell, a->table.rows[r].variant, length) != 0 || cell[length] != '.') continue;
        *row = r;
        if ((*figure = figure_named(cell + length + 1))) return NULL;
        return unknown_figure(cell, cell + length + 1);
    }
    return unknown_variant(a, cell);
}
