/* axis: what an axis of a figure spans: the figures of the runs that did not blow up (harness/loss_rise.h), or of all
 * where every one did. One that blew up would flatten all others; it may lie beyond, and the figure says so there. */
#pragma once
#include "harness/report/text.h"

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
