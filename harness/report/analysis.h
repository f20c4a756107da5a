/* analysis: what all parts of a report draw on: the comparison, and each variant's figures over its finished runs. */
#pragma once
#include "harness/report/sentences.h"
#include "harness/results.h"
#include "harness/stats/relabel.h"

/* A difference inside each run, over the runs of a variant. */
struct shift {
    struct summary summary;
    double low, high; /* Student t, at 1 - alpha */
};

struct variant_figures {
    int done, failed, missing;                 /* runs; missing: planned and neither done nor failed */
    struct summary raw, averaged, artifact;    /* BPB */
    struct shift averaging, quantisation, gap; /* averaged - raw, artifact - averaged, artifact - raw */
    struct summary bytes, before_compression;  /* of the artifact */
    double class_bytes[CLASS_COUNT];           /* mean */
    struct summary train_seconds, tokens_per_second, quantise_seconds, calibration_seconds;
    struct shift slower; /* train seconds minus the baseline's, within blocks; of other trainings only */
    struct shift larger; /* bytes of the artifact minus the baseline's, by seed */
    double parameters;   /* NAN before a run is done */
    int curve_of;        /* the first variant that shares this one's training: its own index when it trained itself */
};

struct analysis {
    const struct results *results;
    struct design design; /* as declared, with the metric's direction */
    struct wording wording;
    const struct metric_row *metric;
    bool compared;
    struct comparison_table table;      /* when compared */
    char *not_compared;                 /* why not, otherwise */
    struct relabelling *calibrations;   /* of each row, once calibrations_make was called */
    char *caveats;                      /* what must be read with every figure; "" for nothing */
    int baseline;                       /* index of its variant */
    int *run_at;                        /* [variant_count][seed_count]: index of the run, -1: none */
    double *metrics;                    /* of each run that is done; NAN when it has none */
    struct variant_figures *variants;   /* [results->variant_count] */
    int planned, done, failed, missing; /* runs */
    int spared;                         /* planned runs that a comparison decided at a look does not need */
    bool *spares;                       /* of each run: whether it is one of these */
    int bpb_decimals;
};

/* STATUS_DATA when no run is done. */
status analyse(const struct results *results, struct analysis *out);
void analysis_free(struct analysis *a);

/* The run of a variant at a place of results->seeds; -1 when there is none. */
int analysis_run(const struct analysis *a, int variant, int seed);
/* The metric of that run; NAN when there is no finished one. */
double analysis_metric(const struct analysis *a, int variant, int seed);
/* Whether one of its runs blew up (harness/loss_rise.h). */
bool analysis_blown_up(const struct analysis *a, int variant);
/* Whether variant and baseline have finished runs of that seed; a block: trained on one machine, too, so that times can
 * be compared. */
bool analysis_both(const struct analysis *a, int variant, int seed);
bool analysis_block(const struct analysis *a, int variant, int seed);
/* Mean milliseconds of a training step of a variant. */
double analysis_step_milliseconds(const struct analysis *a, int variant);
/* The variant of a row of the table. */
int analysis_variant(const struct analysis *a, int row);

bool run_done(const struct result_run *run);
bool run_failed(const struct result_run *run);
/* BPB of an evaluation; NAN when it was not made. */
double bpb_of(const struct result_evaluation *evaluation);
