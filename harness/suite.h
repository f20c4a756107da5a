/* suite: a declared experiment, read from YAML: a question, a baseline, variants, seeds, a metric and a test.
 *
 * How a variant's options come about, later lines over earlier ones:
 *   defaults (options.def) < preset < set < scale's preset and set < the variant's own mapping < --set
 * Inside one mapping quant.strategy applies first and the other keys refine it. The command line wins over all; what
 * it set is part of the declaration, so it never passes unseen.
 *
 * Every failure is STATUS_USAGE, one line "FILE:LINE:COLUMN: key: what is wrong, what is allowed, the nearest key". */
#pragma once
#include "harness/results.h"

#define SUITES_FOLDER "suites"

struct suite_variant {
    char name[NAME_CAPACITY];
    char family[FAMILY_CAPACITY]; /* of the comparisons that it is corrected with; "" when the suite is one family */
    char overrides[1024];         /* its own mapping as "key=value key=value"; "" for none */
    struct config config;         /* complete and checked */
    const char *file;             /* where its name stands: a path in the suite's files */
    int line, column;
};

/* The paths of the files that a suite is made of; the list owns them. */
struct suite_files {
    size_t count;
    char **paths;
};

struct suite {
    char path[4096]; /* as given */
    char name[NAME_CAPACITY], question[1024], preset[128], metric[64];
    char scale[32];       /* "" when the suite runs as written */
    char settings[1024];  /* of the command line, "key=value key=value"; "" for none */
    struct design design; /* baseline points to the baseline's name below */
    struct looks looks;   /* declared looks; count 0: one, at the end */
    struct config config; /* what all variants have in common, before their own mappings */
    int variant_count;
    struct suite_variant *variants; /* in the order of the file */
    int seed_count;
    int64_t *seeds; /* in the order of the file */
    int scale_count;
    char (*scales)[32]; /* names that --scale takes, in the order of the file */
    struct suite_files files;
};

struct suite_request {
    const char *path;            /* the suite's file; its presets are presets/NAME.yaml beside it, or else in suites/ */
    const char *scale;           /* NULL or "": as written */
    const char *const *settings; /* "key=value" of the command line, in order */
    int setting_count;
};

/* Reads and checks everything; nothing is left allocated on failure. suite_free takes a zeroed suite too. */
status suite_load(struct suite *suite, const struct suite_request *request);
void suite_free(struct suite *suite);

/* Index of a variant; -1 when there is none of that name. */
int suite_variant_find(const struct suite *suite, const char *name);

/* A configuration from a preset's file alone (for listings and benchmarks). */
status preset_load(const char *path, struct config *config);
