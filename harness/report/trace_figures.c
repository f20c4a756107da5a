/* trace_figures: every number of a report's tables as a row: its formula, its runs, and its value; see trace.h. */
#include <math.h>
#include <stddef.h>

#include "harness/report/sources.h"
#include "harness/report/trace.h"

/* --- values ------------------------------------------------------------------------------------------------------- */

static double member(const void *object, size_t offset) {
    const void *at = (const char *)object + offset;
    return *(const double *)at;
}

static double compared(const struct analysis *a, int row, const struct trace_figure *f) {
    return member(&a->table.rows[row], f->place);
}

static double measured(const struct analysis *a, int row, const struct trace_figure *f) {
    return member(&a->variants[analysis_variant(a, row)], f->place);
}

static double n_of(const struct analysis *a, int row, const struct trace_figure *f) {
    (void)f;
    return (double)a->table.rows[row].summary.n;
}

static double needed_seeds_of(const struct analysis *a, int row, const struct trace_figure *f) {
    (void)f;
    return a->table.rows[row].seeds_needed ? (double)a->table.rows[row].seeds_needed : (double)NAN;
}

static double noise_of(const struct analysis *a, int row, const struct trace_figure *f) {
    (void)f;
    return row > 0 ? text_noise_of_difference(a, row) : (double)NAN;
}

static double class_of(const struct analysis *a, int row, const struct trace_figure *f) {
    const struct variant_figures *v = &a->variants[analysis_variant(a, row)];
    return v->bytes.n ? v->class_bytes[f->place] : (double)NAN;
}

static double share_of_cap(const struct analysis *a, int row, const struct trace_figure *f) {
    (void)f;
    return a->variants[analysis_variant(a, row)].bytes.mean / ARTIFACT_CAP_BYTES;
}

static double left_of_cap(const struct analysis *a, int row, const struct trace_figure *f) {
    (void)f;
    return ARTIFACT_CAP_BYTES - a->variants[analysis_variant(a, row)].bytes.max;
}

static double milliseconds_of(const struct analysis *a, int row, const struct trace_figure *f) {
    (void)f;
    return analysis_step_milliseconds(a, analysis_variant(a, row));
}

enum { DECLARED_TEST = TEST_KINDS };

static double false_positives(const struct analysis *a, int row, const struct trace_figure *f) {
    const struct relabelling *r = a->calibrations ? &a->calibrations[row] : NULL;
    return r && r->values ? r->rate[f->place == DECLARED_TEST ? a->design.test : f->place] : (double)NAN;
}

static double statistic_at(const struct analysis *a, int row, const struct trace_figure *f) {
    const struct comparison *c = &a->table.rows[row];
    return (int)f->place < c->look_count ? c->looks[f->place].statistic : (double)NAN;
}

