/* tables: every table of a report; see tables.h. */
#include "harness/report/tables.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/report/grid.h"
#include "harness/simulated.h"

#define START(grid, columns, is_long) grid_start(grid, columns, sizeof columns / sizeof *columns, is_long, a->caveats)

enum { RUN_NAME_CHARACTERS = 16 }; /* the runs have many columns */
enum { MOST_LISTED_SEEDS = 24, FIRST_SEEDS = 8, MOST_SEED_CHARACTERS = 200 };

static int precision_of(double value) { return value >= 100.0 ? 0 : value >= 10.0 ? 1 : 2; }

/* --- the declared design ---------------------------------------------------------------------------------------- */

static bool late_seed(const struct analysis *a, int seed) {
    int run = analysis_run(a, a->baseline, seed);
    return run >= 0 && a->results->runs[run].late;
}

static void add_seeds(const struct analysis *a, struct text *t) {
    const struct results *r = a->results;
    for (int s = 0; s < r->seed_count; s++)
        text_add(t, "%s%" PRId64 "%s", s ? ", " : "", r->seeds[s], late_seed(a, s) ? " (late)" : "");
}

/* Many seeds that follow no rule. */
static void add_first_and_last(struct text *t, const int64_t *seeds, int count) {
    for (int s = 0; s < FIRST_SEEDS; s++) text_add(t, "%" PRId64 ", ", seeds[s]);
    text_add(t, "… %" PRId64, seeds[count - 1]);
}

/* Those from `first` that are late, or that are not, up to the next of the other kind; returns its place. */
static int add_seeds_of_a_kind(const struct analysis *a, int first, struct text *t) {
    const struct results *r = a->results;
    struct text seeds = {0};
    int end = first;
    while (end < r->seed_count && late_seed(a, end) == late_seed(a, first)) end++;
    text_progressions(&seeds, r->seeds + first, (size_t)(end - first));
    text_add(t, "%s", first ? "; " : "");
    if (seeds.size > MOST_SEED_CHARACTERS && end - first > FIRST_SEEDS)
        add_first_and_last(t, r->seeds + first, end - first);
    else
        text_add(t, "%s", text_of(&seeds));
    if (late_seed(a, first)) text_add(t, " (late)");
    text_free(&seeds);
    return end;
}

/* A thousand seeds would take more than a page. */
static void add_seeds_briefly(const struct analysis *a, struct text *t) {
    if (a->results->seed_count <= MOST_LISTED_SEEDS) {
        add_seeds(a, t);
        return;
    }
    text_integer(t, a->results->seed_count);
    text_add(t, ": ");
    struct text kinds = {0};
    for (int s = 0; s < a->results->seed_count;) s = add_seeds_of_a_kind(a, s, &kinds);
    struct text brief = {0};
    text_short(&brief, text_of(&kinds), 3 * MOST_SEED_CHARACTERS); /* late ones between others, again and again */
    text_add(t, "%s", text_of(&brief));
    text_free(&brief);
    text_free(&kinds);
}

static const char *correction_title(enum correction correction) {
    static const char *const titles[] = {
        [CORRECT_HOLM] = "Holm", [CORRECT_BH] = "Benjamini–Hochberg", [CORRECT_NONE] = "no"};
    return titles[correction];
}

static void add_test(const struct analysis *a, struct text *t) {
    text_add(t, "%s, two-sided, α = %g; ", test_name(a->design.test), a->design.alpha);
    if (a->design.correction == CORRECT_NONE)
        text_add(t, "not corrected for the number of comparisons");
    else
        text_add(t, "%s correction in each family of comparisons", correction_title(a->design.correction));
}

