/* figure_data: what all figures write the same way: values, labels, ranges, files; and the data of single figures. */
#pragma once
#include "harness/report/analysis.h"
#include "harness/report/text.h"

/* MOST_LINES: a figure draws that many seeds, the first ones; TOLD_SEEDS: so many have a shape and a name each. */
enum { LABEL_CHARACTERS = 24, MOST_LINES = 100, TOLD_SEEDS = 8 };

void figure_label(struct text *t, const char *name);                 /* a quoted, shortened name */
void figure_row_name(struct text *t, const struct comparison *row);  /* shortened, saying what is late or has failed */
void figure_row_label(struct text *t, const struct comparison *row); /* the same, quoted */
void figure_value(struct text *t, double value);                     /* tab and number; NaN when not finite */
status figure_write(struct text *t, const char *folder, const char *name); /* frees the text, also on failure */

/* What an axis spans: the figures of runs that did not blow up, or of all where none did not. One that blew up would
 * flatten all others; it may lie beyond. */
struct axis {
    double least, most, sound_least, sound_most;
};
struct range {
    double least, most;
};
struct axis axis_empty(void);
void axis_add(struct axis *axis, double value, bool blown_up);              /* what is not finite is left out */
bool axis_any(const struct axis *axis);                                     /* something was added */
struct range axis_span(const struct axis *axis);                            /* without a margin */
void axis_range(struct text *t, const char *name, const struct axis *axis); /* NAME_LEAST, NAME_MOST with a margin */
int axis_beyond(const struct axis *axis, double value);                     /* -1, 1: before or behind it; else 0 */
void axis_mark(struct text *t, const struct axis *axis, double value); /* '4.64 →' or '← 4.64', quoted, or '' */
void axis_count(struct text *t, int runs);                             /* '3 runs beyond', or '' */

/* Each writes its data into the folder and its settings into the text; *any: there is something to draw. */
status figure_slopes(const struct analysis *a, const struct axis *values, const char *folder, struct text *settings,
                     bool *any);
status figure_front(const struct analysis *a, const char *folder, struct text *settings, bool *any);
status figure_looks(const struct analysis *a, const char *folder, struct text *settings, bool *any);
