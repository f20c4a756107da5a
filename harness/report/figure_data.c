/* figure_data: values, labels and files of figures, and the data of slopes, looks and front; see figure_data.h. */
#include "harness/report/figure_data.h"

#include <math.h>
#include <stdio.h>

void figure_label(struct text *t, const char *name) {
    struct text brief = {0};
    text_short(&brief, name, LABEL_CHARACTERS);
    text_gnuplot(t, text_of(&brief));
    text_free(&brief);
}

/* The name gives way to its marks, but for so many characters. */
void figure_row_name(struct text *t, const struct comparison *row) {
    enum { LEAST = 10 };
    struct text marks = {0};
    if (row->late) text_add(&marks, " (late)");
    if (row->summary.failed) text_add(&marks, " (%zu failed)", row->summary.failed);
    text_short(t, row->variant, marks.size + LEAST < LABEL_CHARACTERS ? LABEL_CHARACTERS - marks.size : LEAST);
    text_add(t, "%s", text_of(&marks));
    text_free(&marks);
}

void figure_row_label(struct text *t, const struct comparison *row) {
    struct text label = {0};
    figure_row_name(&label, row);
    text_gnuplot(t, text_of(&label));
    text_free(&label);
}

void figure_value(struct text *t, double value) {
    if (isfinite(value))
        text_add(t, "\t%.10g", value);
    else
        text_add(t, "\tNaN");
}

status figure_write(struct text *t, const char *folder, const char *name) {
    char path[8192];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    status failure = text_write(t, path);
    text_free(t);
    return failure;
}

/* --- slopes ------------------------------------------------------------------------------------------------------- */

enum { MOST_PANELS = 20 };

/* A block for each compared variant: baseline and variant of every seed that both have. */
status figure_slopes(const struct analysis *a, const struct axis *values, const char *folder, struct text *settings,
                     bool *any) {
    struct text rows = {0}, names = {0}, marks = {0};
    int panels = 0;
    for (int r = 1; a->compared && r < a->table.count && panels < MOST_PANELS; r++) {
        int variant = analysis_variant(a, r), lines = 0, beyond = 0;
        if (a->table.rows[r].pairs < 2) continue;
        for (int s = 0; s < a->results->seed_count && lines < MOST_LINES; s++) {
            double from = analysis_metric(a, a->baseline, s), to = analysis_metric(a, variant, s);
            if (!isfinite(from - to) || (a->metric->timed && !analysis_block(a, variant, s))) continue;
            text_add(&rows, "%.10g\t%.10g\n", from, to);
            beyond += axis_beyond(values, to) != 0;
            lines++;
        }
        text_add(&rows, "\n\n");
        text_add(&marks, "%s", panels ? ", " : "");
        axis_count(&marks, beyond);
        text_add(&names, "%s", panels++ ? ", " : "");
        figure_row_label(&names, &a->table.rows[r]);
    }
    *any = panels > 0;
    text_add(settings, "PANELS = %d\n", panels);
    if (panels) text_add(settings, "array PANEL[%d] = [%s]\n", panels, text_of(&names));
    if (panels) text_add(settings, "array PANEL_BEYOND[%d] = [%s]\nBASELINE = ", panels, text_of(&marks));
    if (panels) figure_label(settings, a->design.baseline);
    text_add(settings, "\nHIGHER = %d\n", a->design.higher_is_better);
    text_free(&names);
    text_free(&marks);
    return figure_write(&rows, folder, "slopes.tsv");
}

/* --- looks -------------------------------------------------------------------------------------------------------- */

/* Somewhat more than the greatest statistic and boundary, but for statistics without bound. */
static double top_of_looks(const struct analysis *a) {
    double top = a->design.looks->boundary[0];
    for (int r = 1; r < a->table.count; r++)
        for (int k = 0; k < a->table.rows[r].look_count; k++) {
            double size = fabs(a->table.rows[r].looks[k].statistic);
            if (isfinite(size)) top = fmax(top, size);
        }
    return 1.15 * top;
}

/* At the edge where nothing spreads and t has no bound; NaN stays. */
static double within(double value, double most) { return isinf(value) ? copysign(most, value) : value; }