/* Each family with its variants, in the order of its first one. */
static void add_families(const struct analysis *a, struct text *t) {
    const struct results *r = a->results;
    for (int v = 0; v < r->variant_count; v++) {
        bool first = *r->variants[v].family;
        for (int u = 0; u < v; u++) first &= strcmp(r->variants[u].family, r->variants[v].family) != 0;
        if (!first) continue;
        text_add(t, "%s%s: ", t->size ? "; " : "", r->variants[v].family);
        for (int u = v; u < r->variant_count; u++)
            if (strcmp(r->variants[u].family, r->variants[v].family) == 0)
                text_add(t, "%s%s", u > v ? ", " : "", r->variants[u].name);
    }
    if (!t->size) text_add(t, "one: all comparisons with the baseline");
}

static void add_looks(const struct analysis *a, struct text *t) {
    const struct look_plan *plan = a->design.looks;
    text_add(t, plan ? "after " : "one, at the end");
    for (int k = 0; plan && k < plan->count; k++) text_add(t, "%s%zu", k ? ", " : "", plan->n[k]);
    if (plan) text_add(t, " seeds; %s spending of α = %.4g a comparison", spending_name(plan->spending), plan->alpha);
}

static void add_margin(const struct analysis *a, struct text *t) {
    if (a->design.margin > 0.0)
        text_add(t, "%g %s", a->design.margin, a->metric->unit);
    else
        text_add(t, "none declared");
}

static void add_run_counts(const struct analysis *a, struct text *t) {
    text_add(t, "%d planned, %d done", a->planned, a->done);
    if (a->failed) text_add(t, ", %d failed", a->failed);
    if (a->missing) text_add(t, ", %d not finished", a->missing);
    if (a->spared) text_add(t, ", %d not needed after the looks", a->spared);
}

static void add_baseline(const struct analysis *a, struct text *t) { text_add(t, "%s", a->design.baseline); }

static void add_metric(const struct analysis *a, struct text *t) {
    text_add(t, "%s: %s, %s; %s is better", a->metric->name, a->metric->unit, a->metric->help,
             a->design.higher_is_better ? "higher" : "lower");
}

static void add_preset(const struct analysis *a, struct text *t) {
    const struct results *r = a->results;
    text_add(t, "%s%s%s", *r->preset ? r->preset : "–", *r->scale ? ", scale " : "", r->scale);
}

static void add_or_dash(struct text *t, const char *text) { text_add(t, "%s", *text ? text : "–"); }
static void add_data(const struct analysis *a, struct text *t) {
    add_or_dash(t, simulated_note(a->results) ? "none: figures are drawn" : a->results->dataset);
}
static void add_data_hash(const struct analysis *a, struct text *t) {
    add_or_dash(t, simulated_note(a->results) ? "" : a->results->dataset_sha256);
}
static void add_source(const struct analysis *a, struct text *t) { add_or_dash(t, a->results->source); }
static void add_frozen(const struct analysis *a, struct text *t) { add_or_dash(t, a->results->declared_at); }
static void add_hash(const struct analysis *a, struct text *t) { add_or_dash(t, a->results->declaration_sha256); }

static status design_table(const struct analysis *a, const char *folder) {
    static const struct {
        const char *name;
        void (*add)(const struct analysis *a, struct text *t);
        void (*add_briefly)(const struct analysis *a, struct text *t); /* on paper; NULL: the same */
    } rows[] = {
        {"Baseline", add_baseline, NULL},
        {"Metric", add_metric, NULL},
        {"Seeds", add_seeds, add_seeds_briefly},
        {"Test", add_test, NULL},
        {"Families", add_families, NULL},
        {"Looks", add_looks, NULL},
        {"Margin that matters", add_margin, NULL},
        {"Runs", add_run_counts, NULL},
        {"Preset", add_preset, NULL},
        {"Data", add_data, NULL},
        {"SHA-256 of the data", add_data_hash, NULL},
        {"Suite file", add_source, NULL},
        {"Frozen", add_frozen, NULL},
        {"SHA-256 of the declaration", add_hash, NULL},
    };
    static const struct grid_column columns[] = {{"what", "l", "name"}, {"as declared", "p{12.2cm}", "value"}};
    struct grid g;
    START(&g, columns, false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text value = {0}, paper = {0};
        rows[i].add(a, &value);
        (rows[i].add_briefly ? rows[i].add_briefly : rows[i].add)(a, &paper);
        grid_text(&g, rows[i].name);
        grid_brief(&g, text_of(&paper), text_of(&value));
        text_free(&value);
        text_free(&paper);
    }
    return grid_write(&g, folder, "design");
}

