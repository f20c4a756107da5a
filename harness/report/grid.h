/* grid: one table, written as LaTeX (booktabs) and as CSV from the same cells. What must be read with the suite's
 * figures stands under the LaTeX, and in the CSV's last column, read_with: a table that leaves the report keeps it. */
#pragma once
#include "harness/report/text.h"

struct grid_column {
    const char *heading;   /* LaTeX */
    const char *alignment; /* of the tabular: "l", "r", "p{3cm}" */
    const char *csv;       /* the CSV's column name; "low,high" for a cell of two values */
};

enum { GRID_PAPER_ROWS = 400, GRID_LAST_ROWS = 4 };

struct grid {
    const struct grid_column *columns;
    int count, at;
    const char *read_with;  /* "" for nothing */
    size_t name_characters; /* of a name on paper */
    bool is_long;           /* may run over pages, and has no number; on paper it ends after GRID_PAPER_ROWS */
    int rows;
    size_t paper_size;           /* of the LaTeX, when that many rows are there */
    size_t ends[GRID_LAST_ROWS]; /* where the last rows end in it */
    struct text latex, csv;
};

/* read_with (caveats.h) stays the caller's until the grid is written. */
void grid_start(struct grid *g, const struct grid_column *columns, int count, bool is_long, const char *read_with);

/* The next cell, left to right, row by row. */
void grid_text(struct grid *g, const char *utf8);
void grid_brief(struct grid *g, const char *paper, const char *csv);
void grid_name(struct grid *g, const char *utf8); /* a long one is shortened on paper, whole in the CSV */
/* On paper "... (late)", in the CSV a 0 or 1 of its own ("variant,late"): the name stays the one that it has. */
void grid_text_late(struct grid *g, const char *utf8, bool late);
void grid_variant(struct grid *g, const char *utf8, bool late); /* the same, shortened like a name */
void grid_number(struct grid *g, double value, int decimals);
void grid_integer(struct grid *g, double value);
void grid_p(struct grid *g, double p);
void grid_interval(struct grid *g, double low, double high, int decimals);
void grid_hash(struct grid *g, const char *hex); /* ten digits on paper */
void grid_rule(struct grid *g);                  /* between rows */

void grid_free(struct grid *g);

/* FOLDER/NAME.tex and FOLDER/NAME.csv; frees the grid, also on failure. */
status grid_write(struct grid *g, const char *folder, const char *name);
