/* stats: are the differences real? Pure functions on numbers; no store, no printing.
 *
 * One seed is one unit. delta = variant - baseline; a negative delta is an improvement, unless the design says that
 * higher is better. Distribution functions come from GSL. Each method with its source and what it assumes:
 *
 *   paired-t      t on the differences by seed (Student 1908); these are roughly normal.
 *   sign-flip     permutation of their signs, all of them up to 20 pairs, 99,999 drawn ones above and 19,999 above
 *                 200, counted as (b+1)/(m+1) (Phipson & Smyth, arXiv 1603.05766); differences are symmetric about 0
 *                 under the null.
 *   wilcoxon      signed ranks (Wilcoxon 1945), zero differences left out, ties at their mean rank; the distribution
 *                 given these ranks is enumerated up to 200 pairs, above that it is normal with continuity correction;
 *                 same assumption as sign-flip, blind to the size of outliers.
 *   welch         t on two samples without pairs and without equal variances (Welch 1947; Delacre et al., doi
 *                 10.5334/irsp.82); means are roughly normal.
 *   mann-whitney  rank sum of two samples (Mann & Whitney 1947), ties at their mean rank, enumerated given these ranks
 *                 up to 100 values, normal with continuity correction above; twice the smaller tail, at most 1. Under
 *                 the null the samples are exchangeable.
 *
 * Holm 1979 (no assumption); Benjamini & Hochberg 1995 (independent or positively dependent p); TOST (Lakens 2017);
 * Hedges g with the exact factor (Hedges 1981); BCa bootstrap (Efron 1987), which covers less than it says when seeds
 * are few (Owen, arXiv 2508.10083); simultaneous intervals by Bonferroni (Dunn 1961; no assumption); power from the
 * noncentral t (Cohen 1988, ch. 2; normal differences); probability of superiority (McGraw & Wong 1992; no assumption).
 * Bouthillier et al., arXiv 2103.03098, and Colas et al., arXiv 1806.08295, on seeds as units.
 *
 * Failed seeds: counted; worse than every value, and equal to each other, in the rank tests; absent in the others.
 * Every claim that a verdict makes (better, by the margin, equivalent) is adjusted over the family of comparisons. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/stats/looks.h"
#include "kernels/status.h"

struct observation {
    const char *variant;
    int64_t seed;
    double value;
    bool failed;        /* crashed or diverged: counted and shown, never dropped silently */
    bool late;          /* added after the declaration was frozen */
    bool absent;        /* no seed at all: the variant is to be compared, counts in its family, and has no value yet */
    const char *family; /* of the variant's comparison: those of one name are corrected together; NULL is "" */
    const char
        *machine; /* of a time: compared only with the same seed's on the same machine; NULL: it does not matter */
};

enum test_kind { TEST_PAIRED_T, TEST_SIGN_FLIP, TEST_WILCOXON, TEST_WELCH, TEST_MANN_WHITNEY, TEST_KINDS };
enum correction { CORRECT_HOLM, CORRECT_BH, CORRECT_NONE, CORRECTION_KINDS };
const char *test_name(enum test_kind kind); /* "paired-t", "sign-flip", "wilcoxon", "welch", "mann-whitney" */
bool test_pairs(enum test_kind kind);       /* whether it pairs by seed */
bool test_ranks(enum test_kind kind);       /* whether it ranks, so that failed seeds count as the worst */
bool test_find(const char *name, enum test_kind *kind);
const char *correction_name(enum correction correction); /* "holm", "benjamini-hochberg", "none" */
bool correction_find(const char *name, enum correction *correction);

struct design {
    const char *baseline;
    enum test_kind test;
    enum correction correction;
    double alpha;
    double margin; /* smallest difference that matters; 0: none declared */
    bool higher_is_better;
    uint64_t seed;                 /* of every resampling */
    bool thorough;                 /* also the tests that were not declared, and the bootstrap: slower, for display */
    const struct look_plan *looks; /* NULL: one look, at the end (looks.h) */
};

enum verdict {
    VERDICT_BASELINE,
    VERDICT_BETTER,
    VERDICT_BETTER_BY_MARGIN,
    VERDICT_WORSE,
    VERDICT_WORSE_BY_MARGIN,
    VERDICT_EQUIVALENT,
    VERDICT_INCONCLUSIVE,
    VERDICT_NOT_ATTAINABLE, /* no outcome at this n could have been significant */
    VERDICT_TOO_FEW         /* fewer than two pairs */
};
const char *verdict_name(enum verdict verdict); /* "better by the margin", "not attainable", ... */

struct summary {
    size_t n, failed;                  /* finite values; values that failed or are not finite */
    double mean, sd, median, min, max; /* of the finite values; NAN where undefined */
};

enum { MANY_SEEDS = 200 }; /* above it fewer resamples are drawn */
enum { FEW_SEEDS = 10 };   /* at so few a bootstrap interval is too narrow */

/* What was seen at one declared look. */
struct look_result {
    size_t n, pairs;            /* seeds of the look; those of them that could be paired */
    double delta, error;        /* mean difference of these pairs, and its standard error */
    double statistic, boundary; /* t; significant when |t| reaches the boundary */
};

