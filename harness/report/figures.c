/* figures: data and settings for the gnuplot templates; see figures.h. */
#include "harness/report/figures.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/report/complaint.h"
#include "harness/report/figure_data.h"
#include "harness/report/program.h"

enum { CURVE_POINTS = 400, SHARING_CHARACTERS = 30 };

/* --- differences ---------------------------------------------------------------------------------------------- */

static int drawn_seeds(const struct analysis *a) {
    return a->results->seed_count < MOST_LINES ? a->results->seed_count : MOST_LINES;
}

/* Row and metric, a block for each seed: what one plot reads in one pass. */
static status write_seeds(const struct analysis *a, const char *folder) {
    struct text lines = {0};
    for (int s = 0; s < drawn_seeds(a); s++) {
        for (int r = 0; r < a->table.count; r++) {
            text_add(&lines, "%d", r + 1);
            figure_value(&lines, analysis_metric(a, analysis_variant(a, r), s));
            text_add(&lines, "\n");
        }
        text_add(&lines, "\n");
    }
    return figure_write(&lines, folder, "seeds.tsv");
}

/* Row, delta, low, high, and the simultaneous low and high. */
static status write_differences(const struct analysis *a, const char *folder) {
    struct text rows = {0}, means = {0};
    for (int r = 0; r < a->table.count; r++) {
        const struct comparison *row = &a->table.rows[r];
        text_add(&rows, "%d", r + 1);
        figure_value(&rows, row->delta);
        figure_value(&rows, row->ci_low);
        figure_value(&rows, row->ci_high);
        figure_value(&rows, row->family_low);
        figure_value(&rows, row->family_high);
        text_add(&rows, "\n");
        text_add(&means, "%d", r + 1);
        figure_value(&means, row->summary.mean);
        text_add(&means, "\n");
    }
    status failure = figure_write(&rows, folder, "differences.tsv");
    status second = figure_write(&means, folder, "means.tsv");
    if (!failure && !second) return write_seeds(a, folder);
    if (failure && second) status_free(second);
    return failure ? failure : second;
}

static bool has_differences(const struct analysis *a) {
    for (int r = 1; a->compared && r < a->table.count; r++)
        if (isfinite(a->table.rows[r].ci_low)) return true;
    return false;
}

/* Of every run that is compared. */
static struct axis value_axis(const struct analysis *a) {
    struct axis axis = axis_empty();
    for (int r = 0; a->compared && r < a->table.count; r++)
        for (int s = 0; s < a->results->seed_count; s++) {
            int v = analysis_variant(a, r), run = analysis_run(a, v, s);
            if (run >= 0) axis_add(&axis, a->metrics[run], *a->results->runs[run].training_note);
        }
    return axis;
}

static struct axis difference_axis(const struct analysis *a) {
    struct axis axis = axis_empty();
    axis_add(&axis, fmin(0.0, -a->design.margin), false);
    axis_add(&axis, fmax(0.0, a->design.margin), false);
    for (int r = 1; r < a->table.count; r++) {
        bool blown_up = analysis_blown_up(a, analysis_variant(a, r));
        axis_add(&axis, a->table.rows[r].family_low, blown_up);
        axis_add(&axis, a->table.rows[r].family_high, blown_up);
    }
    return axis;
}

/* Ranges of the figure's two axes, and of each row what its mean says where that lies beyond. */
static void add_axes(const struct analysis *a, const struct axis *values, struct text *t) {
    struct axis differences = difference_axis(a);
    struct text means = {0}, deltas = {0};
    if (axis_any(values)) axis_range(t, "VALUES", values);
    axis_range(t, "DIFFERENCES", &differences);
    for (int r = 0; r < a->table.count; r++) {
        text_add(&means, "%s", r ? ", " : "");
        axis_mark(&means, values, a->table.rows[r].summary.mean);
        text_add(&deltas, "%s", r ? ", " : "");
        axis_mark(&deltas, &differences, r ? a->table.rows[r].delta : 0.0);
    }
    text_add(t, "array MEAN_BEYOND[%d] = [%s]\n", a->table.count, text_of(&means));
    text_add(t, "array DIFFERENCE_BEYOND[%d] = [%s]\n", a->table.count, text_of(&deltas));
    text_free(&means);
    text_free(&deltas);
}

/* --- curves ----------------------------------------------------------------------------------------------------- */

int figures_smoothing_steps(const struct results *results) {
    int64_t steps = results->config.train_steps;
    return steps >= 100 ? (int)(steps / 50) / 2 * 2 + 1 : 1;
}

