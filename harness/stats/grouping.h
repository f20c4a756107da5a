/* grouping: observations by variant and seed, and what of them each kind of test uses. */
#pragma once
#include "harness/stats/rows.h"

/* One seed of a variant. */
struct entry {
    const struct observation *observation;
    size_t place; /* of the seed in the order in which seeds first appear: the order of the looks */
};

struct series {
    const char *variant, *family; /* family: "" when none is named */
    bool late;                    /* all of it */
    size_t count;
    struct entry *entries; /* by seed */
};

struct grouping {
    int count; /* baseline first */
    struct series *series;
    struct entry *entries; /* behind all series */
};

/* STATUS_USAGE as compare_variants. grouping_free is needed also after a failure. */
status group_observations(const struct design *design, const struct observation *observations, size_t count,
                          struct grouping *g);
void grouping_free(struct grouping *g);

/* The values that a comparison of a variant with the baseline rests on; data points into memory. */
struct sample_pair {
    struct test_data data;
    const double *paired_variant, *paired_baseline; /* (data.pairs) */
    size_t shared;                                  /* seeds that both have, finite or not, and may be compared */
    size_t two_machines;                            /* seeds that both have, but with times of two machines */
    bool late;                                      /* of a pair that is used */
    bool late_sample;                               /* of any value of the variant or the baseline */
    double *memory;
};

/* first: only that many seeds, in the order in which they appear; 0: all. */
status sample_pair_make(const struct series *variant, const struct series *baseline, const struct design *design,
                        size_t first, struct sample_pair *out);
void sample_pair_free(struct sample_pair *pair);
