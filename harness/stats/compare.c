/* compare: observations to a table of comparisons with verdicts. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/stats/rows.h"

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

/* The values of one variant, ordered by seed. */
struct series {
    const char *variant;
    size_t count;
    const struct observation **values;
};

struct grouping {
    int count; /* baseline first */
    struct series *series;
    const struct observation **sorted; /* behind all series */
};

static void grouping_free(struct grouping *g) {
    free(g->series);
    free(g->sorted);
    *g = (struct grouping){0};
}

static struct series *series_of(struct grouping *g, const char *variant) {
    for (int v = 0; v < g->count; v++)
        if (strcmp(g->series[v].variant, variant) == 0) return &g->series[v];
    return NULL;
}

static int by_seed(const void *a, const void *b) {
    const struct observation *x = *(const struct observation *const *)a, *y = *(const struct observation *const *)b;
    return (x->seed > y->seed) - (x->seed < y->seed);
}

static status check_series(const struct series *s) {
    for (size_t i = 1; i < s->count; i++)
        if (s->values[i]->seed == s->values[i - 1]->seed)
            return status_new(STATUS_USAGE,
                              "variant '%s', seed %" PRId64 " occurs twice; one value per seed is expected", s->variant,
                              s->values[i]->seed);
    return NULL;
}

static status check_baseline(const struct design *design, const struct series *baseline) {
    if (!baseline->count)
        return status_new(STATUS_USAGE, "no value has the baseline '%s'; name one of the variants", design->baseline);
    if (baseline->count < 2)
        return status_new(STATUS_USAGE, "the baseline '%s' has 1 seed; %s needs at least 2", design->baseline,
                          test_name(design->test));
    return NULL;
}

static void count_series(struct grouping *g, const struct observation *observations, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct series *s = series_of(g, observations[i].variant);
        if (!s) *(s = &g->series[g->count++]) = (struct series){.variant = observations[i].variant};
        s->count++;
    }
}

static void fill_series(struct grouping *g, const struct observation *observations, size_t count) {
    const struct observation **next = g->sorted;
    for (int v = 0; v < g->count; v++) {
        g->series[v].values = next;
        next += g->series[v].count;
        g->series[v].count = 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct series *s = series_of(g, observations[i].variant);
        s->values[s->count++] = &observations[i];
    }
}

static status group(const struct design *design, const struct observation *observations, size_t count,
                    struct grouping *g) {
    g->series = calloc(count + 1, sizeof *g->series);
    g->sorted = calloc(count + 1, sizeof *g->sorted);
    if (!g->series || !g->sorted) return status_new(STATUS_SYSTEM, "out of memory for %zu observations", count);
    g->series[g->count++] = (struct series){.variant = design->baseline};
    count_series(g, observations, count);
    fill_series(g, observations, count);
    for (int v = 0; v < g->count; v++) {
        qsort(g->series[v].values, g->series[v].count, sizeof *g->series[v].values, by_seed);
        TRY(check_series(&g->series[v]));
    }
    return check_baseline(design, &g->series[0]);
}

static double usable(const struct observation *o) { return o->failed ? NAN : o->value; }

/* Values of the seeds that both have, and that are finite in both. */
struct pairing {
    size_t n;
    bool late;
    double *variant, *baseline, *differences; /* one block, owned by variant */
};

static status pair_up(const struct series *variant, const struct series *baseline, struct pairing *p) {
    size_t most = variant->count < baseline->count ? variant->count : baseline->count;
    *p = (struct pairing){.variant = calloc(3 * most + 1, sizeof(double))};
    if (!p->variant) return status_new(STATUS_SYSTEM, "out of memory for %zu pairs", most);
    p->baseline = p->variant + most;
    p->differences = p->baseline + most;
    for (size_t i = 0, j = 0; i < variant->count && j < baseline->count;) {
        const struct observation *v = variant->values[i], *b = baseline->values[j];
        if (v->seed != b->seed) {
            if (v->seed < b->seed)
                i++;
            else
                j++;
            continue;
        }
        double difference = usable(v) - usable(b);
        if (isfinite(difference)) {
            p->variant[p->n] = v->value;
            p->baseline[p->n] = b->value;
            p->differences[p->n++] = difference;
            p->late |= v->late || b->late;
        }
        i++, j++;
    }
    return NULL;
}

