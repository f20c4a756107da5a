/* trace: from every number of a report's tables back to the runs it rests on.
 *
 * A cell is named "VARIANT.FIGURE" after the CSV's columns, as "hinge-34x2.delta"; those of the variance by source are
 * "sources.FIGURE". The numbers of the runs' own table are traced by `hinge show RUN`. */
#pragma once
#include "harness/report/analysis.h"
#include "harness/report/places.h"

enum trace_basis {
    BASIS_VARIANT,                            /* the variant's finished runs that have the metric */
    BASIS_DONE,                               /* the variant's finished runs */
    BASIS_PAIRS,                              /* those of the variant and the baseline that are compared */
    BASIS_LOOK_1,                             /* of these, the seeds of the first look; LOOK_1 + k: of look k + 1 */
    BASIS_BLOCKS = BASIS_LOOK_1 + MOST_LOOKS, /* variant and baseline, where a block has both on one machine */
    BASIS_BOTH,                               /* variant and baseline, where a seed has both */
    BASIS_FAMILY, /* the compared ones of all variants that the correction covers, and of the baseline */
    BASIS_ALL,    /* all finished runs that have the metric */
    BASES
};

enum { TRACE_SOURCES = -1 }; /* the row of the variance by source, beside those of the comparison */

struct trace_figure {
    const char *name, *formula;
    enum trace_basis basis;
    const char *places[2]; /* what of each run it is made of (places.h); NULL: the suite's metric */
    double (*value)(const struct analysis *a, int row, const struct trace_figure *figure); /* NULL: the verdict */
    size_t place; /* for value: the offset of a member, or an index */
};
extern const struct trace_figure trace_figures[];
extern const size_t trace_figure_count;

/* "compared", "look 2", ... */
const char *trace_basis_name(enum trace_basis basis);
bool trace_of_look(const struct trace_figure *figure);

/* Whether the row has this figure. */
bool trace_has(const struct analysis *a, int row, const struct trace_figure *figure);
const char *trace_row_name(const struct analysis *a, int row);

/* What of each run the figure is made of: the i-th of at most two, NULL when there are no more. */
const struct place *trace_place(const struct analysis *a, const struct trace_figure *figure, int i);

/* Full precision; "-" when undefined. */
void trace_value(const struct analysis *a, int row, const struct trace_figure *figure, struct text *t);

struct trace_runs {
    int count;
    int *runs; /* indices of results->runs, in their order */
};

/* The runs behind the figures of a row on this basis. trace_runs_free frees. */
status trace_runs(const struct analysis *a, int row, enum trace_basis basis, struct trace_runs *out);
void trace_runs_free(struct trace_runs *runs);

/* "1, 5, 9 ... 37 (by 4)": ids with progressions of four or more shortened. */
void trace_ids(const struct analysis *a, const struct trace_runs *runs, struct text *t);

/* The SQL that reads what the figure is made of from the database: a line a run, or a training that was made again. */
void trace_query(const struct analysis *a, const struct trace_figure *figure, const struct trace_runs *runs,
                 struct text *t);

/* The row and figure of a cell; STATUS_USAGE naming the nearest. */
status trace_find(const struct analysis *a, const char *cell, int *row, const struct trace_figure **figure);
