/* figure_data: what all figures write the same way: values, labels, files; and the data of single figures. */
#pragma once
#include "harness/report/analysis.h"
#include "harness/report/axis.h"
#include "harness/report/text.h"

/* MOST_LINES: a figure draws that many seeds, the first ones; TOLD_SEEDS: so many have a shape and a name each. */
enum { LABEL_CHARACTERS = 24, MOST_LINES = 100, TOLD_SEEDS = 8 };

void figure_label(struct text *t, const char *name);                 /* a quoted, shortened name */
void figure_row_name(struct text *t, const struct comparison *row);  /* shortened, saying what is late or has failed */
void figure_row_label(struct text *t, const struct comparison *row); /* the same, quoted */
void figure_value(struct text *t, double value);                     /* tab and number; NaN when not finite */
status figure_write(struct text *t, const char *folder, const char *name); /* frees the text, also on failure */

/* Each writes its data into the folder and its settings into the text; *any: there is something to draw. */
status figure_slopes(const struct analysis *a, const struct axis *values, const char *folder, struct text *settings,
                     bool *any);
status figure_front(const struct analysis *a, const char *folder, struct text *settings, bool *any);
status figure_looks(const struct analysis *a, const char *folder, struct text *settings, bool *any);
