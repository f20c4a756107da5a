/* trainer: creation, and one step of training; see trainer.h. */
#include "model/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/clock.h"
#include "model/files.h"
#include "model/trainer_state.h"

enum { TREE_BLOCK = 1 << 16 };

/* --- schedules --------------------------------------------------------------------------------------------------- */

static double shaped(const struct config *config, double left) {
    double x = left > 1 ? 1 : left;
    return config->train_decay_shape == DECAY_COSINE ? 0.5 * (1 + cos(M_PI * (1 - x))) : x;
}

double trainer_multiplier(const struct config *config, int64_t step) {
    if (config->train_warmdown == 0) return 1;
    return shaped(config, (double)(config->train_steps - step) / (double)config->train_warmdown);
}

static bool by_clock(const struct trainer *t) { return t->config.train_seconds > 0; }

/* By the clock, the warmdown lasts as long as train.warmdown steps of the mean length so far. */
static double multiplier_now(const struct trainer *t) {
    if (!by_clock(t)) return trainer_multiplier(&t->config, t->steps_done);
    if (t->steps_done == 0 || t->config.train_warmdown == 0) return 1;
    double warmdown = (double)t->config.train_warmdown * t->seconds / (double)t->steps_done;
    double left = t->config.train_seconds - t->seconds;
    return shaped(&t->config, left > 0 ? left / warmdown : 0);
}

static bool repeats_now(const struct trainer *t) {
    if (by_clock(t)) return t->seconds >= t->config.recurrence_start * t->config.train_seconds;
    return t->steps_done >= schedule_recurrence_step(&t->config);
}

static int tree_blocks(const struct trainer *t) {
    return (int)((t->net.parameters.total + TREE_BLOCK - 1) / TREE_BLOCK);
}

static bool qat_ever(const struct config *config) { return config->train_qat_below > 0; }

/* --- creation ---------------------------------------------------------------------------------------------------- */

static size_t batch_tokens(const struct trainer *t) { return (size_t)t->config.train_batch_tokens; }

static size_t slice_tokens(const struct trainer *t) { return t->slice_sequences * (size_t)t->config.train_sequence; }

/* Whole windows; a slice never reaches over a micro-shard. */
static void cut_batch(struct trainer *t) {
    size_t time = (size_t)t->config.train_sequence, windows = (size_t)t->config.train_slice_tokens / time;
    t->shard_sequences = batch_tokens(t) / MICRO_SHARDS / time;
    t->slice_sequences = windows < 1 ? 1 : windows > t->shard_sequences ? t->shard_sequences : windows;
}

static void lay_out_lanes(struct trainer *t, struct arena *arena) {
    t->lanes = arena_take(arena, (size_t)t->lane_count * sizeof *t->lanes);
    for (int i = 0; i < t->lane_count; i++) {
        void *scratch = arena_take(arena, t->optimizer.scratch_bytes);
        if (t->lanes) t->lanes[i] = (struct lane){i, scratch, t->optimizer.scratch_bytes};
    }
}

static void lay_out(struct trainer *t, struct arena *arena) {
    const size_t total = t->net.parameters.total;
    t->weights = arena_reals(arena, total);
    t->first = arena_reals(arena, total);
    t->second = arena_reals(arena, t->optimizer.second_total);
    if (average_wanted(&t->config)) t->average.weights = arena_reals(arena, total);
    if (qat_ever(&t->config) || t->config.model_linear == LINEAR_TERNARY) t->effective = arena_reals(arena, total);
    for (int i = 0; i < MICRO_SHARDS; i++) t->gradients[i] = arena_reals(arena, total);
    t->block_finite = arena_take(arena, (size_t)tree_blocks(t) * sizeof *t->block_finite);
    lay_out_lanes(t, arena);
    t->ids = arena_take(arena, batch_tokens(t) * sizeof *t->ids);
    t->targets = arena_take(arena, batch_tokens(t) * sizeof *t->targets);
    for (int i = 0; i < t->workspace_count; i++) t->nll[i] = arena_take(arena, slice_tokens(t) * sizeof(double));
    t->loss_capacity = (size_t)t->config.train_steps;
    t->losses = arena_take(arena, t->loss_capacity * sizeof *t->losses);
}

