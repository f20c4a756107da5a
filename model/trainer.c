/* trainer: creation, and one step of training; see trainer.h. */
#include "model/trainer.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/clock.h"
#include "model/files.h"
#include "model/network_shapes.h"
#include "model/ranks.h"
#include "model/trainer_state.h"

enum {
    TREE_BLOCK = 1 << 16, /* of a CPU, where blocks are spread over lanes; on a device all is one */
    UPDATE_LANES = 8 /* of a device at least: no matrix fills it, and those of each shape are updated by themselves */
};

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

/* --- creation ---------------------------------------------------------------------------------------------------- */

/* Whole windows; a slice never reaches over a micro-shard. */
static void cut_batch(struct trainer *t) {
    size_t time = (size_t)t->config.train_sequence;
    size_t windows = (size_t)slice_tokens_of(&t->config, t->ops->device_memory) / time;
    t->shard_sequences = batch_tokens(t) / MICRO_SHARDS / time;
    t->slice_sequences = windows < 1 ? 1 : windows > t->shard_sequences ? t->shard_sequences : windows;
}

int trainer_lanes(const struct network *net) {
    size_t slice = net->max_sequences * net->time, shard = (size_t)net->config.train_batch_tokens / MICRO_SHARDS;
    bool whole = slice >= shard || net->ops->filling_tokens == 0;
    return whole ? network_lanes(net, true, MICRO_SHARDS) : 1;
}

static size_t lane_scratch(const struct trainer *t) {
    const size_t asked[] = {t->optimizer.scratch_bytes, network_view_scratch(&t->net),
                            t->ops->tensor_scratch(t->tree_block), t->ops->tensor_scratch(slice_tokens(t)),
                            t->config.optim_clip > 0 ? t->ops->tensor_scratch(t->net.parameters.total) : 0};
    size_t most = 0;
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) most = asked[i] > most ? asked[i] : most;
    return most;
}

static struct verdict verdict_in(double *memory) {
    return (struct verdict){memory, memory ? (int32_t *)(memory + MICRO_SHARDS) : NULL};
}

static void lay_out_host(struct trainer *t, struct arena *arena) {
    t->lanes = arena_take(arena, (size_t)t->lane_count * sizeof *t->lanes);
    t->batch = arena_take(arena, 2 * batch_tokens(t) * sizeof *t->batch);
    t->downloaded = verdict_in(arena_take(arena, verdict_bytes(t)));
    t->loss_capacity = (size_t)t->config.train_steps;
    t->losses = arena_take(arena, t->loss_capacity * sizeof *t->losses);
}

static void lay_out_lanes(struct trainer *t, struct arena *arena) {
    size_t bytes = lane_scratch(t);
    for (int i = 0; i < t->lane_count; i++) {
        void *scratch = arena_take(arena, bytes);
        if (scratch) t->lanes[i] = (struct lane){i, scratch, bytes};
    }
}

/* After lay_out_host. */
static void lay_out(struct trainer *t, struct arena *arena) {
    const size_t total = t->net.parameters.total;
    t->weights = arena_reals(arena, network_weight_reals(&t->net));
    t->first = arena_reals(arena, t->optimizer.first_total);
    t->second = arena_reals(arena, t->optimizer.second_total);
    if (average_wanted(&t->config)) t->average.weights = arena_reals(arena, total);
    if (qat_ever(&t->config) || t->config.model_linear == LINEAR_TERNARY)
        t->effective = arena_reals(arena, network_weight_reals(&t->net));
    for (int i = 0; i < t->shard_count || i < 2; i++) t->gradients[i] = arena_reals(arena, total);
    lay_out_lanes(t, arena);
    t->ids = arena_take(arena, 2 * batch_tokens(t) * sizeof *t->ids);
    t->targets = t->ids ? t->ids + batch_tokens(t) : NULL;
    for (int i = 0; i < t->workspace_count; i++) t->nll[i] = arena_take(arena, slice_tokens(t) * sizeof(double));
    t->verdict = verdict_in(arena_take(arena, verdict_bytes(t)));
    t->settings = arena_take(arena, sizeof *t->settings);
}

/* What creation will ask for. */
struct needs {
    size_t arena, host; /* bytes of the two arenas */
    size_t total;       /* of the backend's memory, lanes' workspaces included */
};

