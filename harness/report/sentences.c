/* sentences: what a comparison says, in words; see sentences.h. */
#include "harness/report/sentences.h"

#include <math.h>

enum { MOST_DECIMALS = 5 };

static int digits_of(double spread) { return spread > 0.0 ? (int)ceil(1.0 - log10(spread)) : 0; }

/* Where all values are small, more digits are worth having. */
static int most_decimals(const struct comparison_table *table) {
    double greatest = 0.0;
    for (int v = 0; v < table->count; v++) greatest = fmax(greatest, fabs(table->rows[v].summary.mean));
    return greatest > 0.0 && greatest < 1.0 ? MOST_DECIMALS - (int)floor(log10(greatest)) - 1 : MOST_DECIMALS;
}

int wording_decimals(const struct comparison_table *table) {
    double least = INFINITY;
    int most = most_decimals(table);
    for (int v = 0; v < table->count; v++) {
        double candidates[] = {table->rows[v].sd_delta, table->rows[v].summary.sd};
        for (int k = 0; k < 2; k++)
            if (candidates[k] > 0.0) least = fmin(least, candidates[k]);
    }
    if (!isfinite(least)) return 4;
    int digits = digits_of(least);
    return digits < 0 ? 0 : digits > most ? most : digits;
}

static void add_size(struct text *t, const struct wording *w, double value) {
    text_number(t, fabs(value), w->decimals);
    if (*w->unit) text_add(t, " %s", w->unit);
}

static void add_signed(struct text *t, const struct wording *w, double value) { text_number(t, value, w->decimals); }

static void add_units(struct text *t, const struct comparison *row) {
    if (!row->paired)
        text_add(t, "; not paired, at least %zu seeds each)", row->units);
    else if (row->units > row->pairs)
        text_add(t, "; %zu paired seeds, in %zu of which a run failed)", row->units, row->units - row->pairs);
    else
        text_add(t, "; %zu paired seed%s)", row->pairs, row->pairs == 1 ? "" : "s");
}

/* Before the p of a claim about the margin. */
static const char *adjusted(const struct wording *w) {
    return w->design->correction == CORRECT_NONE ? "" : "adjusted ";
}

static void add_evidence(struct text *t, const struct wording *w, const struct comparison *row) {
    text_add(t, " (Δ = ");
    add_signed(t, w, row->delta);
    if (isfinite(row->ci_low)) {
        text_add(t, ", %g %% interval ", 100.0 * (1.0 - w->design->alpha));
        add_signed(t, w, row->ci_low);
        text_add(t, " to ");
        add_signed(t, w, row->ci_high);
    }
    text_add(t, "; %s%s p ", test_name(row->test), w->design->correction == CORRECT_NONE ? "" : ", adjusted");
    text_p(t, row->p_adjusted);
    add_units(t, row);
}

static void add_margin(struct text *t, const struct wording *w, const struct comparison *row) {
    if (!(w->design->margin > 0.0) || !isfinite(row->p_margin)) return;
    bool passed = row->verdict == VERDICT_BETTER_BY_MARGIN || row->verdict == VERDICT_WORSE_BY_MARGIN;
    if (passed)
        text_add(t, ", and by more than the margin of %g (%sone-sided p ", w->design->margin, adjusted(w));
    else if (row->p_tost_adjusted < w->design->alpha)
        text_add(t, ", but by less than the margin of %g that matters (%sTOST p ", w->design->margin, adjusted(w));
    else
        text_add(t, "; that the margin of %g is exceeded is not shown (%sone-sided p ", w->design->margin, adjusted(w));
    bool inside = !passed && row->p_tost_adjusted < w->design->alpha;
    text_p(t, inside ? row->p_tost_adjusted : row->p_margin_adjusted);
    text_add(t, ")");
}

/* Ranks may tell one way and the mean, which an outlier moves, the other. */
static bool mean_agrees(const struct comparison *row) { return row->direction * row->delta > 0.0; }

static void say_differs(struct text *t, const struct wording *w, const struct comparison *row) {
    bool better = row->verdict == VERDICT_BETTER || row->verdict == VERDICT_BETTER_BY_MARGIN;
    text_add(t, "%s is %s than %s", row->variant, better ? "better" : "worse", w->design->baseline);
    if (mean_agrees(row)) {
        text_add(t, " by ");
        add_size(t, w, row->delta);
    }
    add_evidence(t, w, row);
    if (mean_agrees(row)) add_margin(t, w, row);
    text_add(t, ".");
    if (isfinite(row->delta) && !mean_agrees(row))
        text_add(t, " The ranks of the seeds say so; their mean difference does not: look at single seeds.");
    else if (row->ci_low < 0.0 && row->ci_high > 0.0)
        text_add(t, " The t interval nevertheless contains 0: the size of the difference is uncertain.");
}

static void say_equivalent(struct text *t, const struct wording *w, const struct comparison *row) {
    text_add(t, "%s and %s are equivalent within ±%g", row->variant, w->design->baseline, w->design->margin);
    add_evidence(t, w, row);
    text_add(t, "; %sTOST p ", adjusted(w));
    text_p(t, row->p_tost_adjusted);
    text_add(t, ".");
}

