/* results: the metrics that a suite may declare, and a suite's results as plain arrays; see results.h. */
#include "harness/results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"

enum metric {
    METRIC_BPB_RAW,
    METRIC_BPB_AVERAGED,
    METRIC_BPB_ARTIFACT,
    METRIC_ARTIFACT_BYTES,
    METRIC_TRAIN_SECONDS,
    METRIC_TOKENS_PER_SECOND,
    METRIC_FINAL_LOSS
};

/* In the order of enum metric. */
const struct metric_row metric_rows[] = {
    {"bpb.raw", "bits per byte", "of the weights as training left them", false, false},
    {"bpb.averaged", "bits per byte", "of the averaged weights", false, false},
    {"bpb.artifact", "bits per byte", "of the model read back from its artifact", false, false},
    {"artifact_bytes", "bytes", "of the artifact's file", false, false},
    {"train_seconds", "seconds", "of the training, summed over its steps", false, true},
    {"tokens_per_second", "tokens/s", "of the training", true, true},
    {"loss.final", "nats per token", "of the last step's batch", false, false},
};
const size_t metric_row_count = sizeof metric_rows / sizeof *metric_rows;

const struct metric_row *metric_find(const char *name) {
    for (size_t i = 0; i < metric_row_count; i++)
        if (strcmp(metric_rows[i].name, name) == 0) return &metric_rows[i];
    return NULL;
}

void result_texts_free(struct result_text *texts, int count) {
    for (int i = 0; i < count; i++) {
        free(texts[i].name);
        free(texts[i].value);
    }
    free(texts);
}

void results_free(struct results *results) {
    for (int i = 0; i < results->run_count; i++) free(results->runs[i].trace);
    result_texts_free(results->provenance, results->provenance_count);
    free(results->declaration);
    free(results->variants);
    free(results->seeds);
    free(results->looks);
    free(results->peeks);
    result_texts_free(results->refusals, results->refusal_count);
    free(results->runs);
    *results = (struct results){0};
}

bool run_ended(const struct result_run *run) {
    return strcmp(run->status, "done") == 0 || strcmp(run->status, "failed") == 0;
}

bool results_peeked(const struct results *results, int *done, int *declared) {
    *done = *declared = 0;
    for (int i = 0; i < results->run_count; i++) {
        if (results->runs[i].late) continue;
        ++*declared;
        *done += run_ended(&results->runs[i]);
    }
    return *done > 0 && *done < *declared && !results->looks;
}

static bool declared_comparison(const struct results *r, int variant) {
    return !r->variants[variant].late && strcmp(r->variants[variant].name, r->design.baseline) != 0;
}

/* Of the largest declared family. */
static int declared_comparisons(const struct results *r) {
    int largest = 1;
    for (int v = 0; v < r->variant_count; v++) {
        int size = 0;
        for (int u = 0; u < r->variant_count; u++)
            size += declared_comparison(r, u) && strcmp(r->variants[u].family, r->variants[v].family) == 0;
        if (declared_comparison(r, v) && size > largest) largest = size;
    }
    return largest;
}

/* "obrien-fleming 3 5 7", up to the end of the line. */
static bool parse_looks(const char *text, struct looks *looks) {
    char name[32];
    int used = 0;
    if (sscanf(text, "%31s%n", name, &used) != 1 || !spending_find(name, &looks->spending)) return false;
    for (text += used; *text == ' ' && looks->count < MOST_LOOKS;) {
        char *end;
        looks->n[looks->count++] = strtoull(text, &end, 10);
        text = end;
    }
    return looks->count > 0;
}

status results_plan_looks(struct results *r) {
    static const char key[] = "\nlooks: ";
    const char *line = r->declaration ? strstr(r->declaration, key) : NULL;
    struct looks looks = {0};
    if (!line) return NULL;
    if (!parse_looks(line + strlen(key), &looks))
        return status_new(STATUS_DATA, "suite %s: the looks of its declaration cannot be read", r->suite);
    r->looks = calloc(1, sizeof *r->looks);
    if (!r->looks) return status_new(STATUS_SYSTEM, "out of memory");
    double share = r->design.correction == CORRECT_NONE ? r->design.alpha : r->design.alpha / declared_comparisons(r);
    TRY(look_plan_make(looks.spending, looks.n, looks.count, share, r->looks));
    r->design.looks = r->looks;
    return NULL;
}

static double evaluated(const struct result_evaluation *evaluation) {
    return evaluation->present ? evaluation->value.bpb : (double)NAN;
}

static double figure(const struct result_run *run, enum metric metric) {
    switch (metric) {
    case METRIC_BPB_RAW:
        return evaluated(&run->raw);
    case METRIC_BPB_AVERAGED:
        return evaluated(&run->averaged);
    case METRIC_BPB_ARTIFACT:
        return evaluated(&run->artifact);
    case METRIC_ARTIFACT_BYTES:
        return run->sizes.bytes ? (double)run->sizes.bytes : (double)NAN;
    case METRIC_TRAIN_SECONDS:
        return run->train_seconds;
    case METRIC_TOKENS_PER_SECOND:
        return run->tokens_per_second;
    case METRIC_FINAL_LOSS:
        return run->final_loss;
    }
    return (double)NAN;
}

static status find_metric(const char *name, enum metric *metric) {
    const char *names[sizeof metric_rows / sizeof *metric_rows];
    char known[512] = "";
    for (size_t i = 0; i < metric_row_count; i++) {
        names[i] = metric_rows[i].name;
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", names[i]);
        if (strcmp(names[i], name) != 0) continue;
        *metric = (enum metric)i;
        return NULL;
    }
    const char *nearest = nearest_word(name, names, metric_row_count);
    return status_new(STATUS_USAGE, "unknown metric \"%s\"; known: %s%s%s%s", name, known,
                      nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

status results_metric(const struct results *results, int run, const char *metric, double *value) {
    enum metric which;
    *value = NAN;
    TRY(find_metric(metric, &which));
    *value = figure(&results->runs[run], which);
    return NULL;
}

/* A variant without a run that ended stands for itself, so that its comparison is shown and counted. */
static bool has_ended_run(const struct results *results, int variant) {
    for (int i = 0; i < results->run_count; i++)
        if (results->runs[i].variant == variant && run_ended(&results->runs[i])) return true;
    return false;
}

static void add_absent(const struct results *results, struct observation *observations, size_t *count) {
    for (int v = 0; v < results->variant_count; v++) {
        const struct result_variant *variant = &results->variants[v];
        if (!has_ended_run(results, v))
            observations[(*count)++] = (struct observation){
                .variant = variant->name, .family = variant->family, .late = variant->late, .absent = true};
    }
}

status results_observations(const struct results *results, const char *metric, struct observation **observations,
                            size_t *count) {
    enum metric which;
    *observations = NULL;
    *count = 0;
    TRY(find_metric(metric, &which));
    *observations = calloc((size_t)(results->run_count + results->variant_count) + 1, sizeof **observations);
    if (!*observations) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < results->run_count; i++) {
        const struct result_run *run = &results->runs[i];
        bool failed = strcmp(run->status, "failed") == 0;
        if (!run_ended(run)) continue;
        (*observations)[(*count)++] = (struct observation){.variant = results->variants[run->variant].name,
                                                           .family = results->variants[run->variant].family,
                                                           .machine = metric_rows[which].timed ? run->node : NULL,
                                                           .seed = run->seed,
                                                           .value = failed ? (double)NAN : figure(run, which),
                                                           .failed = failed,
                                                           .late = run->late};
    }
    if (*count) add_absent(results, *observations, count);
    return NULL;
}
