/* analysis: a suite's results as figures per variant; see analysis.h. */
#include "harness/report/analysis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report/caveats.h"

bool run_done(const struct result_run *run) { return strcmp(run->status, "done") == 0; }
bool run_failed(const struct result_run *run) { return strcmp(run->status, "failed") == 0; }

double bpb_of(const struct result_evaluation *evaluation) {
    return evaluation->present ? evaluation->value.bpb : (double)NAN;
}

int analysis_run(const struct analysis *a, int variant, int seed) {
    return a->run_at[(size_t)variant * (size_t)a->results->seed_count + (size_t)seed];
}

double analysis_metric(const struct analysis *a, int variant, int seed) {
    int run = analysis_run(a, variant, seed);
    return run < 0 ? (double)NAN : a->metrics[run];
}

bool analysis_blown_up(const struct analysis *a, int variant) {
    for (int i = 0; i < a->results->run_count; i++)
        if (a->results->runs[i].variant == variant && *a->results->runs[i].training_note) return true;
    return false;
}

int analysis_variant(const struct analysis *a, int row) {
    for (int v = 0; v < a->results->variant_count; v++)
        if (strcmp(a->results->variants[v].name, a->table.rows[row].variant) == 0) return v;
    return -1;
}

static int place_of_seed(const struct results *r, int64_t seed, int guess) {
    for (int i = 0; i < r->seed_count; i++) {
        int s = (guess + i) % r->seed_count;
        if (r->seeds[s] == seed) return s;
    }
    return -1;
}

static status read_metrics(struct analysis *a) {
    const struct results *r = a->results;
    a->metrics = calloc((size_t)r->run_count + 1, sizeof *a->metrics);
    if (!a->metrics) return status_new(STATUS_SYSTEM, "out of memory for %d runs", r->run_count);
    for (int i = 0; i < r->run_count; i++) {
        TRY(results_metric(r, i, r->metric, &a->metrics[i]));
        if (!run_done(&r->runs[i])) a->metrics[i] = NAN;
    }
    return NULL;
}

/* Runs come seed by seed, so that the place of the last one is a good guess. */
static status index_runs(struct analysis *a) {
    const struct results *r = a->results;
    size_t cells = (size_t)r->variant_count * (size_t)r->seed_count;
    a->run_at = calloc(cells + 1, sizeof *a->run_at);
    a->spares = calloc((size_t)r->run_count + 1, sizeof *a->spares);
    if (!a->run_at || !a->spares) return status_new(STATUS_SYSTEM, "out of memory for %zu runs", cells);
    for (size_t i = 0; i < cells; i++) a->run_at[i] = -1;
    for (int i = 0, s = 0; i < r->run_count && s >= 0; i++) {
        s = place_of_seed(r, r->runs[i].seed, s);
        if (s >= 0) a->run_at[(size_t)r->runs[i].variant * (size_t)r->seed_count + (size_t)s] = i;
    }
    return NULL;
}

/* A figure of one run, NAN when it has none. */
typedef double (*figure)(const struct result_run *run);

static double raw(const struct result_run *r) { return bpb_of(&r->raw); }
static double averaged(const struct result_run *r) { return bpb_of(&r->averaged); }
static double artifact(const struct result_run *r) { return bpb_of(&r->artifact); }
static double averaging(const struct result_run *r) { return averaged(r) - raw(r); }
static double quantisation(const struct result_run *r) { return artifact(r) - averaged(r); }
static double gap(const struct result_run *r) { return artifact(r) - raw(r); }
static double bytes(const struct result_run *r) { return r->sizes.bytes ? (double)r->sizes.bytes : (double)NAN; }
static double raw_bytes(const struct result_run *r) {
    return r->sizes.bytes ? (double)r->sizes.raw_bytes : (double)NAN;
}
static double train_seconds(const struct result_run *r) { return r->train_seconds; }
static double tokens_per_second(const struct result_run *r) { return r->tokens_per_second; }
static double quantise_seconds(const struct result_run *r) { return r->quantise_seconds; }
static double calibration_seconds(const struct result_run *r) { return r->calibration_seconds; }

/* The finite values of a variant's finished runs; returns how many. */
static size_t collect(const struct analysis *a, int variant, figure of, double *values) {
    size_t n = 0;
    for (int s = 0; s < a->results->seed_count; s++) {
        int i = analysis_run(a, variant, s);
        if (i < 0 || !run_done(&a->results->runs[i])) continue;
        values[n] = of(&a->results->runs[i]);
        n += isfinite(values[n]) ? 1 : 0;
    }
    return n;
}