static void say_seeds_needed(struct text *t, const struct wording *w, const struct comparison *row) {
    bool by_t = row->test == TEST_PAIRED_T || row->test == TEST_WELCH;
    const char *each = row->paired ? "" : " each", *power = by_t ? "80 % power" : "80 % power of the t test";
    if (row->seeds_needed > (row->paired ? row->pairs : row->units))
        text_add(t,
                 " At this spread about %zu seeds%s would be needed to find a difference of the margin, %g, with %s.",
                 row->seeds_needed, each, w->design->margin, power);
    else if (row->seeds_needed)
        text_add(t, " These seeds find a difference of the margin, %g, with %s.", w->design->margin, power);
    else if (row->mde80 > 0.0) {
        text_add(t, " With these seeds only a difference of at least ");
        add_size(t, w, row->mde80);
        text_add(t, " is found with %s.", power);
    }
}

static void say_inconclusive(struct text *t, const struct wording *w, const struct comparison *row) {
    text_add(t, "%s is not shown to differ from %s", row->variant, w->design->baseline);
    add_evidence(t, w, row);
    text_add(t, ": inconclusive, which is not the same as equal.");
    say_seeds_needed(t, w, row);
}

static void say_not_attainable(struct text *t, const struct wording *w, const struct comparison *row) {
    text_add(t, "%s against %s cannot be decided by this design", row->variant, w->design->baseline);
    add_evidence(t, w, row);
    text_add(t,
             ": with %zu seeds the least p that %s can give is %.4g, or %.4g after correction, which is not "
             "under α = %g.",
             row->units, test_name(row->test), row->attainable_p, row->attainable_adjusted, w->design->alpha);
    if (row->needed_n) text_add(t, " At least %zu seeds are needed for a first rejection.", row->needed_n);
}

static void say_too_few(struct text *t, const struct wording *w, const struct comparison *row) {
    if (row->paired || row->two_machines)
        text_add(t, "%s shares %s %s seed with %s", row->variant, row->pairs ? "only one" : "no",
                 row->two_machines ? "comparable" : "finished", w->design->baseline);
    else
        text_add(t, "%s and %s share no seed, and one of them has fewer than two that finished", row->variant,
                 w->design->baseline);
    text_add(t, "; no test is possible with fewer than two.");
}

/* A comparison in declared looks: the boundary decides, and the figures of all seeds only describe. */
static void say_looks(struct text *t, const struct wording *w, const struct comparison *row) {
    const struct look_plan *plan = w->design->looks;
    const struct look_result *last = row->look_count ? &row->looks[row->look_count - 1] : NULL;
    if (row->stopped >= 0) {
        text_add(t, "%s is %s than %s: stopped at look %d of %d, after %zu seeds, where |t| = ", row->variant,
                 row->verdict == VERDICT_BETTER ? "better" : "worse", w->design->baseline, row->stopped + 1,
                 plan->count, last->n);
        text_number(t, fabs(last->statistic), 2);
        text_add(t, " reaches the boundary of ");
        text_number(t, last->boundary, 2);
    } else {
        text_add(t, "%s is not shown to differ from %s: %d of %d looks, no boundary crossed", row->variant,
                 w->design->baseline, row->look_count, plan->count);
        if (row->look_count < plan->count) text_add(t, "; the next look is at %zu seeds", plan->n[row->look_count]);
    }
    text_add(t, " (Δ = ");
    add_signed(t, w, row->delta);
    text_add(t, " over the %zu paired seeds there are%s). The looks spend α = %.4g by %s.", row->pairs,
             row->stopped >= 0 ? "; where a comparison stops early, it tends to be too large" : "", plan->alpha,
             spending_name(plan->spending));
}

static void say_failed(struct text *t, const struct wording *w, const struct comparison *row) {
    if (!row->summary.failed && !row->baseline_failed) return;
    if (row->summary.failed)
        text_add(t, " %zu of its %zu seeds failed", row->summary.failed, row->summary.failed + row->summary.n);
    if (row->baseline_failed)
        text_add(t, row->summary.failed ? ", and %zu of %s's" : " %zu of the seeds of %s failed", row->baseline_failed,
                 w->design->baseline);
    if (test_ranks(row->test))
        text_add(t, "; they rank as the worst.");
    else if (row->verdict == VERDICT_TOO_FEW)
        text_add(t, ".");
    else
        text_add(t, " and could not be compared: the comparison rests on those that survived.");
}

static void say_two_machines(struct text *t, const struct comparison *row) {
    if (row->two_machines)
        text_add(t, " Left out: %zu seed%s whose two times were taken on different machines.", row->two_machines,
                 row->two_machines == 1 ? "" : "s");
}

void sentence_verdict(struct text *t, const struct wording *w, const struct comparison *row) {
    static void (*const say[])(struct text *, const struct wording *, const struct comparison *) = {
        [VERDICT_BETTER] = say_differs,
        [VERDICT_BETTER_BY_MARGIN] = say_differs,
        [VERDICT_WORSE] = say_differs,
        [VERDICT_WORSE_BY_MARGIN] = say_differs,
        [VERDICT_EQUIVALENT] = say_equivalent,
        [VERDICT_INCONCLUSIVE] = say_inconclusive,
        [VERDICT_NOT_ATTAINABLE] = say_not_attainable,
        [VERDICT_TOO_FEW] = say_too_few,
    };
    if (row->verdict == VERDICT_BASELINE) return;
    if (w->design->looks && row->verdict != VERDICT_TOO_FEW)
        say_looks(t, w, row);
    else
        say[row->verdict](t, w, row);
    say_failed(t, w, row);
    say_two_machines(t, row);
    if (row->late) text_add(t, " It rests on runs added after the declaration (late) and is exploratory.");
}