static const struct result_run *traced_run(const struct analysis *a, int variant, int seed) {
    int i = analysis_run(a, variant, seed);
    return i >= 0 && a->results->runs[i].trace ? &a->results->runs[i] : NULL;
}

/* Mean of the losses of a window of steps about this one. */
static double smoothed(const struct result_run *run, size_t step, size_t window) {
    size_t half = window / 2, low = step > half ? step - half : 0;
    size_t high = step + half < run->step_count ? step + half : run->step_count - 1;
    double sum = 0.0;
    for (size_t i = low; i <= high; i++) sum += run->trace[i].loss;
    return sum / (double)(high - low + 1);
}

struct band {
    double mean, least, most;
};

/* Over the seeds of one variant, at one step. Without the median, for which thousands of runs would be sorted at each.
 */
static struct band loss_at(const struct analysis *a, int variant, size_t step, size_t window) {
    struct band band = {NAN, NAN, NAN};
    double sum = 0.0;
    size_t n = 0;
    for (int s = 0; s < a->results->seed_count; s++) {
        const struct result_run *run = traced_run(a, variant, s);
        double loss = run && step < run->step_count ? smoothed(run, step, window) : (double)NAN;
        if (!isfinite(loss)) continue;
        sum += loss;
        n++;
        band.least = fmin(band.least, loss); /* fmin leaves NAN out */
        band.most = fmax(band.most, loss);
    }
    if (n) band.mean = sum / (double)n;
    return band;
}

static size_t longest_trace(const struct analysis *a, int variant) {
    size_t longest = 0;
    for (int s = 0; s < a->results->seed_count; s++) {
        const struct result_run *run = traced_run(a, variant, s);
        if (run && run->step_count > longest) longest = run->step_count;
    }
    return longest;
}

static bool has_curve(const struct analysis *a, int v) {
    return a->variants[v].curve_of == v && longest_trace(a, v) > 1;
}

/* The axis leaves out the steep start, which would flatten all else. */
static void add_curve(const struct analysis *a, int v, struct text *t, struct axis *axis) {
    bool blown_up = analysis_blown_up(a, v);
    size_t steps = longest_trace(a, v), window = (size_t)figures_smoothing_steps(a->results);
    size_t stride = steps > CURVE_POINTS ? steps / CURVE_POINTS : 1;
    for (size_t step = 0; step < steps; step += stride) {
        struct band band = loss_at(a, v, step, window);
        text_add(t, "%zu", step + 1);
        figure_value(t, band.mean);
        figure_value(t, band.least);
        figure_value(t, band.most);
        text_add(t, "\n");
        if (step < steps / 12) continue;
        axis_add(axis, band.least, blown_up);
        axis_add(axis, band.most, blown_up);
    }
    text_add(t, "\n\n");
}

/* The variants of a training: as many as a legend has room for, and how many more. */
static void add_sharing(const struct analysis *a, int first, struct text *t) {
    int more = 0;
    for (int v = first; v < a->results->variant_count; v++) {
        struct text brief = {0};
        if (a->variants[v].curve_of != first) continue;
        text_short(&brief, a->results->variants[v].name, LABEL_CHARACTERS);
        if (v == first || (!more && text_width(text_of(t)) + text_width(text_of(&brief)) < SHARING_CHARACTERS))
            text_add(t, "%s%s", v > first ? ", " : "", text_of(&brief));
        else
            more++;
        text_free(&brief);
    }
    if (more) text_add(t, " and %d more", more);
}

static status write_curves(const struct analysis *a, const char *folder, struct text *settings, int *curves) {
    struct text rows = {0}, names = {0};
    struct axis axis = axis_empty();
    *curves = 0;
    for (int v = 0; v < a->results->variant_count; v++) {
        if (!has_curve(a, v)) continue;
        struct text label = {0};
        add_sharing(a, v, &label);
        text_add(&names, "%s", ++*curves > 1 ? ", " : "");
        text_gnuplot(&names, text_of(&label));
        text_free(&label);
        add_curve(a, v, &rows, &axis);
    }
    text_add(settings, "CURVES = %d\n", *curves);
    if (*curves) text_add(settings, "array CURVE[%d] = [%s]\n", *curves, text_of(&names));
    if (axis_any(&axis)) axis_range(settings, "LOSS", &axis);
    text_free(&names);
    return figure_write(&rows, folder, "curves.tsv");
}

/* --- stages ---------------------------------------------------------------------------------------------------- */

