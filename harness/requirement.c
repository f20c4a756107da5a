/* requirement: from words to a decision; see requirement.h. */
#include "harness/requirement.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"

static const struct relation_row {
    const char *words, *metric; /* metric NULL: the suite's unless the text names one */
} relation_rows[RELATIONS] = {
    [RELATION_BETTER] = {"better than", NULL},
    [RELATION_NON_INFERIOR] = {"non-inferior to", NULL},
    [RELATION_SMALLER] = {"smaller than", "artifact_bytes"},
    [RELATION_FASTER] = {"faster than", "tokens_per_second"},
};

const char *relation_words(enum relation relation) { return relation_rows[relation].words; }

const char *outcome_name(enum outcome outcome) {
    static const char *const names[] = {"holds", "does not hold", "cannot tell"};
    return names[outcome];
}

/* --- words -------------------------------------------------------------------------------------------------------- */

static status not_understood(const char *text) {
    return status_new(STATUS_USAGE,
                      "--require '%s': write 'A better than B on METRIC by X', 'A non-inferior to B on METRIC by X', "
                      "'A smaller than B by X' or 'A faster than B by X'",
                      text);
}

/* The place of " word " in the text, NULL when it is not there. */
static const char *find_word(const char *text, const char *word) {
    char spaced[32];
    snprintf(spaced, sizeof spaced, " %s ", word);
    return strstr(text, spaced);
}

static bool copy_range(const char *start, const char *end, char *out, size_t size) {
    while (start < end && *start == ' ') start++;
    while (end > start && end[-1] == ' ') end--;
    if (start == end || (size_t)(end - start) >= size) return false;
    memcpy(out, start, (size_t)(end - start));
    out[end - start] = 0;
    return true;
}

static bool find_relation(const char *text, struct requirement *r, const char **rest) {
    for (int i = 0; i < RELATIONS; i++) {
        const char *at = find_word(text, relation_rows[i].words);
        if (!at) continue;
        r->relation = (enum relation)i;
        *rest = at + strlen(relation_rows[i].words) + 2;
        return copy_range(text, at, r->variant, sizeof r->variant);
    }
    return false;
}

static bool read_amount(const char *text, double *amount) {
    char *end;
    *amount = strtod(text, &end);
    return end != text && !*end && isfinite(*amount) && *amount >= 0;
}

status requirement_parse(const char *text, struct requirement *out) {
    const char *rest, *by, *on;
    *out = (struct requirement){0};
    if (!find_relation(text, out, &rest)) return not_understood(text);
    const char *end = rest + strlen(rest);
    if ((by = find_word(rest, "by"))) {
        if (!read_amount(by + 4, &out->amount)) return not_understood(text);
        end = by;
    }
    on = find_word(rest, "on");
    if (on && on < end) {
        if (relation_rows[out->relation].metric || !copy_range(on + 4, end, out->metric, sizeof out->metric))
            return not_understood(text);
        end = on;
    }
    if (!copy_range(rest, end, out->baseline, sizeof out->baseline)) return not_understood(text);
    if (out->relation == RELATION_NON_INFERIOR && out->amount == 0)
        return status_new(STATUS_USAGE, "--require '%s': non-inferior needs a margin: ... by X, above 0", text);
    return NULL;
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

static status find_variant(const struct results *results, const char *name, int *variant) {
    for (*variant = 0; *variant < results->variant_count; ++*variant)
        if (strcmp(results->variants[*variant].name, name) == 0) return NULL;
    const char **names = calloc((size_t)results->variant_count + 1, sizeof *names);
    if (!names) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < results->variant_count; i++) names[i] = results->variants[i].name;
    const char *near = nearest_word(name, names, (size_t)results->variant_count);
    free(names);
    return status_new(STATUS_USAGE, "suite %s has no variant '%s'%s%s", results->suite, name,
                      near ? "; nearest is " : "", near ? near : "");
}

static int find_run(const struct results *results, int variant, int64_t seed) {
    for (int i = 0; i < results->run_count; i++)
        if (results->runs[i].variant == variant && results->runs[i].seed == seed) return i;
    return -1;
}

/* Seeds from the first on of which both variants have ended. */
static int seeds_in_a_row(const struct results *results, int variant, int baseline) {
    for (int s = 0; s < results->seed_count; s++) {
        int x = find_run(results, variant, results->seeds[s]), y = find_run(results, baseline, results->seeds[s]);
        if (x < 0 || y < 0 || !run_ended(&results->runs[x]) || !run_ended(&results->runs[y])) return s;
    }
    return results->seed_count;
}

/* With declared looks the last one that both variants have reached decides, at what it may spend: its boundary holds
 * for any requirement, whatever made the runs stop there. */
static void choose_look(const struct results *results, int variant, int baseline, struct judgement *out) {
    const struct look_plan *plan = results->looks;
    out->alpha = out->interval_alpha = results->design.alpha;
    if (!plan) return;
    int there = seeds_in_a_row(results, variant, baseline);
    for (int k = 0; k < plan->count && plan->n[k] <= (size_t)there; k++) {
        out->look = k + 1;
        out->interval_alpha = plan->level[k];
        out->alpha = plan->level[k] / 2;
    }
}