/* --- significance ------------------------------------------------------------------------------------------------- */

static void seeds_cell(struct grid *g, const struct comparison *row) {
    char cell[64];
    snprintf(cell, sizeof cell, "%zu", row->summary.n);
    if (row->summary.failed)
        snprintf(cell, sizeof cell, "%zu of %zu", row->summary.n, row->summary.n + row->summary.failed);
    grid_text(g, cell);
}

static status significance_table(const struct analysis *a, const char *folder) {
    char interval[64], adjusted[64];
    snprintf(interval, sizeof interval, "%g\\,\\%% interval", 100.0 * (1.0 - a->design.alpha));
    static const char *const short_names[CORRECTION_KINDS] = {"Holm", "BH", "none"};
    snprintf(adjusted, sizeof adjusted, "$p_\\mathrm{%s}$", short_names[a->design.correction]);
    const struct grid_column columns[] = {
        {"variant", "l", "variant,late"}, {"seeds", "r", "seeds"},           {"mean", "r", "mean"},
        {"$\\Delta$", "r", "delta"},      {interval, "r", "ci_low,ci_high"}, {"$p$", "r", "p"},
        {adjusted, "r", "p_adjusted"},    {"$g$", "r", "hedges_g"},          {"verdict", "l", "verdict"},
    };
    struct grid g;
    int decimals = a->wording.decimals;
    START(&g, columns, false);
    for (int v = 0; v < a->table.count; v++) {
        const struct comparison *row = &a->table.rows[v];
        grid_variant(&g, row->variant, row->late);
        seeds_cell(&g, row);
        grid_number(&g, row->summary.mean, decimals);
        grid_number(&g, row->delta, decimals);
        grid_interval(&g, row->ci_low, row->ci_high, decimals);
        grid_p(&g, row->p);
        grid_p(&g, row->p_adjusted);
        grid_number(&g, row->hedges_g, 2);
        grid_text(&g, verdict_name(row->verdict));
        if (v == 0) grid_rule(&g);
    }
    return grid_write(&g, folder, "significance");
}

static status spread_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"},
        {"sd", "r", "sd"},
        {"median", "r", "median"},
        {"least to most", "r", "min,max"},
        {"$\\mathrm{sd}_\\Delta$", "r", "sd_delta"},
        {"$\\rho$", "r", "rho"},
        {"superiority", "r", "superiority"},
        {"least $p$", "r", "attainable_p"},
        {"MDE$_{80}$", "r", "mde80"},
        {"seeds for margin", "r", "seeds_needed"},
    };
    struct grid g;
    int decimals = a->wording.decimals;
    START(&g, columns, false);
    for (int v = 0; v < a->table.count; v++) {
        const struct comparison *row = &a->table.rows[v];
        grid_variant(&g, row->variant, row->late);
        grid_number(&g, row->summary.sd, decimals);
        grid_number(&g, row->summary.median, decimals);
        grid_interval(&g, row->summary.min, row->summary.max, decimals);
        grid_number(&g, row->sd_delta, decimals);
        grid_number(&g, row->rho, 2);
        grid_number(&g, row->superiority, 2);
        if (row->attainable_p == 0.0)
            grid_text(&g, "0");
        else
            grid_p(&g, row->attainable_p);
        grid_number(&g, row->mde80, decimals);
        grid_integer(&g, row->seeds_needed ? (double)row->seeds_needed : (double)NAN);
    }
    return grid_write(&g, folder, "spread");
}

/* --- what the runs measured ------------------------------------------------------------------------------------ */

static void shift_cells(struct grid *g, const struct shift *shift, int decimals) {
    grid_number(g, shift->summary.mean, decimals);
    grid_interval(g, shift->low, shift->high, decimals);
}