/* The unigram model joins the axis when it is near, and stands behind a break when it is far above. */
static void add_stage_range(struct text *t, struct axis *axis, double unigram) {
    struct range span = axis_span(axis);
    bool known = unigram > 0.0, broken = known && unigram > span.most + 0.6 * fmax(span.most - span.least, 0.01);
    text_add(t, "UNIGRAM = %.10g\nBROKEN = %d\n", known ? unigram : -1.0, broken);
    if (known && !broken) axis_add(axis, unigram, false);
    axis_range(t, "STAGES", axis);
}

struct stages {
    double bpb[3]; /* raw, averaged, artifact */
};

static struct stages stages_of(const struct result_run *run) {
    return (struct stages){{bpb_of(&run->raw), bpb_of(&run->averaged), bpb_of(&run->artifact)}};
}

/* A run of the drawn seeds; runs lie seed by seed. */
static bool is_drawn(const struct analysis *a, int run) {
    return run < drawn_seeds(a) * a->results->variant_count && run_done(&a->results->runs[run]);
}

static void add_stages_beyond(const struct analysis *a, const struct axis *axis, struct text *t) {
    text_add(t, "array STAGES_BEYOND[%d] = [", a->results->variant_count);
    for (int v = 0; v < a->results->variant_count; v++) {
        int beyond = 0;
        for (int i = 0; i < a->results->run_count; i++) {
            struct stages stages = stages_of(&a->results->runs[i]);
            bool counts = a->results->runs[i].variant == v && is_drawn(a, i), out = false;
            for (int k = 0; k < 3; k++) out |= axis_beyond(axis, stages.bpb[k]) != 0;
            beyond += counts && out;
        }
        text_add(t, "%s", v ? ", " : "");
        axis_count(t, beyond);
    }
    text_add(t, "]\n");
}

static status write_stages(const struct analysis *a, const char *folder, struct text *settings, bool *any) {
    struct text rows = {0};
    struct axis axis = axis_empty();
    for (int i = 0; i < a->results->run_count; i++) {
        const struct result_run *run = &a->results->runs[i];
        if (!is_drawn(a, i)) continue;
        struct stages stages = stages_of(run);
        text_add(&rows, "%d", run->variant + 1);
        for (int k = 0; k < 3; k++) {
            figure_value(&rows, stages.bpb[k]);
            axis_add(&axis, stages.bpb[k], *run->training_note);
        }
        text_add(&rows, "\n");
    }
    *any = axis_any(&axis);
    if (*any) add_stage_range(settings, &axis, a->results->unigram_bpb);
    if (*any) add_stages_beyond(a, &axis, settings);
    return figure_write(&rows, folder, "stages.tsv");
}

/* --- settings ----------------------------------------------------------------------------------------------------- */

static void add_names(const struct analysis *a, struct text *t) {
    const struct results *r = a->results;
    size_t longest = 0;
    text_add(t, "VARIANTS = %d\narray NAME[%d] = [", r->variant_count, r->variant_count);
    for (int v = 0; v < r->variant_count; v++) {
        size_t length = text_width(r->variants[v].name);
        longest = length > longest ? length : longest;
        text_add(t, "%s", v ? ", " : "");
        figure_label(t, r->variants[v].name);
    }
    longest = longest > LABEL_CHARACTERS ? (size_t)LABEL_CHARACTERS : longest;
    for (int k = 0; a->compared && k < a->table.count; k++) {
        struct text label = {0};
        figure_row_name(&label, &a->table.rows[k]);
        longest = text_width(text_of(&label)) > longest ? text_width(text_of(&label)) : longest;
        text_free(&label);
    }
    text_add(t, "]\nLONGEST = %zu\n", longest);
    text_add(t, "TOLD_SEEDS = %d\nSEEDS = %d\narray SEED[%d] = [", TOLD_SEEDS, drawn_seeds(a), drawn_seeds(a));
    for (int s = 0; s < drawn_seeds(a); s++) text_add(t, "%s'%" PRId64 "'", s ? ", " : "", r->seeds[s]);
    text_add(t, "]\n");
    if (!a->compared) return;
    text_add(t, "ROWS = %d\narray ROW[%d] = [", a->table.count, a->table.count);
    for (int v = 0; v < a->table.count; v++) {
        text_add(t, "%s", v ? ", " : "");
        figure_row_label(t, &a->table.rows[v]);
    }
    text_add(t, "]\n");
}

static void add_design(const struct analysis *a, struct text *t) {
    char metric[256];
    snprintf(metric, sizeof metric, "%s (%s)", a->metric->name, a->metric->unit);
    text_add(t, "METRIC = ");
    text_gnuplot(t, metric);
    text_add(t, "\nMARGIN = %.10g\nINTERVAL = '%g %% interval'\n", a->design.margin, 100.0 * (1.0 - a->design.alpha));
}

