/* evidence: the tables behind the verdicts; see evidence.h. */
#include "harness/report/evidence.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report/grid.h"
#include "harness/report/sources.h"
#include "harness/report/trace.h"

#define START(grid, columns, is_long) grid_start(grid, columns, sizeof columns / sizeof *columns, is_long, a->caveats)

static status intervals_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"},       {"$\\Delta$", "r", "delta"},
        {"$t$", "r", "ci_low,ci_high"},         {"all together", "r", "family_low,family_high"},
        {"bootstrap", "r", "bca_low,bca_high"}, {"text", "r", "text_noise"},
        {"TOST $p$", "r", "p_tost_adjusted"},   {"margin $p$", "r", "p_margin_adjusted"},
    };
    struct grid g;
    int decimals = a->wording.decimals;
    START(&g, columns, false);
    for (int r = 1; r < a->table.count; r++) {
        const struct comparison *row = &a->table.rows[r];
        grid_variant(&g, row->variant, row->late);
        grid_number(&g, row->delta, decimals);
        grid_interval(&g, row->ci_low, row->ci_high, decimals);
        grid_interval(&g, row->family_low, row->family_high, decimals);
        grid_interval(&g, row->bca_low, row->bca_high, decimals);
        grid_number(&g, text_noise_of_difference(a, r), decimals);
        grid_p(&g, row->p_tost_adjusted);
        grid_p(&g, row->p_margin_adjusted);
    }
    return grid_write(&g, folder, "intervals");
}

static void source_row(struct grid *g, const char *name, double sd, int decimals, const char *what) {
    grid_text(g, name);
    grid_number(g, sd, decimals);
    grid_text(g, what);
}

static void node_row(struct grid *g, const struct variance_sources *sources, int decimals) {
    struct text what = {0};
    if (!isnan(sources->node))
        text_add(&what,
                 "of one machine among %d; part of the difference of two seeds, not of two variants of a seed on "
                 "one machine",
                 sources->nodes);
    else if (sources->nodes < 2)
        text_add(&what, "another machine: all runs were made on one; runs of the same suite on a second would show it");
    else
        text_add(&what,
                 "another machine: no two seeds of a variant ran on one; more seeds than machines would show it");
    source_row(g, "node", sources->node, decimals, text_of(&what));
    text_free(&what);
}

/* The same seed again. Equal weights have equal scores. */
static void replicate_row(struct grid *g, const struct analysis *a, double sd, int decimals) {
    const struct results *r = a->results;
    struct text what = {0};
    if (!r->replicates)
        text_add(&what,
                 "of the same seed again: not measured; hinge reproduce RUN makes a training again and notes it here");
    else if (!r->replicates_differing)
        text_add(&what, "of the same seed again: %d training%s made again, equal to the last bit", r->replicates,
                 r->replicates == 1 ? " was" : "s were");
    else
        text_add(
            &what,
            "of the same seed again: of %d training%s made again %d differ%s; by how much in the score is not kept, "
            "but since which step, and on which machine: hinge trace %s sources.replicate has the query",
            r->replicates, r->replicates == 1 ? "" : "s", r->replicates_differing,
            r->replicates_differing == 1 ? "s" : "", r->suite);
    source_row(g, "replicate", sd, decimals, text_of(&what));
    text_free(&what);
}

static status sources_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"source", "l", "source"}, {"sd", "r", "sd"}, {"what it is", "p{10.4cm}", "what"}};
    struct variance_sources sources;
    struct grid g;
    struct text table = {0};
    int decimals = a->wording.decimals + 1;
    variance_sources(a, &sources);
    START(&g, columns, false);
    source_row(&g, "variant", sources.variant, decimals, "of the variants' means, beyond what their seeds explain");
    text_add(&table, "of one seed, common to all variants; pairing removes it (%d variants, %d seeds)%s",
             sources.variants, sources.seeds,
             sources.node_in_shared ? "; with the node, as no two seeds share one" : "");
    source_row(&g, "seed, shared", sources.shared, decimals, text_of(&table));
    source_row(&g, "seed, own", sources.own, decimals,
               "of one seed in one variant alone, with all that is not named here");
    source_row(&g, "evaluated text", sources.text, decimals,
               "of one score, if other text of the same kind were scored; the same text serves all runs");
    node_row(&g, &sources, decimals);
    replicate_row(&g, a, sources.replicate, decimals);
    text_free(&table);
    return grid_write(&g, folder, "sources");
}

static void calibration_row(const struct analysis *a, struct grid *g, int row) {
    const struct relabelling *rates = &a->calibrations[row];
    enum test_kind test = a->design.test;
    grid_variant(g, a->table.rows[row].variant, a->table.rows[row].late);
    grid_integer(g, (double)rates->values);
    grid_integer(g, (double)rates->pairs);
    grid_number(g, 100.0 * rates->rate[test], 2);
    grid_number(g, 100.0 * rates->rate[TEST_PAIRED_T], 2);
    grid_number(g, 100.0 * rates->rate[TEST_SIGN_FLIP], 2);
    grid_text(g, relabel_verdict(rates, test, a->design.alpha));
}