/* All that is needed to know the sizes. */
static status measure(struct trainer *t, const struct config *config, const struct backend *ops, size_t *arena_bytes,
                      size_t *bytes) {
    TRY(config_check(config));
    t->config = *config;
    t->ops = ops;
    cut_batch(t);
    t->lane_count = ops->lane_count();
    t->workspace_count = t->lane_count < MICRO_SHARDS ? t->lane_count : MICRO_SHARDS;
    TRY(network_create(&t->net, &t->config, ops, t->slice_sequences, (size_t)config->train_sequence));
    TRY(optimizer_create(&t->optimizer, &t->config, &t->net.parameters, ops));
    struct arena counting = {0};
    lay_out(t, &counting);
    *arena_bytes = counting.used;
    *bytes = counting.used + (size_t)t->workspace_count * workspace_bytes(&t->net, true);
    return NULL;
}

status trainer_memory(const struct config *config, const struct backend *ops, size_t *bytes) {
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return status_new(STATUS_SYSTEM, "trainer: out of memory");
    size_t arena_bytes;
    status s = measure(t, config, ops, &arena_bytes, bytes);
    trainer_destroy(t);
    return s;
}

static status check_memory(size_t bytes) {
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if ((double)bytes <= have) return NULL;
    return status_new(STATUS_SYSTEM,
                      "training needs %.0f MB of memory, this machine has %.0f MB; lower model.dim, train.batch_tokens "
                      "or train.slice_tokens",
                      (double)bytes / 1e6, have / 1e6);
}

static status check_dataset(const struct config *config, const struct dataset *dataset) {
    if (dataset->vocab_size == (size_t)config->model_vocab_size) return NULL;
    return status_new(STATUS_USAGE, "model.vocab_size = %lld, but the tokenizer of data \"%s\" has %zu pieces",
                      (long long)config->model_vocab_size, dataset->name, dataset->vocab_size);
}

static status create(struct trainer *t, const struct config *config, const struct backend *ops,
                     const struct dataset *dataset, uint64_t seed) {
    size_t arena_bytes, bytes;
    TRY(check_dataset(config, dataset));
    TRY(measure(t, config, ops, &arena_bytes, &bytes));
    TRY(check_memory(bytes));
    TRY(arena_create(&t->arena, arena_bytes, "training"));
    lay_out(t, &t->arena);
    for (int i = 0; i < t->workspace_count; i++) TRY(workspace_create(&t->workspaces[i], &t->net, true, i));
    t->dataset = dataset;
    TRY(batch_plan_create(&t->plan, &dataset->train, (size_t)config->train_sequence, MICRO_SHARDS * t->shard_sequences,
                          config->data_order, seed));
    TRY(parameters_initialise(&t->net.parameters, t->weights, seed));
    average_start(&t->average, &t->config, t->weights, t->net.parameters.total);
    return NULL;
}

status trainer_create(struct trainer **out, const struct config *config, const struct backend *ops,
                      const struct dataset *dataset, uint64_t seed) {
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return status_new(STATUS_SYSTEM, "trainer: out of memory");
    status s = create(t, config, ops, dataset, seed);
    if (s)
        trainer_destroy(t);
    else
        *out = t;
    return s;
}

void trainer_destroy(struct trainer *t) {
    if (!t) return;
    for (int i = 0; i < t->workspace_count; i++)
        if (t->workspaces[i]) workspace_destroy(t->workspaces[i]);
    if (t->dataset) batch_plan_destroy(&t->plan);
    optimizer_destroy(&t->optimizer);
    if (t->net.ops) network_destroy(&t->net);
    arena_destroy(&t->arena);
    free(t);
}