/* --- gnuplot ------------------------------------------------------------------------------------------------------ */

struct drawing {
    const char *name;
    bool wanted;
    pid_t gnuplot; /* 0: not started */
};

static status start_drawing(struct drawing *d, const char *folder) {
    char template[64], log[64];
    snprintf(template, sizeof template, "%s.gp", d->name);
    snprintf(log, sizeof log, "%s.log", d->name);
    const char *const argv[] = {"gnuplot", "-c", template, "settings.gp", NULL};
    return program_start(argv, "gnuplot-nox", folder, log, &d->gnuplot);
}

/* Whether a file ends with these bytes, but for line ends. */
static bool ends_with(const char *path, const char *end) {
    char tail[64] = "";
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    size_t n = fseek(file, -(long)(sizeof tail - 1), SEEK_END) == 0 ? fread(tail, 1, sizeof tail - 1, file) : 0;
    fclose(file);
    while (n && (tail[n - 1] == '\n' || tail[n - 1] == '\r')) n--;
    size_t length = strlen(end);
    return n >= length && memcmp(tail + n - length, end, length) == 0;
}

/* On a full disk gnuplot leaves half a figure, and ends as if it had drawn it. What a template does not draw is not
 * missed. */
static status check_drawn(const struct drawing *d, const char *folder) {
    static const struct {
        const char *kind, *end;
    } files[] = {{"pdf", "%%EOF"}, {"png", "IEND\xAE\x42\x60\x82"}, {"svg", "</svg>"}};
    char path[8192];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s.%s", folder, d->name, files[i].kind);
        if (access(path, F_OK) != 0 || ends_with(path, files[i].end)) continue;
        TRY(complaint_no_room(folder));
        return status_new(STATUS_SYSTEM, "figure %s: gnuplot left no whole %s.%s", d->name, d->name, files[i].kind);
    }
    return NULL;
}

static status end_drawing(const struct drawing *d, const char *folder) {
    char path[8192], last[512], who[64];
    int code;
    TRY(program_wait(d->gnuplot, &code));
    snprintf(path, sizeof path, "%s/%s.log", folder, d->name);
    snprintf(who, sizeof who, "figure %s: gnuplot", d->name);
    if (code) {
        complaint_last(path, "gnuplot", last, sizeof last);
        return complaint(who, code, last, folder);
    }
    TRY(check_drawn(d, folder));
    remove(path);
    return NULL;
}

/* All at once. None outlives this, also after a failure, as its folder does not. */
static status draw_all(struct drawing *drawings, int count, const char *folder, figures_progress progress,
                       void *context) {
    status failure = NULL;
    for (int i = 0; i < count && !failure; i++)
        if (drawings[i].wanted) failure = start_drawing(&drawings[i], folder);
    for (int i = 0; i < count; i++) {
        if (!drawings[i].gnuplot) continue;
        if (!failure) failure = progress(context, drawings[i].name, 0.1 + 0.5 * i / count);
        status undrawn = end_drawing(&drawings[i], folder);
        if (failure && undrawn)
            status_free(undrawn);
        else if (undrawn)
            failure = undrawn;
    }
    return failure;
}

status figures_draw(const struct analysis *a, const char *folder, figures_progress progress, void *context) {
    struct text settings = {0};
    int curves = 0;
    bool front = false, stages = false, slopes = false, looks = false;
    text_add(&settings, "# settings: what the figures of this report share; written by hinge report\n");
    add_names(a, &settings);
    add_design(a, &settings);
    struct axis values = value_axis(a);
    if (a->compared) add_axes(a, &values, &settings);
    status failure = a->compared ? write_differences(a, folder) : NULL;
    if (!failure) failure = write_curves(a, folder, &settings, &curves);
    if (!failure) failure = figure_slopes(a, &values, folder, &settings, &slopes);
    if (!failure) failure = figure_looks(a, folder, &settings, &looks);
    if (!failure) failure = figure_front(a, folder, &settings, &front);
    if (!failure) failure = write_stages(a, folder, &settings, &stages);
    status unwritten = figure_write(&settings, folder, "settings.gp");
    if (unwritten && failure)
        status_free(unwritten);
    else if (unwritten)
        failure = unwritten;
    struct drawing drawings[] = {{"differences", has_differences(a), 0},
                                 {"slopes", slopes, 0},
                                 {"looks", looks, 0},
                                 {"curves", curves > 0, 0},
                                 {"stages", stages, 0},
                                 {"front", front, 0}};
    return failure ? failure : draw_all(drawings, sizeof drawings / sizeof *drawings, folder, progress, context);
}
