/* simulated: the stages of runs that are drawn, not trained; see simulated.h. */
#include "harness/simulated.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"
#include "kernels/random.h"
#include "kernels/simulated/simulated.h"
#include "model/files.h"

/* Of a transaction: what an interruption loses, and what other writers wait for. */
enum { BATCH_RUNS = 1024 };
static const double batch_seconds = 0.2;

/* --- suites ------------------------------------------------------------------------------------------------------- */

bool suite_simulated(const struct suite *suite) { return suite->config.run_backend == BACKEND_SIMULATED; }

status simulated_check(const struct suite *suite) {
    for (int i = 0; i < suite->variant_count; i++) {
        const struct suite_variant *v = &suite->variants[i];
        if (v->config.run_backend != suite->config.run_backend)
            return status_new(STATUS_USAGE,
                              "%s:%d:%d: variant %s: run.backend differs from that of the suite: drawn and measured "
                              "figures cannot be compared; set it for all variants",
                              suite->path, v->line, v->column, v->name);
    }
    return NULL;
}

void simulated_dataset(struct dataset *dataset, const struct suite *suite, const char *name) {
    char text[TEXT_CAPACITY + 16];
    *dataset = (struct dataset){
        .vocab_size = (size_t)suite->config.model_vocab_size, .unigram_nll = NAN, .bytes_per_token = NAN};
    snprintf(dataset->name, sizeof dataset->name, "%s", name);
    snprintf(text, sizeof text, "simulated %s", dataset->name);
    bytes_sha256(text, strlen(text), dataset->sha256);
}