static status measure(struct trainer *t, const struct config *config, const struct backend *ops, struct needs *needs) {
    TRY(config_check(config));
    t->config = *config;
    t->ops = ops;
    cut_batch(t);
    t->first_shard = comm_first_shard(t->comm, MICRO_SHARDS);
    t->shard_count = comm_shard_count(t->comm, MICRO_SHARDS);
    TRY(network_create(&t->net, &t->config, ops, t->slice_sequences, (size_t)config->train_sequence));
    int lanes = trainer_lanes(&t->net);
    t->workspace_count = lanes < t->shard_count ? lanes : t->shard_count;
    t->lane_count = ops->device_memory && lanes < UPDATE_LANES ? UPDATE_LANES : lanes;
    t->tree_block = ops->device_memory ? t->net.parameters.total : TREE_BLOCK;
    TRY(optimizer_create(&t->optimizer, &t->config, &t->net.parameters, ops, t->comm->rank, t->comm->size));
    struct arena counting = {.ops = ops}, host = {0};
    lay_out_host(t, &host);
    lay_out(t, &counting);
    *needs = (struct needs){.arena = counting.used, .host = host.used};
    needs->total = counting.used + (ops->device_memory ? 0 : host.used) +
                   (size_t)t->workspace_count * workspace_bytes(&t->net, true);
    return NULL;
}

static void be_alone(struct trainer *t, const struct backend *ops) {
    comm_single(&t->alone, ops);
    t->comm = &t->alone;
}

status trainer_memory(const struct config *config, const struct backend *ops, size_t *bytes) {
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return status_new(STATUS_SYSTEM, "trainer: out of memory");
    struct needs needs = {0};
    be_alone(t, ops);
    status s = measure(t, config, ops, &needs);
    *bytes = needs.total;
    trainer_destroy(t);
    return s;
}

size_t trainer_slice_within(const struct config *config, const struct backend *ops, size_t bytes) {
    struct config smaller = *config;
    size_t needed = bytes + 1;
    smaller.train_slice_tokens = config->train_batch_tokens / MICRO_SHARDS;
    for (; needed > bytes && smaller.train_slice_tokens >= config->train_sequence; smaller.train_slice_tokens /= 2) {
        status s = trainer_memory(&smaller, ops, &needed);
        if (s) needed = bytes + 1;
        status_free(s);
        if (needed <= bytes) return (size_t)smaller.train_slice_tokens;
    }
    return 0;
}

static status check_memory(const struct trainer *t, size_t bytes) {
    double need = (double)bytes / 1e6, have = (double)t->ops->memory_left() / 1e6;
    if (need <= have) return NULL;
    if (!t->ops->device_memory)
        return status_new(STATUS_SYSTEM,
                          "training needs %.0f MB of memory, this machine has %.0f MB; lower model.dim, "
                          "train.batch_tokens or train.slice_tokens",
                          need, have);
    size_t slice = trainer_slice_within(&t->config, t->ops, t->ops->memory_left());
    if (slice == 0)
        return status_new(STATUS_SYSTEM,
                          "training needs %.0f MB of the device's memory, of which %.0f MB are free, whatever the "
                          "slice; lower model.dim or train.batch_tokens",
                          need, have);
    return status_new(STATUS_SYSTEM,
                      "training needs %.0f MB of the device's memory, of which %.0f MB are free; "
                      "train.slice_tokens=%zu fits",
                      need, have, slice);
}

static status check_dataset(const struct config *config, const struct dataset *dataset) {
    if (dataset->vocab_size == (size_t)config->model_vocab_size) return NULL;
    return status_new(STATUS_USAGE, "model.vocab_size = %lld, but the tokenizer of data \"%s\" has %zu pieces",
                      (long long)config->model_vocab_size, dataset->name, dataset->vocab_size);
}

/* Initial weights are drawn on the host. */
static status draw_weights(struct trainer *t, uint64_t seed) {
    size_t total = t->net.parameters.total;
    real *drawn = calloc(total, sizeof *drawn);
    if (!drawn) return status_new(STATUS_SYSTEM, "trainer: out of memory");
    status s = parameters_initialise(&t->net.parameters, drawn, seed);
    if (!s) t->ops->upload(t->lanes, t->weights, drawn, total * sizeof *drawn);
    free(drawn);
    return s;
}

