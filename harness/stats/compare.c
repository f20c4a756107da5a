/* compare: observations to a table of comparisons with verdicts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/stats/grouping.h"

static const double PLANNED_POWER = 0.8;

static const char *const verdict_names[] = {
    [VERDICT_BASELINE] = "baseline",
    [VERDICT_BETTER] = "better",
    [VERDICT_BETTER_BY_MARGIN] = "better by the margin",
    [VERDICT_WORSE] = "worse",
    [VERDICT_WORSE_BY_MARGIN] = "worse by the margin",
    [VERDICT_EQUIVALENT] = "equivalent",
    [VERDICT_INCONCLUSIVE] = "inconclusive",
    [VERDICT_NOT_ATTAINABLE] = "not attainable",
    [VERDICT_TOO_FEW] = "too few seeds",
};

const char *verdict_name(enum verdict verdict) { return verdict_names[verdict]; }

/* --- the figures of one row --------------------------------------------------------------------------------------- */

static double correlation(const double *x, const double *y, size_t n) {
    if (n < 2) return NAN;
    double mx = mean_of(x, n), my = mean_of(y, n), xx = 0.0, yy = 0.0, xy = 0.0;
    for (size_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return xx > 0.0 && yy > 0.0 ? xy / sqrt(xx * yy) : (double)NAN;
}

/* A pair is a combination whose other half is 0. */
static double share_lower(const struct comparison *row, const struct test_data *data) {
    static const double zero = 0.0;
    return row->paired ? share_above(&zero, 1, data->differences, data->pairs)
                       : share_above(data->baseline, data->m, data->variant, data->n);
}

static void fill_margin(const struct design *design, struct estimate e, struct comparison *row) {
    if (!(design->margin > 0.0) || isnan(e.error)) return;
    row->p_margin = e.delta < 0.0 ? estimate_below(e, -design->margin) : estimate_above(e, design->margin);
    row->p_tost = estimate_equivalent(e, design->margin);
}

static void fill_estimate(const struct design *design, const struct sample_pair *s, struct comparison *row) {
    const struct test_data *data = &s->data;
    struct estimate e = row->paired ? paired_estimate(data->differences, data->pairs)
                                    : welch_estimate(data->variant, data->n, data->baseline, data->m);
    row->delta = e.delta;
    row->error = e.error;
    row->freedom = e.freedom;
    if (isnan(e.error)) return;
    estimate_interval(e, design->alpha, &row->ci_low, &row->ci_high);
    double lower = share_lower(row, data);
    row->superiority = design->higher_is_better ? 1.0 - lower : lower;
    row->hedges_g = row->paired ? hedges_gz(data->differences, data->pairs)
                                : hedges_g(data->variant, data->n, data->baseline, data->m);
    fill_margin(design, e, row);
}

static void fill_pairs(const struct design *design, const struct sample_pair *s, struct comparison *row) {
    const struct test_data *data = &s->data;
    if (data->pairs < 2) return;
    row->sd_delta = sd_of(data->differences, data->pairs);
    row->rho = correlation(s->paired_variant, s->paired_baseline, data->pairs);
    if (design->thorough)
        interval_bca(data->differences, data->pairs, design->alpha, data->seed, &row->bca_low, &row->bca_high);
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* What the row's test counts as its n. */
static size_t units_of(const struct comparison *row, const struct test_data *data) {
    bool ranks = test_rows[row->test].ranks;
    if (row->paired) return ranks ? data->ranked_pairs : data->pairs;
    return ranks ? smaller(data->ranked_n, data->ranked_m) : smaller(data->n, data->m);
}

static void fill_tests(const struct design *design, const struct sample_pair *s, struct comparison *row) {
    const struct test_data *data = &s->data;
    bool ranks = test_rows[row->test].ranks;
    size_t n = row->paired ? row->units : ranks ? data->ranked_n : data->n;
    size_t m = row->paired ? row->units : ranks ? data->ranked_m : data->m;
    for (int k = 0; k < TEST_KINDS; k++)
        if (design->thorough || k == (int)row->test) row->p_of[k] = test_rows[k].run(data).p;
    struct test_result result = test_rows[row->test].run(data);
    row->p = result.p;
    row->direction = result.direction;
    if (!isnan(row->p)) row->attainable_p = test_rows[row->test].attainable(n, m);
}

/* --- looks -------------------------------------------------------------------------------------------------------- */

/* One look at the first n seeds; false when not all of them are there. */
static status take_look(const struct design *design, const struct grouping *g, int v, int k, struct comparison *row,
                        bool *taken) {
    const struct look_plan *plan = design->looks;
    struct sample_pair s;
    TRY(sample_pair_make(&g->series[v], &g->series[0], design, plan->n[k], &s));
    struct estimate e = paired_estimate(s.data.differences, s.data.pairs);
    *taken = s.shared == plan->n[k];
    if (*taken) {
        struct look_result *look = &row->looks[row->look_count++];
        *look = (struct look_result){plan->n[k], s.data.pairs, e.delta, e.error, NAN, NAN};
        if (!isnan(e.error)) {
            look->statistic = e.delta == 0.0 ? 0.0 : e.delta / e.error;
            look->boundary = -student_quantile(plan->level[k] / 2.0, e.freedom);
        }
        if (fabs(look->statistic) >= look->boundary) row->stopped = k;
    }
    sample_pair_free(&s);
    return NULL;
}

static status take_looks(const struct design *design, const struct grouping *g, int v, struct comparison *row) {
    bool taken = true;
    for (int k = 0; design->looks && k < design->looks->count && taken && row->stopped < 0; k++)
        TRY(take_look(design, g, v, k, row, &taken));
    return NULL;
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

static void clear_row(struct comparison *row) {
    row->delta = row->ci_low = row->ci_high = row->family_low = row->family_high = row->bca_low = row->bca_high = NAN;
    row->sd_delta = row->error = row->freedom = row->rho = NAN;
    for (int k = 0; k < TEST_KINDS; k++) row->p_of[k] = row->adjusted_of[k] = NAN;
    row->p = row->p_adjusted = row->p_margin = row->p_margin_adjusted = row->p_tost = row->p_tost_adjusted = NAN;
    row->hedges_g = row->superiority = row->attainable_p = row->attainable_adjusted = row->mde80 = NAN;
    row->stopped = -1;
}

static status summarise_series(const struct series *s, struct comparison *row) {
    double *values = calloc(s->count + 1, sizeof *values);
    row->variant = strdup(s->variant);
    if (!values || !row->variant) {
        free(values);
        return status_new(STATUS_SYSTEM, "out of memory for variant '%s'", s->variant);
    }
    row->late = s->late;
    for (size_t i = 0; i < s->count; i++) {
        const struct observation *o = s->entries[i].observation;
        values[i] = o->failed ? (double)NAN : o->value;
    }
    row->summary = summarise(values, s->count);
    free(values);
    return NULL;
}

static size_t count_failed(const struct series *s) {
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++)
        count += s->entries[i].observation->failed || !isfinite(s->entries[i].observation->value);
    return count;
}

/* A test by pairs stands back for its counterpart when no seed is shared. */
static void choose_test(const struct design *design, const struct sample_pair *s, struct comparison *row) {
    const struct test_row *declared = &test_rows[design->test];
    row->test = declared->pairs && !s->shared ? declared->unpaired : design->test;
    row->paired = test_rows[row->test].pairs;
    row->pairs = s->data.pairs;
    row->two_machines = s->two_machines;
    row->units = units_of(row, &s->data);
}

static status fill_row(const struct design *design, const struct grouping *g, int v, struct comparison *row) {
    struct sample_pair s;
    clear_row(row);
    TRY(summarise_series(&g->series[v], row));
    row->test = design->test;
    if (v == 0) return NULL;
    row->baseline_failed = count_failed(&g->series[0]);
    TRY(sample_pair_make(&g->series[v], &g->series[0], design, 0, &s));
    choose_test(design, &s, row);
    row->late |= row->paired ? s.late : s.late_sample;
    fill_estimate(design, &s, row);
    fill_pairs(design, &s, row);
    fill_tests(design, &s, row);
    sample_pair_free(&s);
    return take_looks(design, g, v, row);
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

/* A figure of a row that is adjusted over the family: where it is read and where its adjusted value goes. */
struct adjusted_figure {
    size_t from, to;
};

#define FIGURE(from, to) \
    { offsetof(struct comparison, from), offsetof(struct comparison, to) }
static const struct adjusted_figure figures[] = {
    FIGURE(p, p_adjusted),
    FIGURE(p_margin, p_margin_adjusted),
    FIGURE(p_tost, p_tost_adjusted),
    FIGURE(attainable_p, attainable_adjusted),
};

static double *figure_at(struct comparison *row, size_t offset) {
    void *figure = (char *)row + offset;
    return figure;
}

/* Whether row v, which is not the baseline's, is corrected with the declared rows of a family, or with all rows. */
enum { ALL_ROWS = -1 };
static bool in_group(const struct comparison_table *t, int v, int group) {
    return v > 0 && (group == ALL_ROWS || (!t->rows[v].late && t->rows[v].group == group));
}

/* A comparison of the group that has no p counts as one of 1: what failed or is gone makes no other p smaller. */
static void adjust_group(struct comparison_table *t, enum correction correction, struct adjusted_figure figure,
                         int group, double *p, double *adjusted) {
    for (int v = 0; v < t->count; v++) {
        double own = *figure_at(&t->rows[v], figure.from);
        p[v] = !in_group(t, v, group) ? (double)NAN : isnan(own) ? 1.0 : own;
    }
    adjust_p(correction, p, adjusted, (size_t)t->count);
    for (int v = 0; v < t->count; v++)
        if (in_group(t, v, group) && !isnan(*figure_at(&t->rows[v], figure.from)))
            *figure_at(&t->rows[v], figure.to) = adjusted[v];
}

/* Late rows never weaken declared ones: these are adjusted in their families, late rows over everything. */
static void adjust_figure(struct comparison_table *t, enum correction correction, struct adjusted_figure figure,
                          double *p, double *adjusted) {
    adjust_group(t, correction, figure, ALL_ROWS, p, adjusted);
    for (int v = 1; v < t->count; v++)
        if (t->rows[v].group == v) adjust_group(t, correction, figure, v, p, adjusted);
}

/* A family is known by its first row. */
static void group_rows(const struct grouping *g, struct comparison_table *t) {
    for (int v = 1; v < t->count; v++) {
        int first = 1;
        while (strcmp(g->series[first].family, g->series[v].family) != 0) first++;
        t->rows[v].group = first;
        t->groups += first == v;
    }
}

static void count_family(struct comparison_table *t) {
    for (int v = 1; v < t->count; v++) {
        struct comparison *row = &t->rows[v];
        for (int u = 1; u < t->count; u++) row->family += in_group(t, u, row->late ? ALL_ROWS : row->group);
        if (!row->late && row->family > t->family) t->family = row->family;
    }
    if (!t->family) t->family = t->count - 1;
}

static size_t seeds_for_margin(const struct design *design, double sd_baseline, double alpha,
                               const struct comparison *row) {
    if (!(design->margin > 0.0)) return 0;
    if (!row->paired) return seeds_for_power_welch(design->margin, row->summary.sd, sd_baseline, PLANNED_POWER, alpha);
    return row->sd_delta > 0.0 ? seeds_for_power(design->margin / row->sd_delta, PLANNED_POWER, alpha) : 2;
}

/* Every comparison has its share of alpha for all looks, unless nothing is corrected. */
static void fill_repeated_interval(const struct design *design, struct comparison *row) {
    if (!row->look_count || (design->correction == CORRECT_NONE && row->family > 1)) return;
    const struct look_result *last = &row->looks[row->look_count - 1];
    row->family_low = last->delta - last->boundary * last->error;
    row->family_high = last->delta + last->boundary * last->error;
}

static void plan_row(const struct design *design, double sd_baseline, struct comparison *row) {
    double share = row->family > 1 ? design->alpha / row->family : design->alpha;
    double alpha = design->correction == CORRECT_HOLM ? share : design->alpha;
    struct estimate e = {row->delta, row->error, row->freedom};
    row->needed_n = needed_seeds(row->test, design->correction, design->alpha, (size_t)row->family);
    if (isnan(row->error)) return;
    if (design->looks)
        fill_repeated_interval(design, row);
    else
        estimate_interval(e, share, &row->family_low, &row->family_high);
    row->mde80 = row->error * detectable_shift(PLANNED_POWER, row->freedom, alpha);
    row->seeds_needed = seeds_for_margin(design, sd_baseline, alpha, row);
}

/* With looks a boundary decides, and nothing is claimed about the margin. */
static enum verdict judge_looks(const struct design *design, const struct comparison *row) {
    if (row->stopped < 0) return VERDICT_INCONCLUSIVE;
    bool lower = row->looks[row->stopped].statistic < 0.0;
    return lower == design->higher_is_better ? VERDICT_WORSE : VERDICT_BETTER;
}

static enum verdict judge(const struct design *design, const struct comparison *row) {
    if (isnan(row->p)) return VERDICT_TOO_FEW;
    if (design->looks) return judge_looks(design, row);
    if (row->p_adjusted < design->alpha) {
        bool agrees = row->direction < 0 ? row->delta < 0.0 : row->delta > 0.0;
        bool by_margin = agrees && row->p_margin_adjusted < design->alpha;
        bool better = (row->direction > 0) == design->higher_is_better;
        if (better) return by_margin ? VERDICT_BETTER_BY_MARGIN : VERDICT_BETTER;
        return by_margin ? VERDICT_WORSE_BY_MARGIN : VERDICT_WORSE;
    }
    if (row->p_tost_adjusted < design->alpha) return VERDICT_EQUIVALENT;
    return row->attainable_adjusted < design->alpha ? VERDICT_INCONCLUSIVE : VERDICT_NOT_ATTAINABLE;
}

static status adjust_and_judge(const struct design *design, struct comparison_table *t) {
    size_t n = (size_t)t->count;
    double *p = calloc(2 * n, sizeof *p);
    if (!p) return status_new(STATUS_SYSTEM, "out of memory for %d variants", t->count);
    double *adjusted = p + n;
    for (size_t f = 0; f < sizeof figures / sizeof *figures; f++)
        adjust_figure(t, design->correction, figures[f], p, adjusted);
    for (int k = 0; k < TEST_KINDS; k++)
        adjust_figure(t, design->correction, (struct adjusted_figure)FIGURE(p_of[k], adjusted_of[k]), p, adjusted);
    count_family(t);
    t->rows[0].verdict = VERDICT_BASELINE;
    for (int v = 1; v < t->count; v++) {
        plan_row(design, t->rows[0].summary.sd, &t->rows[v]);
        t->rows[v].verdict = judge(design, &t->rows[v]);
    }
    free(p);
    return NULL;
}

/* Rows do not depend on each other. Threads are started only where all tests and the bootstrap are asked for: a runner,
 * which looks between its batches, must be able to fork. */
static status fill_rows(const struct design *design, const struct grouping *g, struct comparison_table *table) {
    status failure = NULL;
#pragma omp parallel for schedule(dynamic) if (design->thorough)
    for (int v = 0; v < g->count; v++) {
        status failed = fill_row(design, g, v, &table->rows[v]);
        if (!failed) continue;
#pragma omp critical
        if (failure)
            status_free(failed);
        else
            failure = failed;
    }
    return failure;
}

static status fill_table(const struct design *design, const struct grouping *g, struct comparison_table *table) {
    table->rows = calloc((size_t)g->count, sizeof *table->rows);
    if (!table->rows) return status_new(STATUS_SYSTEM, "out of memory for %d variants", g->count);
    table->count = g->count;
    TRY(fill_rows(design, g, table));
    group_rows(g, table);
    return adjust_and_judge(design, table);
}

status compare_variants(const struct design *design, const struct observation *observations, size_t count,
                        struct comparison_table *table) {
    struct grouping g = {0};
    *table = (struct comparison_table){0};
    status failure = group_observations(design, observations, count, &g);
    if (!failure) failure = fill_table(design, &g, table);
    grouping_free(&g);
    if (failure) comparison_table_free(table);
    return failure;
}

void comparison_table_free(struct comparison_table *table) {
    for (int v = 0; v < table->count; v++) free(table->rows[v].variant);
    free(table->rows);
    *table = (struct comparison_table){0};
}
