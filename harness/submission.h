/* submission: the texts of the competition's record folder; cmd_submission gathers what they say.
 *
 * The competition (openai/parameter-golf, after KellerJordan/modded-nanogpt) scores bits per byte of a validation text
 * with at most 16,000,000 bytes of compressed model and code. A folder of its records/ holds:
 *
 *   submission.json    author, github_id, name, blurb, date, val_loss, val_bpb, bytes_total, bytes_code; records of
 *                      several seeds add seed_results {SEED: {val_loss, val_bpb, steps, ms_per_step}} and p_value
 *   train_seedN.log    what the training printed, one file a seed
 *   README.md          the claim; a new record must be better by 0.005 nats at p < 0.01
 *   the code           bytes_code is its size as it lies there: source text, or what unpacks itself to it. Python and
 *                      libraries do not count, so neither do our compiler and libraries.
 *
 * seeds, and artifact_bytes and artifact_sha256 of each seed, are ours. */
#pragma once
#include <stdio.h>

#include "harness/results.h"

/* The record rule: better by at least so many nats per token at less than this p; and the cap on all bytes. */
#define RECORD_MARGIN 0.005
#define RECORD_ALPHA 0.01
#define RECORD_BYTES ARTIFACT_CAP_BYTES

struct submission {
    struct results results; /* of the suite */
    struct config config;   /* of the variant */
    int variant;
    const char *baseline, *author, *github_id;
    const char *code;  /* the file in the folder that holds it; NULL: the program's own sources, not copied */
    size_t code_bytes; /* of that file, or of those sources */
    char revision[64]; /* of the program that trained the run that was named */
    int seeds;         /* finished ones of the variant */
    double loss, bpb;  /* means over them */
    size_t bytes;      /* of the largest artifact */
    struct comparison_table table;
};

/* A finished run of the variant. */
bool submission_counts(const struct submission *s, const struct result_run *run);

/* The variant against the baseline; NULL when they share nothing. */
const struct comparison *submission_comparison(const struct submission *s);

void submission_print_json(FILE *out, const struct submission *s);
void submission_print_log(FILE *out, const struct submission *s, const struct result_run *run);
/* Whether the sources that are counted are not those that trained the run. */
bool submission_of_other_code(const struct submission *s);

void submission_print_readme(FILE *out, const struct submission *s);
void submission_print_claim(FILE *out, const struct submission *s);