/* A row of the table. Every figure is NAN where it is undefined or was not asked for. */
struct comparison {
    char *variant;
    bool late; /* some value that it rests on was added after the declaration */
    struct summary summary;
    enum test_kind test;    /* declared, or its unpaired counterpart when no seed is shared */
    bool paired;            /* the figures below are of pairs; otherwise of two samples */
    size_t pairs;           /* seeds present and finite in both */
    size_t baseline_failed; /* seeds of the baseline that failed or are not finite */
    size_t two_machines;    /* seeds left out because their two times were taken on different machines */
    size_t units;           /* seeds that the test used: pairs; the smaller sample when unpaired; ranks: failed too */
    double delta, ci_low, ci_high; /* mean difference; Student t, or Welch, at 1 - alpha, not adjusted */
    double family_low,
        family_high;          /* at 1 - alpha / family: all intervals of the family hold together; with looks, over
                                 them too: delta +- boundary x error of the last (Jennison & Turnbull 1989) */
    double bca_low, bca_high; /* bootstrap of the paired differences at 1 - alpha; when thorough */
    double sd_delta;          /* of the paired differences */
    double error, freedom;    /* of delta: standard error, degrees of freedom */
    double rho;               /* correlation of the pairs; NAN when undefined */
    double p_of[TEST_KINDS], adjusted_of[TEST_KINDS]; /* of all tests when thorough, else of the row's test */
    double p, p_adjusted;                             /* of the row's test; adjusted over the family */
    int direction;                      /* of the row's test: -1 the variant is lower, +1 higher, 0 neither */
    double p_margin, p_margin_adjusted; /* one-sided, in delta's direction against the margin; NAN without one */
    double p_tost, p_tost_adjusted;     /* equivalence within +-margin; NAN without one */
    double hedges_g;                    /* g_z of pairs (from 3 on), g of two samples; small-sample corrected */
    double superiority;         /* share of pairs, or of all combinations, in which the variant is better, ties half */
    double attainable_p;        /* least p that the row's test can give at this n; 0 for t */
    double attainable_adjusted; /* the same after correction, if every test of the family gave its least p */
    double mde80;               /* difference that t finds with 80 % power at this n and sd, family adjusted */
    size_t needed_n;            /* seeds for the first rejection after correction in the best case; 0: never */
    size_t seeds_needed;        /* seeds to find the margin with 80 % power at this sd; 0: no margin, or never */
    int family;                 /* comparisons that the correction of this row covers */
    int group;                  /* its declared family: the index of the first row in it */
    int look_count, stopped;    /* looks made; index of the one that crossed its boundary, -1: none */
    struct look_result looks[MOST_LOOKS];
    enum verdict verdict;
};

struct comparison_table {
    int count; /* baseline first, then in the order of first appearance */
    struct comparison *rows;
    int family; /* comparisons that declared rows are corrected for, in the largest family; late rows: for all */
    int groups; /* families; 1 unless the observations name some */
};

/* STATUS_USAGE naming the baseline when no observation has it, a variant and seed that occur twice, or fewer than two
 * seeds for a test that needs two. Non-finite values count as failed. */
status compare_variants(const struct design *design, const struct observation *observations, size_t count,
                        struct comparison_table *table);
void comparison_table_free(struct comparison_table *table);

/* Single figures, for tests and for planning. Differences d of n pairs; samples x of n and y of m. */
struct summary summarise(const double *values, size_t n); /* non-finite values count as failed */
double p_paired_t(const double *d, size_t n);             /* two-sided; NAN when n < 2; 0 or 1 when the sd is 0 */
double p_sign_flip(const double *d, size_t n, uint64_t seed);
double p_wilcoxon(const double *d, size_t n); /* infinite d rank above all others */
double p_welch(const double *x, size_t n, const double *y, size_t m);
double p_mann_whitney(const double *x, size_t n, const double *y, size_t m);
double p_below(const double *d, size_t n, double bound);       /* one-sided t: is the mean below? NAN when n < 2 */
double p_above(const double *d, size_t n, double bound);       /* the same: is the mean above? */
double p_equivalent(const double *d, size_t n, double margin); /* TOST: is the mean inside +-margin? */
void interval_t(const double *d, size_t n, double alpha, double *low, double *high);
/* Of the mean: exact up to n = 10, where all n^n resamples are counted; 9,999 drawn ones above, 1,999 above 200, from
 * the Philox stream of the seed. NAN when n < 3 or without spread. */
void interval_bca(const double *d, size_t n, double alpha, uint64_t seed, double *low, double *high);
double hedges_gz(const double *d, size_t n);
double hedges_g(const double *x, size_t n, const double *y, size_t m);                  /* pooled sd */
void adjust_p(enum correction correction, const double *p, double *adjusted, size_t n); /* NAN entries are left out */
double attainable_p(enum test_kind test, size_t n); /* n pairs, or n in each sample */
size_t needed_seeds(enum test_kind test, enum correction correction, double alpha, size_t family); /* 0: never */
double student_quantile(double probability, double freedom);

/* Power of the two-sided t test when the true difference is `shift` standard errors of its estimate (noncentral t),
 * and the shift that a power takes. */
double power_t(double shift, double freedom, double alpha);
double detectable_shift(double power, double freedom, double alpha);
/* The same for n pairs, with effects in standard deviations of the differences. */
double power_paired_t(double effect, size_t n, double alpha);
size_t seeds_for_power(double effect, double power, double alpha); /* 0: more than 10,000 */
double detectable_effect(size_t n, double power, double alpha);    /* NAN: n < 2 */
/* Seeds in each of two samples with these standard deviations that find a difference; 0: more than 10,000. */
size_t seeds_for_power_welch(double difference, double sd_x, double sd_y, double power, double alpha);