/* An A/A test of each variant's runs: how often a difference is called where there is none. */
static status calibration_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"},
        {"runs", "r", "runs"},
        {"pairs", "r", "pairs"},
        {"as declared", "r", "false_positives_declared"},
        {"paired $t$", "r", "false_positives_paired_t"},
        {"sign-flip", "r", "false_positives_sign_flip"},
        {"as declared: verdict", "l", "verdict"},
    };
    struct grid g;
    bool any = false;
    START(&g, columns, false);
    for (int r = 0; r < a->table.count; r++) {
        if (!a->calibrations[r].values) continue;
        calibration_row(a, &g, r);
        any = true;
    }
    if (any) return grid_write(&g, folder, "calibration");
    grid_free(&g);
    return NULL;
}

static status looks_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"}, {"look", "r", "look"},     {"seeds", "r", "n"},
        {"paired", "r", "pairs"},         {"$t$", "r", "statistic"}, {"boundary", "r", "boundary"},
        {"outcome", "l", "outcome"},
    };
    struct grid g;
    START(&g, columns, false);
    for (int r = 1; r < a->table.count; r++)
        for (int k = 0; k < a->table.rows[r].look_count; k++) {
            const struct look_result *look = &a->table.rows[r].looks[k];
            grid_variant(&g, a->table.rows[r].variant, a->table.rows[r].late);
            grid_integer(&g, k + 1);
            grid_integer(&g, (double)look->n);
            grid_integer(&g, (double)look->pairs);
            grid_number(&g, look->statistic, 3);
            grid_number(&g, look->boundary, 3);
            bool last = k + 1 == a->design.looks->count;
            grid_text(&g, a->table.rows[r].stopped == k ? "stopped" : last ? "not crossed" : "went on");
        }
    return grid_write(&g, folder, "looks");
}

static bool is_shown(const struct analysis *a, const struct trace_figure *figure) {
    int looks = a->design.looks ? a->design.looks->count : 0;
    return !trace_of_look(figure) || (int)figure->place < looks;
}

/* What a number of a basis is made of, and the names of all that are. */
static status numbers_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"runs", "l", "runs"},
        {"numbers that rest on them", ">{\\raggedright\\arraybackslash}p{12.4cm}", "figures"},
    };
    struct grid g;
    START(&g, columns, true);
    for (int basis = 0; basis < BASES; basis++) {
        struct text names = {0};
        for (size_t i = 0; i < trace_figure_count; i++)
            if ((int)trace_figures[i].basis == basis && is_shown(a, &trace_figures[i]))
                text_add(&names, "%s%s", names.size ? ", " : "", trace_figures[i].name);
        if (names.size) {
            grid_text(&g, trace_basis_name((enum trace_basis)basis));
            grid_text(&g, text_of(&names));
        }
        text_free(&names);
    }
    return grid_write(&g, folder, "numbers");
}

static bool has_basis(const struct analysis *a, int row, enum trace_basis basis) {
    for (size_t i = 0; i < trace_figure_count; i++)
        if (trace_figures[i].basis == basis && trace_has(a, row, &trace_figures[i])) return true;
    return false;
}

static void trace_cells(const struct analysis *a, struct grid *g, int row, const struct text *bases,
                        const struct text *ids) {
    grid_variant(g, trace_row_name(a, row), row != TRACE_SOURCES && a->table.rows[row].late);
    grid_text(g, text_of(bases));
    grid_text(g, text_of(ids));
}

/* Bases of the same runs share a line. */
static status trace_row(const struct analysis *a, struct grid *g, int row) {
    struct text bases = {0}, before = {0};
    status failure = NULL;
    for (int basis = 0; basis < BASES && !failure; basis++) {
        struct trace_runs runs;
        struct text ids = {0};
        if (!has_basis(a, row, (enum trace_basis)basis)) continue;
        failure = trace_runs(a, row, (enum trace_basis)basis, &runs);
        if (failure) break;
        trace_ids(a, &runs, &ids);
        trace_runs_free(&runs);
        if (bases.size && strcmp(text_of(&ids), text_of(&before)) != 0) {
            trace_cells(a, g, row, &bases, &before);
            text_free(&bases);
        }
        text_add(&bases, "%s%s", bases.size ? ", " : "", trace_basis_name((enum trace_basis)basis));
        text_free(&before);
        before = ids;
    }
    if (!failure && bases.size) trace_cells(a, g, row, &bases, &before);
    text_free(&bases);
    text_free(&before);
    return failure;
}

static status trace_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", ">{\\raggedright\\arraybackslash}p{3.7cm}", "variant,late"},
        {"runs", ">{\\raggedright\\arraybackslash}p{5.2cm}", "runs"},
        {"their ids", ">{\\raggedright\\arraybackslash}p{6.3cm}", "ids"},
    };
    struct grid g;
    status failure = NULL;
    START(&g, columns, true);
    for (int r = 0; r <= a->table.count && !failure; r++)
        failure = trace_row(a, &g, r < a->table.count ? r : TRACE_SOURCES);
    if (!failure) return grid_write(&g, folder, "trace");
    grid_free(&g);
    return failure;
}

status evidence_write(const struct analysis *a, const char *folder) {
    TRY(intervals_table(a, folder));
    TRY(sources_table(a, folder));
    TRY(calibration_table(a, folder));
    if (a->design.looks) TRY(looks_table(a, folder));
    TRY(numbers_table(a, folder));
    return trace_table(a, folder);
}