static bool in_look(const struct results *results, const struct judgement *j, int64_t seed) {
    if (!results->looks) return true;
    for (size_t s = 0; j->look && s < results->looks->n[j->look - 1]; s++)
        if (results->seeds[s] == seed) return true;
    return false;
}

static void count_states(const struct results *results, int variant, struct judgement *out) {
    for (int i = 0; i < results->run_count; i++) {
        const struct result_run *run = &results->runs[i];
        if (run->variant != variant || !in_look(results, out, run->seed)) continue;
        bool failed = strcmp(run->status, "failed") == 0;
        out->failed += failed;
        out->missing += !failed && strcmp(run->status, "done") != 0;
    }
}

/* Differences of the seeds that both have; values that are not finite are left out, and times of two machines. */
static status pair_up(const struct results *results, int variant, int baseline, const struct judgement *j, double *d,
                      size_t *n) {
    const struct metric_row *row = metric_find(j->metric);
    bool timed = row && row->timed;
    *n = 0;
    for (int i = 0; i < results->run_count; i++) {
        double x, y;
        if (results->runs[i].variant != variant || !in_look(results, j, results->runs[i].seed)) continue;
        int other = find_run(results, baseline, results->runs[i].seed);
        TRY(results_metric(results, i, j->metric, &x));
        if (other < 0 || (timed && strcmp(results->runs[i].node, results->runs[other].node) != 0)) continue;
        TRY(results_metric(results, other, j->metric, &y));
        if (isfinite(x - y)) d[(*n)++] = x - y;
    }
    return NULL;
}

/* --- the decision ------------------------------------------------------------------------------------------------- */

static void test_bound(const struct requirement *r, bool higher, const double *d, size_t n, struct judgement *out) {
    /* Lower is better in these terms: the requirement is a mean below the bound. */
    double bound = r->relation == RELATION_NON_INFERIOR ? r->amount : -r->amount;
    out->p_holds = higher ? p_above(d, n, -bound) : p_below(d, n, bound);
    out->p_does_not = higher ? p_below(d, n, -bound) : p_above(d, n, bound);
    if (r->relation != RELATION_NON_INFERIOR && !out->look) out->p_holds = fmax(out->p_holds, p_paired_t(d, n));
}

static void decide(const struct results *results, struct judgement *out) {
    out->outcome = OUTCOME_CANNOT_TELL;
    if (results->looks && !out->look)
        snprintf(out->why, sizeof out->why, "the two variants have not reached the first declared look");
    else if (out->missing)
        snprintf(out->why, sizeof out->why, "%d run%s of the two variants %s not done", out->missing,
                 out->missing == 1 ? "" : "s", out->missing == 1 ? "is" : "are");
    else if (out->pairs < 2)
        snprintf(out->why, sizeof out->why, "fewer than two seeds have both");
    else if (out->p_does_not < out->alpha)
        out->outcome = OUTCOME_DOES_NOT;
    else if (out->p_holds >= out->alpha)
        snprintf(out->why, sizeof out->why, "the %zu seeds decide neither way", out->pairs);
    else if (out->failed)
        snprintf(out->why, sizeof out->why, "%d run%s failed, and only the others show it", out->failed,
                 out->failed == 1 ? "" : "s");
    else
        out->outcome = OUTCOME_HOLDS;
}

static const char *metric_of(const struct requirement *r, const struct results *results) {
    if (relation_rows[r->relation].metric) return relation_rows[r->relation].metric;
    return *r->metric ? r->metric : results->metric;
}

status requirement_judge(const struct requirement *r, const struct results *results, struct judgement *out) {
    int variant, baseline;
    *out = (struct judgement){.p_holds = NAN, .p_does_not = NAN, .delta = NAN};
    snprintf(out->metric, sizeof out->metric, "%s", metric_of(r, results));
    TRY(find_variant(results, r->variant, &variant));
    TRY(find_variant(results, r->baseline, &baseline));
    if (variant == baseline)
        return status_new(STATUS_USAGE, "a requirement compares two variants, not %s with itself", r->variant);
    double *d = calloc((size_t)results->run_count + 1, sizeof *d);
    if (!d) return status_new(STATUS_SYSTEM, "out of memory for %d runs", results->run_count);
    choose_look(results, variant, baseline, out);
    status s = pair_up(results, variant, baseline, out, d, &out->pairs);
    if (!s) {
        count_states(results, variant, out);
        count_states(results, baseline, out);
        out->delta = summarise(d, out->pairs).mean;
        interval_t(d, out->pairs, out->interval_alpha, &out->ci_low, &out->ci_high);
        test_bound(r, metric_find(out->metric)->higher_is_better, d, out->pairs, out);
        decide(results, out);
    }
    free(d);
    return s;
}
