/* requirement: a difference that a gate asks for, in words, and whether stored results show it.
 *
 *   A better than B [on METRIC] [by X]         the mean difference lies beyond X in the metric's good direction
 *   A non-inferior to B [on METRIC] by X       A is not worse by X or more
 *   A smaller than B [by X]                    better on artifact_bytes
 *   A faster than B [by X]                     better on tokens_per_second
 *
 * Decided on the differences paired by seed, with one-sided Student t tests at the suite's alpha against the bound
 * (for "better", as in hinge compare, the two-sided test against 0 must reject too). It holds when the test on its side
 * rejects, does not hold when the opposite one does, and cannot be told otherwise. Assumption: differences about
 * normal. With declared looks the last one that both variants have reached decides, at the share of alpha that is its
 * own (half of it on each side; the interval is a repeated one, Jennison & Turnbull 1989), so that runs which a look
 * has spared are not missed. Several requirements that must hold together need no correction (intersection-union test,
 * Berger 1982). */
#pragma once
#include "harness/results.h"

enum relation { RELATION_BETTER, RELATION_NON_INFERIOR, RELATION_SMALLER, RELATION_FASTER, RELATIONS };
const char *relation_words(enum relation relation); /* "better than", ... */

struct requirement {
    enum relation relation;
    char variant[NAME_CAPACITY], baseline[NAME_CAPACITY];
    char metric[64]; /* "" when the text names none: the suite's, or the relation's own */
    double amount;   /* in the metric's unit; 0 when the text names none */
};

/* STATUS_USAGE saying how a requirement is written. */
status requirement_parse(const char *text, struct requirement *out);

enum outcome { OUTCOME_HOLDS, OUTCOME_DOES_NOT, OUTCOME_CANNOT_TELL };
const char *outcome_name(enum outcome outcome); /* "holds", "does not hold", "cannot tell" */

struct judgement {
    enum outcome outcome;
    char metric[64], why[256];    /* why: what keeps it from being decided, "" otherwise */
    double alpha, interval_alpha; /* of the one-sided tests, and of the interval */
    int look;            /* the declared look that decides, from 1; 0: none were declared, or none is reached */
    size_t pairs;        /* seeds with a finite value of both */
    int missing, failed; /* runs of the two variants that are not done, that failed */
    double delta, ci_low, ci_high; /* variant - baseline; Student t at 1 - interval_alpha */
    double p_holds, p_does_not; /* one-sided, against the bound; for "better" without looks p_holds is the two-sided p
                                   against 0 where that is larger; NAN under two pairs */
};

/* STATUS_USAGE for a variant or metric that the results do not have. */
status requirement_judge(const struct requirement *requirement, const struct results *results, struct judgement *out);