/* --- gradients --------------------------------------------------------------------------------------------------- */

struct pass {
    struct trainer *trainer;
    const real *weights; /* effective */
    bool repeats_on;
    double loss[MICRO_SHARDS]; /* sum of nats */
};

/* Forward and backward of some windows; the sum of their losses, in the order of the tokens. */
static double run_slice(struct pass *pass, int shard, size_t first, size_t sequences, int lane) {
    struct trainer *t = pass->trainer;
    size_t time = (size_t)t->config.train_sequence, start = ((size_t)shard * t->shard_sequences + first) * time;
    struct forward_request request = {.weights = pass->weights,
                                      .ids = t->ids + start,
                                      .targets = t->targets + start,
                                      .sequences = sequences,
                                      .time = time,
                                      .repeats_on = pass->repeats_on,
                                      .temperature = 1,
                                      .nll = t->nll[lane]};
    network_forward(&t->net, t->workspaces[lane], &request);
    network_backward(&t->net, t->workspaces[lane], &request, t->gradients[shard], 1.0 / (double)batch_tokens(t));
    double sum = 0;
    for (size_t i = 0; i < sequences * time; i++) sum += t->nll[lane][i];
    return sum;
}

static void run_micro_shard(void *context, int shard, struct lane *lane) {
    struct pass *pass = context;
    struct trainer *t = pass->trainer;
    memset(t->gradients[shard], 0, t->net.parameters.total * sizeof(real));
    pass->loss[shard] = 0;
    for (size_t first = 0; first < t->shard_sequences; first += t->slice_sequences) {
        size_t left = t->shard_sequences - first;
        pass->loss[shard] +=
            run_slice(pass, shard, first, left < t->slice_sequences ? left : t->slice_sequences, lane->index);
    }
}

/* 0 times anything finite is 0; times an infinity or NaN it is NaN, which a sum keeps. */
static bool all_finite(const real *x, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += 0 * x[i];
    return sum == 0;
}

/* Adds the 8 gradients as a binary tree, whose shape does not depend on who computed them; one block of elements. */
static void add_tree_block(void *context, int block, struct lane *lane) {
    const struct trainer *t = context;
    const size_t total = t->net.parameters.total, start = (size_t)block * TREE_BLOCK;
    const size_t count = total - start < TREE_BLOCK ? total - start : TREE_BLOCK;
    for (int stride = 1; stride < MICRO_SHARDS; stride *= 2)
        for (int i = 0; i < MICRO_SHARDS; i += 2 * stride)
            t->ops->add_into(lane, t->gradients[i] + start, t->gradients[i + stride] + start, count);
    t->block_finite[block] = all_finite(t->gradients[0] + start, count);
}

static status gradient_diverged(const struct trainer *t) {
    const struct parameters *p = &t->net.parameters;
    int first = 0;
    while (first + 1 < p->count && all_finite(t->gradients[0] + p->tensors[first].offset, p->tensors[first].count))
        first++;
    return status_new(STATUS_DIVERGED,
                      "step %lld: the gradient of %s is not finite; lower optim.muon_rate and optim.adam_rate",
                      (long long)t->steps_done, p->tensors[first].name);
}

static status add_gradients(struct trainer *t) {
    int blocks = tree_blocks(t);
    t->ops->for_each(t->lanes, t->lane_count, blocks, add_tree_block, t);
    for (int i = 0; i < blocks; i++)
        if (!t->block_finite[i]) return gradient_diverged(t);
    return NULL;
}

static double add_losses(double loss[MICRO_SHARDS]) {
    for (int stride = 1; stride < MICRO_SHARDS; stride *= 2)
        for (int i = 0; i < MICRO_SHARDS; i += 2 * stride) loss[i] += loss[i + stride];
    return loss[0];
}

