/* results: what a suite's runs left behind, as plain arrays: filled by the store, read by compare, report and export.
 *
 * Everything is owned by the struct and freed by results_free. A value that does not exist (yet) is NAN, a text "". */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/loss_rise.h"
#include "harness/stats/stats.h"
#include "kernels/status.h"
#include "model/artifact.h"
#include "model/evaluation.h"
#include "model/trainer.h"

enum { NAME_CAPACITY = 512, FAMILY_CAPACITY = 64 }; /* of a suite's or variant's name, and a family's, with its NUL */

struct result_variant {
    char name[NAME_CAPACITY];
    bool late;
    char family[FAMILY_CAPACITY]; /* declared family of its comparison; "" when the suite is one family */
    char overrides[1024]; /* "recurrence.layers=3,4 recurrence.repeats=2", what differs from the suite's preset */
};

struct result_evaluation {
    bool present;
    struct evaluation value; /* blocks included */
    char stage_key[65];
};

struct result_run {
    int64_t id;
    int variant; /* index into variants */
    int64_t seed;
    bool late;
    char status[16]; /* pending, running, done, failed, interrupted; deleted: not in the store, and should be */
    char error[512];
    char key[65];                       /* of the whole run */
    char train_key[65];                 /* runs that share it share one training */
    int64_t steps;                      /* done */
    double final_loss;                  /* of the last step; NAN before the training is done */
    char training_note[LOSS_RISE_TEXT]; /* that its loss rose; "" otherwise */
    size_t step_count;
    struct step_record *trace; /* (step_count); NULL when loaded as RESULTS_FIGURES */
    double train_seconds, tokens_per_second, quantise_seconds, calibration_seconds;
    int64_t parameter_count;
    struct result_evaluation raw, averaged, artifact;
    struct artifact_sizes sizes; /* bytes 0 when there is no artifact */
    char artifact_notes[2048];
    char weights_sha256[65], trace_sha256[65];
    char node[64]; /* that trained it: a machine, or a drawn one of the simulated backend */
    char strategy[TEXT_CAPACITY];
    char started[32], finished[32]; /* ISO 8601, UTC */
};

struct result_text {
    char *name, *value;
};

/* Figures shown before all declared runs had ended, without declared looks. */
struct result_peek {
    char verb[32], at[32]; /* at: ISO 8601, UTC */
    int done, declared;    /* runs */
};

struct results {
    char suite[NAME_CAPACITY], question[1024], scale[32], preset[128], metric[64], declaration_sha256[65],
        declared_at[32];
    char source[4096];    /* the suite's file */
    char *declaration;    /* canonical text of what was frozen */
    struct design design; /* baseline points into variants[].name */
    int variant_count, seed_count, run_count;
    struct result_variant *variants;
    int64_t *seeds;
    struct look_plan *looks; /* NULL: none declared; design.looks points to it */
    struct result_run *runs; /* seed by seed, variants in order inside a seed */
    struct config config;    /* the suite's common configuration, before any variant's overrides */
    char dataset[TEXT_CAPACITY], dataset_sha256[65];
    double unigram_bpb; /* of the dataset: add-one unigram over the same tokens */
    int provenance_count;
    struct result_text *provenance;       /* revision, compiler, flags, CPU, libraries, ... as recorded by the runs */
    bool closed_early;                    /* some planned run has not ended */
    int replicates, replicates_differing; /* trainings that were made again; those of them with another bit */
    int peek_count, refusal_count;
    struct result_peek *peeks;    /* by time */
    struct result_text *refusals; /* changed declarations that were refused: when, and what differed */
};

void results_free(struct results *results);

/* Done or failed: an observation, if one without a value. */
bool run_ended(const struct result_run *run);

/* Whether showing the results is a peek: declared runs have ended, not all of them, and no looks were declared. */
bool results_peeked(const struct results *results, int *done, int *declared);

/* Plans the looks that the declaration names, each comparison with its share of alpha; for the store, once variants and
 * declaration are there. */
status results_plan_looks(struct results *results);
void result_texts_free(struct result_text *texts, int count);

/* What a suite may declare as its metric. */
struct metric_row {
    const char *name, *unit, *help;
    bool higher_is_better;
    bool timed; /* comparable only between runs of one machine */
};
extern const struct metric_row metric_rows[];
extern const size_t metric_row_count;
const struct metric_row *metric_find(const char *name); /* NULL when there is none */

/* The metric of a run by its name in metric_rows. NAN when the run does not have it. Unknown name: the status names the
 * known ones and the nearest. */
status results_metric(const struct results *results, int run, const char *metric, double *value);

/* One observation per run of the declared metric; a time with the machine that took it. Caller frees *observations,
 * whose names point into results. */
status results_observations(const struct results *results, const char *metric, struct observation **observations,
                            size_t *count);