/* A block with the boundary, then a block for each comparison: n, t, whether it stopped there. */
status figure_looks(const struct analysis *a, const char *folder, struct text *settings, bool *any) {
    const struct look_plan *plan = a->design.looks;
    *any = plan && a->compared && a->table.count > 1;
    if (!*any) return NULL;
    struct text rows = {0};
    double top = top_of_looks(a);
    for (int k = 0; k < plan->count; k++) text_add(&rows, "%zu\t%.10g\n", plan->n[k], plan->boundary[k]);
    for (int r = 1; r < a->table.count; r++) {
        const struct comparison *row = &a->table.rows[r];
        text_add(&rows, "\n\nNaN\tNaN\t0\n"); /* keeps the block of a comparison without a look */
        for (int k = 0; k < row->look_count; k++) {
            text_add(&rows, "%zu", row->looks[k].n);
            figure_value(&rows, within(row->looks[k].statistic, top));
            text_add(&rows, "\t%d\n", row->stopped == k);
        }
    }
    text_add(settings, "LOOKS = %d\nLOOK_TOP = %.10g\nLOOK_LAST = %zu\n", plan->count, top, plan->n[plan->count - 1]);
    return figure_write(&rows, folder, "looks.tsv");
}

/* --- front -------------------------------------------------------------------------------------------------------- */

/* A block of points for each variant: bytes, seconds, BPB of the runs of as many seeds as are drawn. */
static void add_points(const struct analysis *a, int v, struct text *rows, struct axis *bpb) {
    text_add(rows, "NaN\tNaN\tNaN\n"); /* keeps the block of a variant without artifacts */
    for (int s = 0; s < a->results->seed_count && s < MOST_LINES; s++) {
        int i = analysis_run(a, v, s);
        if (i < 0) continue;
        const struct result_run *run = &a->results->runs[i];
        if (!run_done(run) || !run->sizes.bytes || !run->artifact.present) continue;
        text_add(rows, "%zu", run->sizes.bytes);
        figure_value(rows, run->train_seconds);
        figure_value(rows, bpb_of(&run->artifact));
        text_add(rows, "\n");
        axis_add(bpb, bpb_of(&run->artifact), *run->training_note);
    }
    text_add(rows, "\n\n");
}

/* Whether no other variant is at least as small and as good in the mean, and better in one. */
static bool on_front(const struct analysis *a, int v, bool by_time) {
    const struct variant_figures *x = &a->variants[v];
    for (int u = 0; u < a->results->variant_count; u++) {
        const struct variant_figures *y = &a->variants[u];
        double cost = by_time ? x->train_seconds.mean : x->bytes.mean;
        double other = by_time ? y->train_seconds.mean : y->bytes.mean;
        if (other <= cost && y->artifact.mean <= x->artifact.mean &&
            (other < cost || y->artifact.mean < x->artifact.mean))
            return false;
    }
    return true;
}

/* One line a variant: mean and sd of bytes, seconds and BPB, then whether it is on the two fronts. */
static void add_mean(const struct analysis *a, int v, struct text *rows, struct axis *bpb) {
    const struct variant_figures *f = &a->variants[v];
    const struct summary *summaries[] = {&f->bytes, &f->train_seconds, &f->artifact};
    text_add(rows, "%d", v + 1);
    for (int k = 0; k < 3; k++) {
        figure_value(rows, summaries[k]->mean);
        figure_value(rows, summaries[k]->n > 1 ? summaries[k]->sd : 0.0);
    }
    if (f->bytes.n && f->artifact.n > 1) {
        axis_add(bpb, f->artifact.mean - f->artifact.sd, analysis_blown_up(a, v));
        axis_add(bpb, f->artifact.mean + f->artifact.sd, analysis_blown_up(a, v));
    }
    text_add(rows, "\t%d\t%d\n", on_front(a, v, false), on_front(a, v, true));
}

static int beyond_front(const struct analysis *a, const struct axis *bpb) {
    int count = 0;
    for (int i = 0; i < a->results->run_count; i++)
        count += run_done(&a->results->runs[i]) && axis_beyond(bpb, bpb_of(&a->results->runs[i].artifact)) != 0;
    return count;
}

status figure_front(const struct analysis *a, const char *folder, struct text *settings, bool *any) {
    struct text points = {0}, means = {0};
    struct axis bpb = axis_empty();
    double largest = 0.0;
    for (int v = 0; v < a->results->variant_count; v++) {
        add_points(a, v, &points, &bpb);
        add_mean(a, v, &means, &bpb);
        if (a->variants[v].bytes.n) largest = fmax(largest, a->variants[v].bytes.max);
    }
    *any = axis_any(&bpb);
    if (*any) axis_range(settings, "SIZES", &bpb);
    text_add(settings, "SIZES_BEYOND = ");
    axis_count(settings, beyond_front(a, &bpb));
    text_add(settings, "\nCAP = %d.0\nLARGEST = %.10g\n", ARTIFACT_CAP_BYTES, largest);
    status failure = figure_write(&points, folder, "front.tsv");
    status second = figure_write(&means, folder, "front_means.tsv");
    if (!failure) return second;
    if (second) status_free(second);
    return failure;
}
