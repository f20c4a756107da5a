/* table: aligned text tables. Columns are rows of a table; cells are text; what is too wide for the stream is cut with
 * an ellipsis, or left out and named under the table, in the columns that allow it. */
#pragma once
#include <stdbool.h>
#include <stdio.h>

enum table_align { ALIGN_LEFT, ALIGN_RIGHT };

/* Where a table does not fit: whole all the same; left out, the last such column first; cut, when that is not enough.
 */
enum table_room { COLUMN_WHOLE, COLUMN_OPTIONAL, COLUMN_CUT };

struct table_column {
    const char *heading; /* "" for none; all "": no heading line */
    enum table_align align;
    enum table_room room;
};

struct table;

/* The columns are not copied. NULL when out of memory; the functions below accept NULL. */
struct table *table_new(const struct table_column *columns, int count);
void table_free(struct table *table);

/* The next cell, left to right, row by row. */
__attribute__((format(printf, 2, 3))) void table_cell(struct table *table, const char *format, ...);

/* 0 for what that many digits show as zero, of either sign. */
double without_signed_zero(double value, int decimals);

/* The next cell with `decimals` digits, zero without a sign; "-" when not finite. */
void table_number(struct table *table, double value, int decimals);

/* A text under the row that was begun last, in as many lines as it takes. */
void table_note(struct table *table, const char *text);

/* Fits `columns` characters; indent spaces stand before every line. */
void table_print(const struct table *table, FILE *stream, int indent);
