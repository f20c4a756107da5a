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

static void add_value_range(const struct analysis *a, struct text *t) {
    double least = INFINITY, most = -INFINITY;
    for (int r = 0; a->compared && r < a->table.count; r++) {
        least = fmin(least, a->table.rows[r].summary.min);
        most = fmax(most, a->table.rows[r].summary.max);
    }
    if (most >= least) figure_range(t, "VALUES", least, most);
}

static void add_difference_range(const struct analysis *a, struct text *t) {
    double least = fmin(0.0, -a->design.margin), most = fmax(0.0, a->design.margin);
    for (int r = 1; a->compared && r < a->table.count; r++) {
        least = fmin(least, a->table.rows[r].family_low); /* fmin leaves NAN out */
        most = fmax(most, a->table.rows[r].family_high);
    }
    figure_range(t, "DIFFERENCES", least, most);
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

struct extent {
    double least, most;
};

/* The top of the axis leaves out the steep start, which would flatten all else. */
static void add_curve(const struct analysis *a, int v, struct text *t, struct extent *axis) {
    size_t steps = longest_trace(a, v), window = (size_t)figures_smoothing_steps(a->results);
    size_t stride = steps > CURVE_POINTS ? steps / CURVE_POINTS : 1;
    for (size_t step = 0; step < steps; step += stride) {
        struct band band = loss_at(a, v, step, window);
        text_add(t, "%zu", step + 1);
        figure_value(t, band.mean);
        figure_value(t, band.least);
        figure_value(t, band.most);
        text_add(t, "\n");
        axis->least = fmin(axis->least, band.least);
        if (step >= steps / 12) axis->most = fmax(axis->most, band.most);
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
    struct extent axis = {INFINITY, -INFINITY};
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
    if (axis.most >= axis.least) figure_range(settings, "LOSS", axis.least, axis.most);
    text_free(&names);
    return figure_write(&rows, folder, "curves.tsv");
}

/* --- stages ---------------------------------------------------------------------------------------------------- */

/* The unigram model joins the axis when it is near, and stands behind a break when it is far above. */
static void add_stage_range(struct text *t, double least, double most, double unigram) {
    bool known = unigram > 0.0, broken = known && unigram > most + 0.6 * fmax(most - least, 0.01);
    text_add(t, "UNIGRAM = %.10g\nBROKEN = %d\n", known ? unigram : -1.0, broken);
    if (known && !broken) {
        least = fmin(least, unigram);
        most = fmax(most, unigram);
    }
    figure_range(t, "STAGES", least, most);
}

static status write_stages(const struct analysis *a, const char *folder, struct text *settings, bool *any) {
    struct text rows = {0};
    double least = INFINITY, most = -INFINITY;
    int drawn = drawn_seeds(a) * a->results->variant_count; /* runs lie seed by seed */
    for (int i = 0; i < a->results->run_count && i < drawn; i++) {
        const struct result_run *run = &a->results->runs[i];
        const double values[] = {bpb_of(&run->raw), bpb_of(&run->averaged), bpb_of(&run->artifact)};
        if (!run_done(run)) continue;
        text_add(&rows, "%d", run->variant + 1);
        for (int k = 0; k < 3; k++) {
            figure_value(&rows, values[k]);
            if (!isfinite(values[k])) continue;
            least = fmin(least, values[k]);
            most = fmax(most, values[k]);
        }
        text_add(&rows, "\n");
    }
    *any = most >= least;
    if (*any) add_stage_range(settings, least, most, a->results->unigram_bpb);
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
    add_value_range(a, &settings);
    add_difference_range(a, &settings);
    status failure = a->compared ? write_differences(a, folder) : NULL;
    if (!failure) failure = write_curves(a, folder, &settings, &curves);
    if (!failure) failure = figure_slopes(a, folder, &settings, &slopes);
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