const char *simulated_note(const struct results *results) {
    return results->config.run_backend == BACKEND_SIMULATED
               ? "simulated: figures drawn from a declared distribution, not measured"
               : NULL;
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

/* What the draws of a variant are keyed by: before and after the quantisation. */
struct variant_names {
    char trained[65], quantised[65];
};

struct simulator {
    const struct simulation *simulation;
    struct variant_names *names; /* (variants) */
};

/* A stage at work. */
struct drawing {
    const struct simulation *simulation;
    const struct plan_stage *stage;
    const struct config *config;
    struct simulated_world world;
    uint64_t seed;
    const char *variant; /* what the draws are keyed by */
};

/* The options that decide the weights behind the stage and are not at their default: stable when options are added. */
static void name_variant(const struct config *config, enum stage_kind until, char out[65]) {
    char value[512];
    struct digest *digest = digest_new();
    for (size_t i = 0; i < option_row_count; i++) {
        const struct option_row *row = &option_rows[i];
        if (row->stage == STAGE_NONE || row->stage > until) continue;
        if (strcmp(option_text(row, config, value), row->initial) == 0) continue;
        digest_add(digest, row->key, strlen(row->key) + 1);
        digest_add(digest, value, strlen(value) + 1);
    }
    digest_finish(digest, out);
}

static struct drawing drawing_of(const struct simulator *simulator, const struct plan_stage *stage) {
    const struct config *c = &simulator->simulation->plan->suite->variants[stage->variant].config;
    struct drawing d = {
        .simulation = simulator->simulation, .stage = stage, .config = c, .seed = (uint64_t)stage->seed};
    d.world = (struct simulated_world){.bpb = c->simulated_bpb,
                                       .effect = c->simulated_effect,
                                       .seed_sd = c->simulated_seed_sd,
                                       .correlation = c->simulated_correlation,
                                       .node_sd = c->simulated_node_sd,
                                       .nodes = c->simulated_nodes,
                                       .failure_rate = c->simulated_failure_rate};
    bool quantised = stage->part == PART_QUANTISE || stage->part == PART_ARTIFACT;
    const struct variant_names *names = &simulator->names[stage->variant];
    d.variant = quantised ? names->quantised : names->trained;
    return d;
}

static double spread(const struct drawing *d, const char *name, double relative) {
    return exp(relative * simulated_spread(d->seed, d->variant, name));
}

/* --- stages ------------------------------------------------------------------------------------------------------- */

/* A loss that falls towards that of the drawn bits per byte at four bytes a token. */
static struct step_record step_of(const struct drawing *d, int64_t step, double last, double milliseconds) {
    double left = 1 - (double)(step + 1) / (double)d->config->simulated_trace;
    return (struct step_record){.step = step,
                                .loss = last * (1 + left * left),
                                .multiplier = left,
                                .milliseconds = milliseconds,
                                .tokens = d->config->train_batch_tokens};
}

static status put_trace(const struct drawing *d, double last, double milliseconds) {
    int64_t count = d->config->simulated_trace;
    struct step_record *steps = calloc((size_t)count + 1, sizeof *steps);
    if (!steps) return status_new(STATUS_SYSTEM, "no memory for the records of %lld steps", (long long)count);
    for (int64_t i = 0; i < count; i++) steps[i] = step_of(d, i, last, milliseconds);
    status s = store_put_steps(d->simulation->store, d->stage->key, d->simulation->worker, 0, steps, (size_t)count);
    free(steps);
    return s;
}

static status draw_training(const struct drawing *d, struct stage_result *result) {
    double bpb = simulated_bpb(&d->world, d->seed, d->variant);
    double milliseconds = 100 * spread(d, "seconds", 0.02);
    if (simulated_fails(&d->world, d->seed, d->variant))
        return status_new(STATUS_DIVERGED, "simulated: this training fails, as simulated.failure_rate has it");
    result->final_loss = 4 * log(2.0) * bpb;
    result->steps = d->config->simulated_trace;
    result->seconds = 1e-3 * milliseconds * (double)result->steps;
    result->tokens_per_second = 1000 * (double)d->config->train_batch_tokens / milliseconds;
    return put_trace(d, result->final_loss, milliseconds);
}

/* Bits per byte as drawn, whatever part it is of; blocks around it, when there are any, that add up to it. */
static void draw_evaluation(const struct drawing *d, struct evaluation *e) {
    enum { BLOCK_TOKENS = 1000, TOKEN_BYTES = 4 };
    double shares[EVALUATION_BLOCKS], sum = 0;
    struct random_stream stream = random_stream(d->seed, d->variant);
    *e = (struct evaluation){.bpb = simulated_bpb(&d->world, d->seed, d->variant), .seconds = 0};
    e->tokens = BLOCK_TOKENS * EVALUATION_BLOCKS;
    e->bytes = TOKEN_BYTES * e->tokens;
    e->nll = e->bpb * log(2.0) * (double)e->bytes;
    e->nll_per_token = e->nll / (double)e->tokens;
    if (!d->config->simulated_blocks) return;
    for (int i = 0; i < EVALUATION_BLOCKS; i++) sum += shares[i] = 1 + 0.1 * random_uniform(stream, (uint64_t)i);
    for (int i = 0; i < EVALUATION_BLOCKS; i++)
        e->blocks[i] = (struct evaluation_block){e->nll * shares[i] / sum, TOKEN_BYTES * BLOCK_TOKENS, BLOCK_TOKENS};
}

static void draw_artifact(const struct drawing *d, struct artifact_sizes *sizes) {
    *sizes = (struct artifact_sizes){0};
    for (int i = 0; i < CLASS_COUNT; i++) {
        sizes->class_parameters[i] = 1000000;
        sizes->class_bytes[i] = 1000000;
        sizes->raw_bytes += sizes->class_bytes[i];
    }
    sizes->bytes = (size_t)(0.9 * (double)sizes->raw_bytes * spread(d, "bytes", 0.001));
}

/* The provenance of all runs of a seed names their node. */
static void name_node(const struct drawing *d, struct provenance *provenance) {
    *provenance = *d->simulation->provenance;
    for (int i = 0; i < provenance->count; i++)
        if (strcmp(provenance->rows[i].name, "backend") == 0)
            snprintf(provenance->rows[i].value, sizeof provenance->rows[i].value, "simulated");
    if (provenance->count == PROVENANCE_CAPACITY) return;
    struct provenance_row *row = &provenance->rows[provenance->count++];
    snprintf(row->name, sizeof row->name, "simulated node");
    snprintf(row->value, sizeof row->value, "%lld", (long long)simulated_node(&d->world, d->seed));
}

static status draw(const struct drawing *d) {
    struct evaluation evaluation;
    struct artifact_sizes sizes;
    struct provenance provenance;
    struct stage_result result = {
        .final_loss = NAN, .tokens_per_second = NAN, .quantise_seconds = NAN, .calibration_seconds = NAN, .work = NAN};
    result.provenance = &provenance;
    name_node(d, &provenance);
    if (d->stage->kind == STAGE_TRAIN) TRY(draw_training(d, &result));
    if (d->stage->kind == STAGE_EVALUATE) draw_evaluation(d, &evaluation), result.evaluation = &evaluation;
    if (d->stage->kind == STAGE_QUANTISE) draw_artifact(d, &sizes), result.sizes = &sizes;
    return store_finish(d->simulation->store, d->stage->key, d->simulation->worker, &result);
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

/* A drawn failure is the run's; any other ends the work. */
static status end_badly(const struct simulation *m, struct plan_stage *stage, status s) {
    if (status_kind(s) != STATUS_DIVERGED) return s;
    stage->state = STAGE_FAILED;
    status released = store_release(m->store, stage->key, m->worker, STAGE_FAILED, status_text(s));
    status_free(s);
    return released;
}

static status do_stage(const struct simulator *simulator, struct plan_stage *stage) {
    const struct simulation *m = simulator->simulation;
    enum claim claim;
    if (stage->state == STAGE_DONE || stage->state == STAGE_FAILED) return NULL;
    if (stage->parent >= 0 && m->stages[stage->parent].state != STAGE_DONE) return NULL;
    TRY(store_claim(m->store, stage->key, m->worker, &claim));
    if (claim == CLAIM_DONE) stage->state = STAGE_DONE;
    if (claim == CLAIM_FAILED) stage->state = STAGE_FAILED;
    if (claim != CLAIM_TAKEN && claim != CLAIM_TAKEN_OVER) return NULL;
    struct drawing d = drawing_of(simulator, stage);
    status s = draw(&d);
    if (s) return end_badly(m, stage, s);
    stage->state = STAGE_DONE;
    ++*m->stages_run;
    return NULL;
}

/* From run *next on as many as the batch has time for. */
static status do_runs(const struct simulator *simulator, int *next) {
    const struct simulation *m = simulator->simulation;
    const double start = clock_seconds();
    const int first = *next;
    while (*next < m->plan->run_count && *next - first < BATCH_RUNS && clock_seconds() - start < batch_seconds) {
        const struct plan_run *run = &m->plan->runs[(*next)++];
        for (int part = 0; part < PART_COUNT; part++) TRY(do_stage(simulator, &m->stages[run->stages[part]]));
    }
    return NULL;
}

static void report(const struct simulation *m, int run) {
    const struct plan_run *r = &m->plan->runs[run - 1];
    struct runner_progress progress = {.run = run,
                                       .run_count = m->plan->run_count,
                                       .seed = r->seed,
                                       .part = PART_ARTIFACT,
                                       .done = 1,
                                       .total = 1,
                                       .loss = NAN,
                                       .tokens_per_second = NAN,
                                       .stage_ended = true,
                                       .worker = m->index};
    snprintf(progress.variant, sizeof progress.variant, "%s", m->plan->suite->variants[r->variant].name);
    progress.suite_seconds_left = (m->plan->run_count - run) * PART_COUNT * SIMULATED_STAGE_SECONDS;
    if (m->callbacks->progress) m->callbacks->progress(m->callbacks->context, &progress);
}

static status do_batches(const struct simulator *simulator) {
    const struct simulation *m = simulator->simulation;
    for (int next = 0; next < m->plan->run_count;) {
        if (m->callbacks->stop && m->callbacks->stop(m->callbacks->context))
            return status_new(STATUS_INTERRUPTED, "stopped between two batches");
        TRY(store_batch_begin(m->store));
        TRY(store_batch_end(m->store, do_runs(simulator, &next)));
        report(m, next);
    }
    return NULL;
}

status simulated_work(const struct simulation *simulation) {
    const struct suite *suite = simulation->plan->suite;
    struct simulator simulator = {simulation, calloc((size_t)suite->variant_count, sizeof *simulator.names)};
    if (!simulator.names) return status_new(STATUS_SYSTEM, "out of memory");
    for (int v = 0; v < suite->variant_count; v++) {
        name_variant(&suite->variants[v].config, STAGE_TRAIN, simulator.names[v].trained);
        name_variant(&suite->variants[v].config, STAGE_QUANTISE, simulator.names[v].quantised);
    }
    status s = do_batches(&simulator);
    free(simulator.names);
    return s;
}