static void fill_summaries(const struct analysis *a, int v, struct variant_figures *f, double *values) {
    const struct {
        figure of;
        struct summary *to;
    } rows[] = {
        {raw, &f->raw},
        {averaged, &f->averaged},
        {artifact, &f->artifact},
        {bytes, &f->bytes},
        {raw_bytes, &f->before_compression},
        {train_seconds, &f->train_seconds},
        {tokens_per_second, &f->tokens_per_second},
        {quantise_seconds, &f->quantise_seconds},
        {calibration_seconds, &f->calibration_seconds},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        *rows[i].to = summarise(values, collect(a, v, rows[i].of, values));
}

static void fill_shifts(const struct analysis *a, int v, struct variant_figures *f, double *values) {
    const struct {
        figure of;
        struct shift *to;
    } rows[] = {{averaging, &f->averaging}, {quantisation, &f->quantisation}, {gap, &f->gap}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = collect(a, v, rows[i].of, values);
        rows[i].to->summary = summarise(values, n);
        interval_t(values, n, a->design.alpha, &rows[i].to->low, &rows[i].to->high);
    }
}

static void count_runs(const struct analysis *a, int v, struct variant_figures *f) {
    f->parameters = NAN;
    for (int s = 0; s < a->results->seed_count; s++) {
        int i = analysis_run(a, v, s);
        if (i < 0) continue;
        const struct result_run *run = &a->results->runs[i];
        f->done += run_done(run);
        f->failed += run_failed(run);
        f->missing += !run_done(run) && !run_failed(run);
        if (!run_done(run)) continue;
        f->parameters = run->parameter_count ? (double)run->parameter_count : (double)NAN; /* drawn runs have none */
        for (int c = 0; c < CLASS_COUNT; c++) f->class_bytes[c] += (double)run->sizes.class_bytes[c];
    }
    for (int c = 0; c < CLASS_COUNT; c++) f->class_bytes[c] /= f->done;
}

static bool same_training(const struct analysis *a, int x, int y) {
    for (int s = 0; s < a->results->seed_count; s++) {
        int i = analysis_run(a, x, s), k = analysis_run(a, y, s);
        if (i < 0 || k < 0 || !*a->results->runs[i].train_key) continue;
        if (strcmp(a->results->runs[i].train_key, a->results->runs[k].train_key) == 0) return true;
    }
    return false;
}

static int first_sharing(const struct analysis *a, int variant) {
    for (int v = 0; v < variant; v++)
        if (same_training(a, v, variant)) return v;
    return variant;
}

static const struct result_run *run_of(const struct analysis *a, int variant, int seed) {
    return &a->results->runs[analysis_run(a, variant, seed)];
}

bool analysis_both(const struct analysis *a, int variant, int seed) {
    int i = analysis_run(a, variant, seed), k = analysis_run(a, a->baseline, seed);
    return i >= 0 && k >= 0 && run_done(&a->results->runs[i]) && run_done(&a->results->runs[k]);
}

bool analysis_block(const struct analysis *a, int variant, int seed) {
    if (!analysis_both(a, variant, seed)) return false;
    return strcmp(run_of(a, variant, seed)->node, run_of(a, a->baseline, seed)->node) == 0;
}

double analysis_step_milliseconds(const struct analysis *a, int variant) {
    return 1000.0 * (double)a->results->config.train_batch_tokens / a->variants[variant].tokens_per_second.mean;
}

static void fill_slower(struct analysis *a, int v, double *values) {
    struct variant_figures *f = &a->variants[v];
    size_t n = 0;
    for (int s = 0; s < a->results->seed_count; s++) {
        if (!analysis_block(a, v, s)) continue;
        double difference = run_of(a, v, s)->train_seconds - run_of(a, a->baseline, s)->train_seconds;
        if (f->curve_of != a->variants[a->baseline].curve_of && isfinite(difference)) values[n++] = difference;
    }
    f->slower.summary = summarise(values, n);
    interval_t(values, n, a->design.alpha, &f->slower.low, &f->slower.high);
}

static void fill_larger(struct analysis *a, int v, double *values) {
    struct shift *larger = &a->variants[v].larger;
    size_t n = 0;
    for (int s = 0; v != a->baseline && s < a->results->seed_count; s++) {
        if (!analysis_both(a, v, s)) continue;
        double difference = bytes(run_of(a, v, s)) - bytes(run_of(a, a->baseline, s));
        if (isfinite(difference)) values[n++] = difference;
    }
    larger->summary = summarise(values, n);
    interval_t(values, n, a->design.alpha, &larger->low, &larger->high);
}

static status fill_variants(struct analysis *a) {
    const struct results *results = a->results;
    double *values = calloc((size_t)results->run_count + 1, sizeof *values);
    a->variants = calloc((size_t)results->variant_count + 1, sizeof *a->variants);
    if (!values || !a->variants) {
        free(values);
        return status_new(STATUS_SYSTEM, "out of memory for %d variants", results->variant_count);
    }
    for (int v = 0; v < results->variant_count; v++) {
        struct variant_figures *f = &a->variants[v];
        fill_summaries(a, v, f, values);
        fill_shifts(a, v, f, values);
        count_runs(a, v, f);
        f->curve_of = first_sharing(a, v);
        a->planned += f->done + f->failed + f->missing;
        a->done += f->done;
        a->failed += f->failed;
        a->missing += f->missing;
        if (strcmp(results->variants[v].name, a->design.baseline) == 0) a->baseline = v;
    }
    for (int v = 0; v < results->variant_count; v++) {
        fill_slower(a, v, values);
        fill_larger(a, v, values);
    }
    free(values);
    return NULL;
}

static status compare(struct analysis *a) {
    struct observation *observations;
    size_t count;
    TRY(results_observations(a->results, a->results->metric, &observations, &count));
    status refused = compare_variants(&a->design, observations, count, &a->table);
    free(observations);
    a->compared = !refused;
    if (refused) a->not_compared = strdup(status_text(refused));
    if (refused) status_free(refused);
    return a->compared || a->not_compared ? NULL : status_new(STATUS_SYSTEM, "out of memory");
}

/* Seeds that a row's comparison needs: up to the look at which it stopped. */
static int seeds_needed_by(const struct analysis *a, const struct comparison *row) {
    return row->stopped >= 0 ? (int)a->design.looks->n[row->stopped] : a->results->seed_count;
}

static void spare(struct analysis *a, int variant, int from) {
    for (int s = from; s < a->results->seed_count; s++) {
        int i = analysis_run(a, variant, s);
        if (i < 0 || run_done(&a->results->runs[i]) || run_failed(&a->results->runs[i])) continue;
        a->variants[variant].missing--;
        a->missing--;
        a->spared++;
        a->spares[i] = true;
    }
}

static void spare_decided(struct analysis *a) {
    int most = 0;
    for (int r = 1; a->compared && a->design.looks && r < a->table.count; r++) {
        int needed = seeds_needed_by(a, &a->table.rows[r]);
        spare(a, analysis_variant(a, r), needed);
        most = needed > most ? needed : most;
    }
    if (most) spare(a, a->baseline, most);
}

/* Decimals that show two digits of the smallest spread of BPB, or of a difference inside the runs. */
static int decimals_of_bpb(const struct analysis *a) {
    double least = INFINITY;
    for (int v = 0; v < a->results->variant_count; v++) {
        const struct variant_figures *f = &a->variants[v];
        const double spreads[] = {f->raw.sd, f->averaging.summary.sd, f->quantisation.summary.sd};
        for (int k = 0; k < 3; k++)
            if (spreads[k] > 0.0) least = fmin(least, spreads[k]);
    }
    if (!isfinite(least)) return 4;
    return (int)fmin(5.0, fmax(4.0, ceil(1.0 - log10(least))));
}

static status note_caveats(struct analysis *a) {
    struct text line = {0};
    caveats_line(a->results, &line);
    a->caveats = strdup(text_of(&line));
    text_free(&line);
    return a->caveats ? NULL : status_new(STATUS_SYSTEM, "out of memory");
}

status analyse(const struct results *results, struct analysis *out) {
    *out = (struct analysis){.results = results, .design = results->design, .metric = metric_find(results->metric)};
    if (!out->metric)
        return status_new(STATUS_DATA, "suite '%s': unknown metric '%s'", results->suite, results->metric);
    out->design.higher_is_better = out->metric->higher_is_better;
    out->design.thorough = true;
    status failure = index_runs(out);
    if (!failure) failure = read_metrics(out);
    if (!failure) failure = note_caveats(out);
    if (!failure) failure = fill_variants(out);
    if (!failure && !out->done)
        failure = status_new(
            STATUS_DATA,
            "suite '%s' has no finished run (%d planned, %d failed): nothing to report yet; `hinge run` makes some",
            results->suite, out->planned, out->failed);
    if (!failure) failure = compare(out);
    if (failure) {
        analysis_free(out);
        return failure;
    }
    spare_decided(out);
    int decimals = out->compared ? wording_decimals(&out->table) : 4;
    out->wording = (struct wording){&out->design, out->metric->unit, decimals};
    out->bpb_decimals = decimals_of_bpb(out);
    return NULL;
}

void analysis_free(struct analysis *a) {
    comparison_table_free(&a->table);
    free(a->not_compared);
    free(a->caveats);
    free(a->calibrations);
    free(a->run_at);
    free(a->spares);
    free(a->metrics);
    free(a->variants);
    *a = (struct analysis){0};
}