static status gap_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"},      {"raw", "r", "bpb_raw"},
        {"averaged", "r", "bpb_averaged"},     {"artifact", "r", "bpb_artifact"},
        {"averaging", "r", "averaging"},       {"interval", "r", "averaging_low,averaging_high"},
        {"quantisation", "r", "quantisation"}, {"interval", "r", "quantisation_low,quantisation_high"},
    };
    struct grid g;
    int decimals = a->bpb_decimals;
    START(&g, columns, false);
    for (int v = 0; v < a->results->variant_count; v++) {
        const struct variant_figures *f = &a->variants[v];
        grid_variant(&g, a->results->variants[v].name, a->results->variants[v].late);
        grid_number(&g, f->raw.mean, decimals);
        grid_number(&g, f->averaged.mean, decimals);
        grid_number(&g, f->artifact.mean, decimals);
        shift_cells(&g, &f->averaging, decimals);
        shift_cells(&g, &f->quantisation, decimals);
    }
    return grid_write(&g, folder, "gap");
}

static void grid_time(struct grid *g, double value) { grid_number(g, value, precision_of(value)); }

static status timings_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"},
        {"parameters", "r", "parameters"},
        {"training (s)", "r", "train_seconds"},
        {"least to most", "r", "train_seconds_min,train_seconds_max"},
        {"slower (s)", "r", "slower"},
        {"interval", "r", "slower_low,slower_high"},
        {"tokens/s", "r", "tokens_per_second"},
        {"calibration (s)", "r", "calibration_seconds"},
        {"quantising (s)", "r", "quantise_seconds"},
    };
    struct grid g;
    START(&g, columns, false);
    for (int v = 0; v < a->results->variant_count; v++) {
        const struct variant_figures *f = &a->variants[v];
        grid_variant(&g, a->results->variants[v].name, a->results->variants[v].late);
        grid_integer(&g, f->parameters);
        grid_time(&g, f->train_seconds.mean);
        grid_interval(&g, f->train_seconds.min, f->train_seconds.max, precision_of(f->train_seconds.mean));
        shift_cells(&g, &f->slower, precision_of(fabs(f->slower.summary.mean)));
        grid_integer(&g, f->tokens_per_second.mean);
        grid_time(&g, f->calibration_seconds.mean);
        grid_time(&g, f->quantise_seconds.mean);
    }
    return grid_write(&g, folder, "timings");
}

static status classes_table(const struct analysis *a, const char *folder) {
    struct grid_column columns[CLASS_COUNT + 4] = {{"variant", "l", "variant,late"}};
    struct grid g;
    for (int c = 0; c < CLASS_COUNT; c++) {
        const char *name = tensor_class_name((enum tensor_class)c);
        columns[c + 1] = (struct grid_column){name, "r", name};
    }
    columns[CLASS_COUNT + 1] = (struct grid_column){"all", "r", "before_compression"};
    columns[CLASS_COUNT + 2] = (struct grid_column){"file", "r", "artifact_bytes"};
    columns[CLASS_COUNT + 3] = (struct grid_column){"of the cap", "r", "share_of_cap"};
    START(&g, columns, false);
    for (int v = 0; v < a->results->variant_count; v++) {
        const struct variant_figures *f = &a->variants[v];
        bool any = f->bytes.n > 0;
        grid_variant(&g, a->results->variants[v].name, a->results->variants[v].late);
        for (int c = 0; c < CLASS_COUNT; c++) grid_integer(&g, any ? f->class_bytes[c] : (double)NAN);
        grid_integer(&g, f->before_compression.mean);
        grid_integer(&g, f->bytes.mean);
        char share[32] = "–";
        if (any) snprintf(share, sizeof share, "%.1f %%", 100.0 * f->bytes.mean / ARTIFACT_CAP_BYTES);
        grid_text(&g, share);
    }
    return grid_write(&g, folder, "classes");
}

/* --- what was run ------------------------------------------------------------------------------------------------- */