static status create(struct trainer *t, const struct config *config, const struct backend *ops,
                     const struct dataset *dataset, uint64_t seed) {
    struct needs needs;
    TRY(check_dataset(config, dataset));
    TRY(measure(t, config, ops, &needs));
    TRY(check_memory(t, needs.total));
    TRY(arena_create(&t->host, needs.host, "training"));
    lay_out_host(t, &t->host);
    TRY(arena_create_for(&t->arena, ops, needs.arena, "training"));
    lay_out(t, &t->arena);
    for (int i = 0; i < t->workspace_count; i++) TRY(workspace_create(&t->workspaces[i], &t->net, true, i));
    t->dataset = dataset;
    t->number = recording_number();
    t->batch_step = -1;
    TRY(batch_plan_create(&t->plan, &dataset->train, (size_t)config->train_sequence, MICRO_SHARDS * t->shard_sequences,
                          config->data_order, seed));
    TRY(draw_weights(t, seed));
    average_start(&t->average, &t->config, ops, t->lanes, t->weights, t->net.parameters.total);
    return ops->finish(t->lanes);
}

status trainer_create(struct trainer **out, const struct config *config, const struct backend *ops,
                      const struct dataset *dataset, uint64_t seed) {
    return trainer_create_on(out, NULL, config, ops, dataset, seed);
}

status trainer_create_on(struct trainer **out, struct comm *comm, const struct config *config,
                         const struct backend *ops, const struct dataset *dataset, uint64_t seed) {
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return status_new(STATUS_SYSTEM, "trainer: out of memory");
    be_alone(t, ops);
    if (comm) t->comm = comm;
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
    arena_destroy(&t->host);
    free(t);
}

/* --- the step ---------------------------------------------------------------------------------------------------- */

static void follow_average(struct trainer *t) {
    average_follow(&t->average, &t->config, t->ops, t->lanes, t->lane_count, t->weights, t->net.parameters.total);
}

/* Whatever changes from step to step is in t->settings, so that a device may record it. */
static void run_update(void *context) {
    struct trainer *t = context;
    struct optimizer_step step = {.lanes = t->lanes,
                                  .lane_count = t->lane_count,
                                  .weights = t->weights,
                                  .first = t->first,
                                  .second = t->second,
                                  .gradients = t->gradients[0],
                                  .update = t->gradients[1], /* free again once the tree is added up */
                                  .settings = t->settings};
    optimizer_apply(&t->optimizer, &step);
    if (t->comm->size == 1) follow_average(t);
}

static status apply_gradients(struct trainer *t, double multiplier) {
    struct update_settings settings = optimizer_settings(&t->config, t->steps_done, multiplier);
    t->ops->upload(t->lanes, t->settings, &settings, sizeof settings);
    t->ops->replay(t->lanes, recorded_key(t, RECORDED_UPDATE, false, false), run_update, t);
    TRY(ranks_share_weights(t));
    if (t->comm->size > 1) follow_average(t); /* of all weights, which came just now */
    average_snapshot(&t->average, &t->config, t->ops, t->lanes, t->lane_count, t->weights, t->net.parameters.total,
                     t->steps_done, multiplier);
    return NULL;
}

status trainer_step(struct trainer *t, struct step_record *record) {
    if (trainer_finished(t))
        return status_new(STATUS_USAGE, "the training is finished after %lld steps", (long long)t->steps_done);
    double start = clock_seconds(), multiplier = multiplier_now(t), loss;
    bool qat = qat_ever(&t->config) && multiplier < t->config.train_qat_below;
    TRY(trainer_gradients(t, repeats_now(t), qat, &loss));
    TRY(apply_gradients(t, multiplier));
    TRY(t->ops->finish(t->lanes));
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

void trainer_copy_out(const struct trainer *t, const real *weights, real *out) {
    t->ops->download(t->lanes, out, weights, t->net.parameters.total * sizeof *out);
}

const double *trainer_losses(const struct trainer *t) { return t->losses; }

void trainer_trace_sha256(const struct trainer *t, char hex[65]) {
    bytes_sha256(t->losses, (size_t)t->steps_done * sizeof *t->losses, hex);
}
