/* trace: from every number of the significance and spread tables back to the runs it rests on.
 *
 * A cell is named "VARIANT.FIGURE" after the CSV's columns: "hinge-34x2.delta". */
#pragma once
#include "harness/report/analysis.h"

enum trace_basis {
    BASIS_VARIANT, /* the variant's own finished runs */
    BASIS_PAIRS,   /* those of the variant and the baseline that are compared */
    BASIS_FAMILY   /* of all variants that the correction covers, and the baseline */
};

/* A traced figure of a comparison: a row of a table. */
struct trace_figure {
    const char *name, *formula;
    enum trace_basis basis;
    void (*value)(const struct comparison *row, struct text *t); /* full precision; "-" when undefined */
};
extern const struct trace_figure trace_figures[];
extern const size_t trace_figure_count;

struct trace_runs {
    int count;
    int *runs; /* indices of results->runs, in their order */
};

/* The runs behind a figure of table row `row`. trace_runs_free frees. */
status trace_runs(const struct analysis *a, int row, enum trace_basis basis, struct trace_runs *out);
void trace_runs_free(struct trace_runs *runs);

/* "1, 5, 9 ... 37 (by 4)": ids with progressions of four or more shortened. */
void trace_ids(const struct analysis *a, const struct trace_runs *runs, struct text *t);

/* The SQL that reads the metric of these runs from the database. */
void trace_query(const struct analysis *a, const struct trace_runs *runs, struct text *t);

/* The row and figure of a cell; STATUS_USAGE naming the nearest. */
status trace_find(const struct analysis *a, const char *cell, int *row, const struct trace_figure **figure);