static double source_of(const struct analysis *a, int row, const struct trace_figure *f) {
    struct variance_sources sources;
    (void)row;
    variance_sources(a, &sources);
    return member(&sources, f->place);
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

#define ROW(name, basis, formula) \
    { #name, formula, basis, {NULL, NULL }, compared, offsetof(struct comparison, name) }
#define SUMMARY(name, formula) \
    { #name, formula, BASIS_VARIANT, {NULL, NULL }, compared, offsetof(struct comparison, summary.name) }
#define MEAN(name, member, place, what) \
    { name, "mean of the " what, BASIS_DONE, {place, NULL}, measured, offsetof(struct variant_figures, member) }
#define SHIFT(name, member, to, from, basis, what)                                                            \
    {name, what, basis, {to, from}, measured, offsetof(struct variant_figures, member.summary.mean)},         \
        {name "_low", what ": mean - t quantile x standard error, at 1 - alpha",                              \
         basis,       {to, from},                                                                             \
         measured,    offsetof(struct variant_figures, member.low)},                                          \
    {                                                                                                         \
        name "_high", what ": mean + t quantile x standard error, at 1 - alpha", basis, {to, from}, measured, \
            offsetof(struct variant_figures, member.high)                                                     \
    }
#define CLASS_BYTES(name, class) \
    { name, "mean bytes before compression", BASIS_DONE, {name, NULL}, class_of, class }
#define RATE(name, test, what)                                                                                  \
    {                                                                                                           \
        "false_positives_" name, "share of 2,000 random pairings of these runs that " what " rejects at alpha", \
            BASIS_VARIANT, {NULL, NULL}, false_positives, test                                                  \
    }
#define LOOK(number)                                                                              \
    {                                                                                             \
        "look_" #number, "t of the differences of the seeds of this look",                        \
            (enum trace_basis)(BASIS_LOOK_1 + number - 1), {NULL, NULL}, statistic_at, number - 1 \
    }
#define SOURCE(name, member, formula) \
    { name, formula, BASIS_ALL, {NULL, NULL}, source_of, offsetof(struct variance_sources, member) }

const struct trace_figure trace_figures[] = {
    {"n", "finished runs with a finite value", BASIS_VARIANT, {NULL, NULL}, n_of, 0},
    SUMMARY(mean, "sum of the values / n"),
    SUMMARY(sd, "square root of the squared deviations / (n - 1)"),
    SUMMARY(median, "middle of the sorted values"),
    SUMMARY(min, "least value"),
    SUMMARY(max, "greatest value"),
    ROW(delta, BASIS_PAIRS, "mean of variant - baseline, by seed; difference of the means without pairs"),
    ROW(ci_low, BASIS_PAIRS, "delta - t quantile x standard error, at 1 - alpha"),
    ROW(ci_high, BASIS_PAIRS, "delta + t quantile x standard error, at 1 - alpha"),
    ROW(bca_low, BASIS_PAIRS, "BCa bootstrap of the differences, at 1 - alpha"),
    ROW(bca_high, BASIS_PAIRS, "BCa bootstrap of the differences, at 1 - alpha"),
    ROW(sd_delta, BASIS_PAIRS, "sd of the differences by seed"),
    ROW(rho, BASIS_PAIRS, "correlation of variant and baseline over the seeds"),
    ROW(superiority, BASIS_PAIRS,
        "share of pairs in which the variant is better, ties half; without pairs, of all combinations"),
    ROW(hedges_g, BASIS_PAIRS, "delta / sd, times the exact small-sample factor"),
    {"text_noise", "sd of delta over resampled blocks of the evaluated text", BASIS_PAIRS, {NULL, NULL}, noise_of, 0},
    ROW(p, BASIS_PAIRS, "of the declared test, two-sided"),
    ROW(p_margin, BASIS_PAIRS, "one-sided t against the margin"),
    ROW(p_tost, BASIS_PAIRS, "greater of two one-sided t tests against the margin on both sides"),
    ROW(attainable_p, BASIS_PAIRS, "least p that the test can give at this n"),
    ROW(family_low, BASIS_FAMILY, "as ci_low, at 1 - alpha / comparisons; with looks, by the boundary of the last one"),
    ROW(family_high, BASIS_FAMILY,
        "as ci_high, at 1 - alpha / comparisons; with looks, by the boundary of the last one"),
    ROW(mde80, BASIS_FAMILY, "difference that t finds with 80 % power at alpha, under Holm at alpha / comparisons"),
    {"seeds_needed",
     "seeds that find the margin with 80 % power at alpha, under Holm at alpha / comparisons",
     BASIS_FAMILY,
     {NULL, NULL},
     needed_seeds_of,
     0},
    ROW(p_adjusted, BASIS_FAMILY, "p, corrected over the comparisons"),
    ROW(p_margin_adjusted, BASIS_FAMILY, "p_margin, corrected over the comparisons"),
    ROW(p_tost_adjusted, BASIS_FAMILY, "p_tost, corrected over the comparisons"),
    {"verdict",
     "from p_adjusted, p_margin_adjusted, p_tost_adjusted and alpha; with looks, from their boundaries",
     BASIS_FAMILY,
     {NULL, NULL},
     NULL,
     0},
    LOOK(1),
    LOOK(2),
    LOOK(3),
    LOOK(4),
    LOOK(5),
    LOOK(6),
    LOOK(7),
    LOOK(8),
    LOOK(9),
    LOOK(10),
    LOOK(11),
    LOOK(12),
    LOOK(13),
    LOOK(14),
    LOOK(15),
    LOOK(16),
    RATE("declared", DECLARED_TEST, "the declared test"),
    RATE("paired_t", TEST_PAIRED_T, "the paired t test"),
    RATE("sign_flip", TEST_SIGN_FLIP, "the sign-flip test"),
    MEAN("bpb_raw", raw.mean, "bpb.raw", "BPB of the raw weights"),
    MEAN("bpb_averaged", averaged.mean, "bpb.averaged", "BPB of the averaged weights"),
    MEAN("bpb_artifact", artifact.mean, "bpb.artifact", "BPB of the decoded artifact"),
    SHIFT("averaging", averaging, "bpb.averaged", "bpb.raw", BASIS_DONE, "averaged - raw inside each run"),
    SHIFT("quantisation", quantisation, "bpb.artifact", "bpb.averaged", BASIS_DONE,
          "artifact - averaged inside each run"),
    {"parameters",
     "of the network",
     BASIS_DONE,
     {"parameters", NULL},
     measured,
     offsetof(struct variant_figures, parameters)},
    MEAN("train_seconds", train_seconds.mean, "train_seconds", "seconds of training"),
    {"train_seconds_min",
     "least seconds of training",
     BASIS_DONE,
     {"train_seconds", NULL},
     measured,
     offsetof(struct variant_figures, train_seconds.min)},
    {"train_seconds_max",
     "most seconds of training",
     BASIS_DONE,
     {"train_seconds", NULL},
     measured,
     offsetof(struct variant_figures, train_seconds.max)},
    SHIFT("slower", slower, "train_seconds", NULL, BASIS_BLOCKS, "variant - baseline inside each block"),
    MEAN("tokens_per_second", tokens_per_second.mean, "tokens_per_second", "tokens a second of the trainings"),
    MEAN("calibration_seconds", calibration_seconds.mean, "calibration_seconds", "seconds of calibration"),
    MEAN("quantise_seconds", quantise_seconds.mean, "quantise_seconds", "seconds of quantisation"),
    {"milliseconds",
     "tokens of a batch / mean tokens a second, in milliseconds",
     BASIS_DONE,
     {"tokens_per_second", NULL},
     milliseconds_of,
     0},
    CLASS_BYTES("embedding", CLASS_EMBEDDING),
    CLASS_BYTES("bigram", CLASS_BIGRAM),
    CLASS_BYTES("mamba", CLASS_MAMBA),
    CLASS_BYTES("attention", CLASS_ATTENTION),
    CLASS_BYTES("mlp", CLASS_MLP),
    CLASS_BYTES("control", CLASS_CONTROL),
    MEAN("before_compression", before_compression.mean, "before_compression", "bytes before compression"),
    MEAN("artifact_bytes", bytes.mean, "artifact_bytes", "bytes of the artifact's file"),
    {"artifact_bytes_min",
     "least bytes of the artifact's file",
     BASIS_DONE,
     {"artifact_bytes", NULL},
     measured,
     offsetof(struct variant_figures, bytes.min)},
    {"artifact_bytes_max",
     "most bytes of the artifact's file",
     BASIS_DONE,
     {"artifact_bytes", NULL},
     measured,
     offsetof(struct variant_figures, bytes.max)},
    SHIFT("larger", larger, "artifact_bytes", NULL, BASIS_BOTH, "variant - baseline by seed"),
    {"left_of_cap",
     "16,000,000 - most bytes of the artifact's file",
     BASIS_DONE,
     {"artifact_bytes", NULL},
     left_of_cap,
     0},
    {"share_of_cap",
     "mean bytes of the artifact's file / 16,000,000",
     BASIS_DONE,
     {"artifact_bytes", NULL},
     share_of_cap,
     0},
    SOURCE("variant", variant, "sd of the variants' means beyond what their seeds explain"),
    SOURCE("seed_shared", shared, "sd of a seed, common to the variants (symmetric sums)"),
    SOURCE("seed_own", own, "sd of a seed in one variant alone (symmetric sums)"),
    SOURCE("text", text, "sd of one score over resampled blocks of the evaluated text"),
    SOURCE("node", node, "sd of a machine (symmetric sums)"),
    SOURCE("replicate", replicate,
           "0 where every training of these runs that was made again is equal to the last bit; the query lists them"),
};
const size_t trace_figure_count = sizeof trace_figures / sizeof *trace_figures;
