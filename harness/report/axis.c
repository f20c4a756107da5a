/* axis: ranges of axes, and marks for what lies beyond them; see axis.h. */
#include "harness/report/axis.h"

#include <math.h>

struct axis axis_empty(void) {
    return (struct axis){INFINITY, -INFINITY, INFINITY, -INFINITY};
}

void axis_add(struct axis *axis, double value, bool blown_up) {
    if (!isfinite(value)) return;
    axis->least = fmin(axis->least, value);
    axis->most = fmax(axis->most, value);
    if (blown_up) return;
    axis->sound_least = fmin(axis->sound_least, value);
    axis->sound_most = fmax(axis->sound_most, value);
}

bool axis_any(const struct axis *axis) { return axis->most >= axis->least; }

struct range axis_span(const struct axis *axis) {
    bool sound = axis->sound_most >= axis->sound_least;
    return sound ? (struct range){axis->sound_least, axis->sound_most} : (struct range){axis->least, axis->most};
}

static struct range padded(const struct axis *axis) {
    struct range span = axis_span(axis);
    double pad = span.most > span.least ? 0.06 * (span.most - span.least) : fmax(0.01, 0.01 * fabs(span.most));
    return (struct range){span.least - pad, span.most + pad};
}

void axis_range(struct text *t, const char *name, const struct axis *axis) {
    struct range range = padded(axis);
    text_add(t, "%s_LEAST = %.10g\n%s_MOST = %.10g\n", name, range.least, name, range.most);
}

int axis_beyond(const struct axis *axis, double value) {
    struct range range = padded(axis);
    return value > range.most ? 1 : value < range.least ? -1 : 0;
}

void axis_mark(struct text *t, const struct axis *axis, double value) {
    int side = axis_beyond(axis, value);
    text_add(t, "'%s", side < 0 ? "← " : "");
    if (side && fabs(value) < 1000) text_number(t, value, 2);
    if (side && fabs(value) >= 1000) text_integer(t, value);
    text_add(t, "%s'", side > 0 ? " →" : "");
}

void axis_count(struct text *t, int runs) {
    if (runs)
        text_add(t, "'%d run%s beyond'", runs, runs == 1 ? "" : "s");
    else
        text_add(t, "''");
}
