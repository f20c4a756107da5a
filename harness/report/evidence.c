/* evidence: the tables behind the verdicts; see evidence.h. */
#include "harness/report/evidence.h"

#include <math.h>
#include <stdio.h>

#include "harness/report/grid.h"
#include "harness/report/sources.h"
#include "harness/report/trace.h"

#define START(grid, columns, is_long) grid_start(grid, columns, sizeof columns / sizeof *columns, is_long)

static void grid_variant(struct grid *g, const struct comparison *row) {
    struct text marked = {0};
    text_add(&marked, "%s%s", row->late ? "(late) " : "", row->variant);
    grid_name(g, text_of(&marked));
    text_free(&marked);
}

static status intervals_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant"},
        {"$\\Delta$", "r", "delta"},
        {"$t$", "r", "ci_low,ci_high"},
        {"all together", "r", "family_low,family_high"},
        {"bootstrap", "r", "bca_low,bca_high"},
        {"text", "r", "text_noise"},
        {"TOST $p$", "r", "p_tost_adjusted"},
        {"margin $p$", "r", "p_margin_adjusted"},
    };
    struct grid g;
    int decimals = a->wording.decimals;
    START(&g, columns, false);
    for (int r = 1; r < a->table.count; r++) {
        const struct comparison *row = &a->table.rows[r];
        grid_variant(&g, row);
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

static status sources_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"source", "l", "source"}, {"sd", "r", "sd"}, {"what it is", "p{10.4cm}", "what"}};
    struct variance_sources sources;
    struct grid g;
    struct text table = {0};
    int decimals = a->wording.decimals + 1;
    variance_sources(a, &sources);
    text_add(&table, "of one seed, common to all variants; pairing removes it (%d variants × %d seeds that all have)",
             sources.variants, sources.seeds);
    START(&g, columns, false);
    source_row(&g, "seed, shared", sources.shared, decimals, text_of(&table));
    source_row(&g, "seed, own", sources.own, decimals,
               "of one seed in one variant alone, with all that is not named here");
    source_row(&g, "evaluated text", sources.text, decimals,
               "of one score, if other text of the same kind were scored; the same text serves all runs");
    source_row(&g, "replicate", NAN, decimals,
               "the same seed again: not run twice; hinge reproduce RUN says whether the bits come out the same");
    source_row(&g, "node", NAN, decimals, "another machine: not separated from the seed");
    text_free(&table);
    return grid_write(&g, folder, "sources");
}

static status looks_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant"}, {"look", "r", "look"},     {"seeds", "r", "n"},
        {"paired", "r", "pairs"},    {"$t$", "r", "statistic"}, {"boundary", "r", "boundary"},
        {"outcome", "l", "outcome"},
    };
    struct grid g;
    START(&g, columns, false);
    for (int r = 1; r < a->table.count; r++)
        for (int k = 0; k < a->table.rows[r].look_count; k++) {
            const struct look_result *look = &a->table.rows[r].looks[k];
            grid_variant(&g, &a->table.rows[r]);
            grid_integer(&g, k + 1);
            grid_integer(&g, (double)look->n);
            grid_integer(&g, (double)look->pairs);
            grid_number(&g, look->statistic, 3);
            grid_number(&g, look->boundary, 3);
            grid_text(&g, a->table.rows[r].stopped == k ? "stopped" : "went on");
        }
    return grid_write(&g, folder, "looks");
}

/* The names of the figures of one basis, separated by commas. */
static void figure_names(enum trace_basis basis, struct text *t) {
    for (size_t i = 0; i < trace_figure_count; i++)
        if (trace_figures[i].basis == basis) text_add(t, "%s%s", t->size ? ", " : "", trace_figures[i].name);
}

static status trace_row(const struct analysis *a, struct grid *g, int row, enum trace_basis basis) {
    struct text figures = {0}, ids = {0};
    struct trace_runs runs;
    TRY(trace_runs(a, row, basis, &runs));
    figure_names(basis, &figures);
    trace_ids(a, &runs, &ids);
    grid_variant(g, &a->table.rows[row]);
    grid_text(g, text_of(&figures));
    grid_text(g, text_of(&ids));
    trace_runs_free(&runs);
    text_free(&figures);
    text_free(&ids);
    return NULL;
}

static status trace_table(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant"},
        {"numbers", ">{\\raggedright\\arraybackslash}p{6.6cm}", "figures"},
        {"rest on the runs", ">{\\raggedright\\arraybackslash}p{5.6cm}", "runs"},
    };
    struct grid g;
    status failure = NULL;
    START(&g, columns, true);
    for (int r = 0; r < a->table.count && !failure; r++)
        for (int basis = BASIS_VARIANT; basis <= (r ? BASIS_FAMILY : BASIS_VARIANT) && !failure; basis++)
            failure = trace_row(a, &g, r, (enum trace_basis)basis);
    if (!failure) return grid_write(&g, folder, "trace");
    grid_free(&g);
    return failure;
}

status evidence_write(const struct analysis *a, const char *folder) {
    TRY(intervals_table(a, folder));
    TRY(sources_table(a, folder));
    if (a->design.looks) TRY(looks_table(a, folder));
    return trace_table(a, folder);
}