static double correlation(const double *x, const double *y, size_t n) {
    double mx = mean_of(x, n), my = mean_of(y, n), xx = 0.0, yy = 0.0, xy = 0.0;
    for (size_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return n >= 2 && xx > 0.0 && yy > 0.0 ? xy / sqrt(xx * yy) : NAN;
}

static double share_below(const double *d, size_t n) { /* ties half */
    double below = 0.0;
    for (size_t i = 0; i < n; i++) below += d[i] < 0.0 ? 1.0 : d[i] == 0.0 ? 0.5 : 0.0;
    return below / (double)n;
}

/* Against the margin in the direction of the mean: the same test, mirrored when the variant is worse. */
static double p_beyond_margin(const double *d, size_t n, double margin) {
    return mean_of(d, n) < 0.0 ? p_below(d, n, -margin) : p_above(d, n, margin);
}

static void fill_pairs(const struct design *design, const struct pairing *p, struct comparison *row) {
    const double *d = p->differences;
    struct test_data data = {d, p->n, design->seed};
    row->late = p->late;
    row->pairs = p->n;
    if (p->n < 2) return;
    row->attainable_p = attainable_p(design->test, p->n);
    row->delta = mean_of(d, p->n);
    row->sd_delta = sd_of(d, p->n);
    interval_t(d, p->n, design->alpha, &row->ci_low, &row->ci_high);
    row->rho = correlation(p->variant, p->baseline, p->n);
    for (int k = 0; k < TEST_KINDS; k++) row->p_of[k] = test_rows[k].p(&data);
    row->p = row->p_of[design->test];
    row->hedges_g = hedges_gz(d, p->n);
    double below = share_below(d, p->n);
    row->superiority = design->higher_is_better ? 1.0 - below : below;
    if (design->margin > 0.0) {
        row->p_margin = p_beyond_margin(d, p->n, design->margin);
        row->p_tost = p_equivalent(d, p->n, design->margin);
    }
}

static void clear_row(struct comparison *row) {
    row->delta = row->ci_low = row->ci_high = row->sd_delta = row->rho = NAN;
    for (int k = 0; k < TEST_KINDS; k++) row->p_of[k] = row->adjusted_of[k] = NAN;
    row->p = row->p_adjusted = row->p_margin = row->p_margin_adjusted = row->p_tost = row->p_tost_adjusted = NAN;
    row->hedges_g = row->superiority = row->attainable_p = row->attainable_adjusted = row->mde80 = NAN;
}

static status summarise_series(const struct series *s, struct comparison *row) {
    double *values = calloc(s->count + 1, sizeof *values);
    row->variant = strdup(s->variant);
    if (!values || !row->variant) {
        free(values);
        return status_new(STATUS_SYSTEM, "out of memory for variant '%s'", s->variant);
    }
    row->late = s->count > 0;
    for (size_t i = 0; i < s->count; i++) {
        values[i] = usable(s->values[i]);
        row->late &= s->values[i]->late;
    }
    row->summary = summarise(values, s->count);
    free(values);
    return NULL;
}

static status fill_row(const struct design *design, const struct grouping *g, int v, struct comparison *row) {
    clear_row(row);
    TRY(summarise_series(&g->series[v], row));
    if (v == 0) return NULL;
    bool late_variant = row->late;
    struct pairing pairs;
    TRY(pair_up(&g->series[v], &g->series[0], &pairs));
    fill_pairs(design, &pairs, row);
    row->late |= late_variant;
    free(pairs.variant);
    return NULL;
}

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

/* Late rows never weaken declared ones: those are adjusted among themselves, late rows over everything. */
static void adjust_figure(struct comparison_table *t, enum correction correction, struct adjusted_figure figure,
                          double *p, double *adjusted) {
    for (int late = 1; late >= 0; late--) {
        for (int v = 0; v < t->count; v++) p[v] = late || !t->rows[v].late ? *figure_at(&t->rows[v], figure.from) : NAN;
        adjust_p(correction, p, adjusted, (size_t)t->count);
        for (int v = 0; v < t->count; v++)
            if (late || !t->rows[v].late) *figure_at(&t->rows[v], figure.to) = adjusted[v];
    }
}

static void count_family(struct comparison_table *t) {
    int declared = 0, all = 0;
    for (int v = 1; v < t->count; v++) {
        all += t->rows[v].pairs >= 2;
        declared += t->rows[v].pairs >= 2 && !t->rows[v].late;
    }
    t->family = declared ? declared : all;
    for (int v = 1; v < t->count; v++) t->rows[v].family = t->rows[v].late ? all : declared;
}

static void plan_row(const struct design *design, struct comparison *row) {
    bool shared = design->correction == CORRECT_HOLM && row->family > 1;
    double alpha = shared ? design->alpha / row->family : design->alpha;
    row->needed_n = needed_seeds(design->test, design->correction, design->alpha, (size_t)row->family);
    if (row->pairs < 2) return;
    row->mde80 = row->sd_delta * detectable_effect(row->pairs, PLANNED_POWER, alpha);
    if (design->margin > 0.0)
        row->seeds_needed =
            row->sd_delta > 0.0 ? seeds_for_power(design->margin / row->sd_delta, PLANNED_POWER, alpha) : 2;
}

static enum verdict judge(const struct design *design, const struct comparison *row) {
    if (row->pairs < 2) return VERDICT_TOO_FEW;
    if (row->p_adjusted < design->alpha) {
        bool by_margin = row->p_margin_adjusted < design->alpha;
        bool better = row->delta < 0.0 ? !design->higher_is_better : design->higher_is_better;
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
        plan_row(design, &t->rows[v]);
        t->rows[v].verdict = judge(design, &t->rows[v]);
    }
    free(p);
    return NULL;
}

static status fill_table(const struct design *design, const struct grouping *g, struct comparison_table *table) {
    table->rows = calloc((size_t)g->count, sizeof *table->rows);
    if (!table->rows) return status_new(STATUS_SYSTEM, "out of memory for %d variants", g->count);
    table->count = g->count;
    for (int v = 0; v < g->count; v++) TRY(fill_row(design, g, v, &table->rows[v]));
    return adjust_and_judge(design, table);
}

status compare_variants(const struct design *design, const struct observation *observations, size_t count,
                        struct comparison_table *table) {
    struct grouping g = {0};
    *table = (struct comparison_table){0};
    status failure = group(design, observations, count, &g);
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