static status variants_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", ">{\\raggedright\\arraybackslash}p{5cm}", "variant,late"},
        {"what it changes", ">{\\raggedright\\arraybackslash}p{10.2cm}", "overrides"},
    };
    struct grid g;
    START(&g, columns, true);
    for (int v = 0; v < a->results->variant_count; v++) {
        const struct result_variant *variant = &a->results->variants[v];
        grid_text_late(&g, variant->name, variant->late);
        grid_text(&g, *variant->overrides ? variant->overrides : "nothing");
    }
    return grid_write(&g, folder, "variants");
}

static void run_row(const struct analysis *a, struct grid *g, const struct result_run *run) {
    char id[32], seed[32];
    snprintf(id, sizeof id, "%" PRId64, run->id);
    snprintf(seed, sizeof seed, "%" PRId64, run->seed);
    grid_text(g, id);
    grid_name(g, a->results->variants[run->variant].name);
    grid_text(g, seed);
    grid_text_late(g, run->status, run->late);
    grid_integer(g, (double)run->steps);
    grid_number(g, bpb_of(&run->raw), a->bpb_decimals);
    grid_number(g, bpb_of(&run->averaged), a->bpb_decimals);
    grid_number(g, bpb_of(&run->artifact), a->bpb_decimals);
    grid_integer(g, run->sizes.bytes ? (double)run->sizes.bytes : (double)NAN);
    grid_hash(g, run->weights_sha256);
    grid_hash(g, run->trace_sha256);
}

static status runs_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"run", "r", "run"},
        {"variant", "l", "variant"},
        {"seed", "r", "seed"},
        {"status", "l", "status,late"},
        {"steps", "r", "steps"},
        {"raw", "r", "bpb_raw"},
        {"averaged", "r", "bpb_averaged"},
        {"artifact", "r", "bpb_artifact"},
        {"bytes", "r", "artifact_bytes"},
        {"weights", "l", "weights_sha256"},
        {"loss trace", "l", "trace_sha256"},
    };
    struct grid g;
    START(&g, columns, true);
    g.name_characters = RUN_NAME_CHARACTERS;
    for (int i = 0; i < a->results->run_count; i++) run_row(a, &g, &a->results->runs[i]);
    return grid_write(&g, folder, "runs");
}

static status failures_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"run", "r", "run"},
        {"variant", "l", "variant"},
        {"seed", "r", "seed"},
        {"why it failed", ">{\\raggedright\\arraybackslash}p{9cm}", "error"},
    };
    struct grid g;
    START(&g, columns, true);
    for (int i = 0; i < a->results->run_count; i++) {
        const struct result_run *run = &a->results->runs[i];
        char id[32], seed[32];
        if (!run_failed(run)) continue;
        snprintf(id, sizeof id, "%" PRId64, run->id);
        snprintf(seed, sizeof seed, "%" PRId64, run->seed);
        grid_text(&g, id);
        grid_name(&g, a->results->variants[run->variant].name);
        grid_text(&g, seed);
        grid_text(&g, run->error);
    }
    return grid_write(&g, folder, "failures");
}

static status provenance_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"what", "l", "name"},
        {"as recorded by the runs", ">{\\raggedright\\arraybackslash}p{12cm}", "value"},
    };
    struct grid g;
    START(&g, columns, true);
    for (int i = 0; i < a->results->provenance_count; i++) {
        grid_text(&g, a->results->provenance[i].name);
        grid_text(&g, a->results->provenance[i].value);
    }
    return grid_write(&g, folder, "provenance");
}

status tables_write(const struct analysis *a, const char *folder) {
    static status (*const always[])(const struct analysis *, const char *) = {
        design_table, gap_table, timings_table, classes_table, variants_table, runs_table, provenance_table,
    };
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) TRY(always[i](a, folder));
    if (a->compared) {
        TRY(significance_table(a, folder));
        TRY(spread_table(a, folder));
    }
    return a->failed ? failures_table(a, folder) : NULL;
}