/* The weights as the forward pass sees them at this step. */
static const real *make_effective(struct trainer *t, double multiplier) {
    bool qat = qat_ever(&t->config) && multiplier < t->config.train_qat_below;
    if (!qat && t->config.model_linear != LINEAR_TERNARY) return t->weights;
    network_effective(&t->net, t->lanes, t->lane_count, t->effective, t->weights, qat ? VIEW_QAT : VIEW_MASTER);
    return t->effective;
}

/* Leaves the gradients of the master weights in gradients[0]. */
static status compute_gradients(struct trainer *t, double multiplier, double *loss) {
    batch_fill(&t->plan, t->steps_done, t->ids, t->targets);
    struct pass pass = {.trainer = t, .weights = make_effective(t, multiplier), .repeats_on = repeats_now(t)};
    t->ops->for_each(t->lanes, t->workspace_count, MICRO_SHARDS, run_micro_shard, &pass);
    *loss = add_losses(pass.loss) / (double)batch_tokens(t);
    if (!isfinite(*loss))
        return status_new(STATUS_DIVERGED,
                          "step %lld: the loss is %g; lower optim.muon_rate and optim.adam_rate, or set optim.clip",
                          (long long)t->steps_done, *loss);
    TRY(add_gradients(t));
    if (pass.weights != t->weights)
        network_master_gradients(&t->net, t->lanes, t->lane_count, t->gradients[0], t->weights, t->effective);
    if (t->config.optim_clip > 0) clip_gradients(&t->net.parameters, t->gradients[0], t->config.optim_clip);
    return NULL;
}

/* --- the step ---------------------------------------------------------------------------------------------------- */

static void apply_gradients(struct trainer *t, double multiplier) {
    struct optimizer_step step = {.lanes = t->lanes,
                                  .lane_count = t->lane_count,
                                  .weights = t->weights,
                                  .first = t->first,
                                  .second = t->second,
                                  .gradients = t->gradients[0],
                                  .update = t->gradients[1], /* free again once the tree is added up */
                                  .step = t->steps_done,
                                  .multiplier = multiplier};
    optimizer_apply(&t->optimizer, &step);
    average_update(&t->average, &t->config, t->ops, t->lanes, t->lane_count, t->weights, t->net.parameters.total,
                   t->steps_done, multiplier);
}

status trainer_step(struct trainer *t, struct step_record *record) {
    if (trainer_finished(t))
        return status_new(STATUS_USAGE, "the training is finished after %lld steps", (long long)t->steps_done);
    double start = clock_seconds(), multiplier = multiplier_now(t), loss;
    TRY(compute_gradients(t, multiplier, &loss));
    apply_gradients(t, multiplier);
    double seconds = clock_seconds() - start;
    *record = (struct step_record){.step = t->steps_done,
                                   .loss = loss,
                                   .multiplier = multiplier,
                                   .milliseconds = 1e3 * seconds,
                                   .tokens = t->config.train_batch_tokens};
    t->losses[t->steps_done++] = loss;
    t->seconds += seconds;
    return NULL;
}

/* train.steps also bounds a run by the clock: the loss trace is allocated before the first step. */
bool trainer_finished(const struct trainer *t) {
    return t->steps_done >= t->config.train_steps || (by_clock(t) && t->seconds >= t->config.train_seconds);
}

int64_t trainer_steps_done(const struct trainer *t) { return t->steps_done; }

const struct network *trainer_network(const struct trainer *t) { return &t->net; }

const real *trainer_weights(const struct trainer *t) { return t->weights; }

const real *trainer_averaged(const struct trainer *t) {
    return t->average.included > 0 ? t->average.weights : t->weights;
}

const double *trainer_losses(const struct trainer *t) { return t->losses; }

void trainer_trace_sha256(const struct trainer *t, char hex[65]) {
    bytes_sha256(t->losses, (size_t)t->steps_done * sizeof *t->losses, hex);
}
