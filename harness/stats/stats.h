/* stats: are the differences real? Pure functions on numbers; no store, no printing.
 *
 * One seed is one unit. delta = variant - baseline; a negative delta is an improvement, unless the design says that
 * higher is better. Distribution functions come from GSL. Sources: Student t on paired differences (assumes that they
 * are roughly normal); exact sign-flip permutation (Phipson & Smyth, arXiv 1603.05766; assumes that they are symmetric
 * under the null); Holm 1979; Benjamini & Hochberg 1995; Hedges g (Hedges 1981); TOST (Lakens 2017); Bouthillier et
 * al. arXiv 2103.03098 and Colas et al. arXiv 1806.08295 on seeds as units.
 *
 * Every claim that a verdict makes (better, by the margin, equivalent) is adjusted over the family of comparisons. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

struct observation {
    const char *variant;
    int64_t seed;
    double value;
    bool failed; /* crashed or diverged: counted and shown, never dropped silently */
    bool late;   /* added after the declaration was frozen */
};

enum test_kind { TEST_PAIRED_T, TEST_SIGN_FLIP, TEST_KINDS };
enum correction { CORRECT_HOLM, CORRECT_BH, CORRECT_NONE, CORRECTION_KINDS };
const char *test_name(enum test_kind kind); /* "paired-t", "sign-flip" */
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
    uint64_t seed; /* of resampling, when a permutation test is sampled */
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

/* A row of the table. Every figure of pairs is NAN when there are fewer than two. */
struct comparison {
    char *variant;
    bool late; /* some value that it rests on was added after the declaration */
    struct summary summary;
    size_t pairs;                  /* seeds present and finite in both */
    double delta, ci_low, ci_high; /* mean difference; Student t on the differences at 1 - alpha, not adjusted */
    double sd_delta;               /* of the differences */
    double rho;                    /* correlation of the pairs; NAN when undefined */
    double p_of[TEST_KINDS], adjusted_of[TEST_KINDS];
    double p, p_adjusted;               /* of the declared test; adjusted over the family */
    double p_margin, p_margin_adjusted; /* one-sided, in delta's direction against the margin; NAN without one */
    double p_tost, p_tost_adjusted;     /* equivalence within +-margin; NAN without one */
    double hedges_g;                    /* g_z of the pairs, small-sample corrected; NAN under three pairs or at sd 0 */
    double superiority;                 /* share of pairs in which the variant is better, ties half */
    double attainable_p;                /* least p that the declared test can give at this n; 0 for t */
    double attainable_adjusted;         /* the same after correction, if every test of the family gave its least p */
    double mde80;        /* difference that paired t finds with 80 % power at this n and sd, family adjusted */
    size_t needed_n;     /* seeds for the first rejection after correction in the best case; 0: never */
    size_t seeds_needed; /* seeds to find the margin with 80 % power at this sd; 0: no margin, or never */
    int family;          /* comparisons that the correction of this row covers */
    enum verdict verdict;
};

struct comparison_table {
    int count; /* baseline first, then in the order of first appearance */
    struct comparison *rows;
    int family; /* comparisons that the declared rows are corrected for; late rows are corrected for all */
};

/* STATUS_USAGE naming the baseline when no observation has it, a variant and seed that occur twice, or fewer than two
 * seeds for a test that needs two. Non-finite values count as failed. */
status compare_variants(const struct design *design, const struct observation *observations, size_t count,
                        struct comparison_table *table);
void comparison_table_free(struct comparison_table *table);

/* Single figures, for tests and for planning. Differences d of n pairs. */
struct summary summarise(const double *values, size_t n);      /* non-finite values count as failed */
double p_paired_t(const double *d, size_t n);                  /* two-sided; NAN when n < 2; 0 or 1 when the sd is 0 */
double p_sign_flip(const double *d, size_t n, uint64_t seed);  /* exact up to n = 20, above that (b+1)/(m+1) */
double p_below(const double *d, size_t n, double bound);       /* one-sided t: is the mean below? NAN when n < 2 */
double p_above(const double *d, size_t n, double bound);       /* the same: is the mean above? */
double p_equivalent(const double *d, size_t n, double margin); /* TOST: is the mean inside +-margin? */
void interval_t(const double *d, size_t n, double alpha, double *low, double *high);
double hedges_gz(const double *d, size_t n);
void adjust_p(enum correction correction, const double *p, double *adjusted, size_t n); /* NAN entries are left out */
double attainable_p(enum test_kind test, size_t n);
size_t needed_seeds(enum test_kind test, enum correction correction, double alpha, size_t family); /* 0: never */
double student_quantile(double probability, double freedom);

/* Power of the two-sided paired t test when the true mean difference is effect standard deviations of the
 * differences (noncentral t). */
double power_paired_t(double effect, size_t n, double alpha);
size_t seeds_for_power(double effect, double power, double alpha); /* 0: more than 10,000 */
double detectable_effect(size_t n, double power, double alpha);    /* in sd of the differences; NAN: n < 2 */
