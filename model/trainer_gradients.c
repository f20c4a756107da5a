/* trainer_gradients: forward and backward of a step's batch, the gradients added up, and whether they can be used. */
#include <math.h>
#include <stdlib.h>

#include "model/trainer_state.h"

struct pass {
    struct trainer *trainer;
    bool repeats_on, qat;
};

/* The weights as the forward pass sees them at this step. */
static const real *weights_seen(const struct pass *pass) {
    const struct trainer *t = pass->trainer;
    return pass->qat || t->config.model_linear == LINEAR_TERNARY ? t->effective : t->weights;
}

/* Forward and backward of some windows; adds the sum of their losses, in the order of the tokens. */
static void run_slice(const struct pass *pass, int shard, size_t first, size_t sequences, struct lane *lane) {
    struct trainer *t = pass->trainer;
    size_t time = (size_t)t->config.train_sequence;
    size_t start = ((size_t)(t->first_shard + shard) * t->shard_sequences + first) * time;
    struct workspace *ws = t->workspaces[lane->index];
    struct forward_request request = {.weights = weights_seen(pass),
                                      .ids = t->ids + start,
                                      .targets = t->targets + start,
                                      .sequences = sequences,
                                      .time = time,
                                      .repeats_on = pass->repeats_on,
                                      .temperature = 1,
                                      .nll = t->nll[lane->index]};
    network_train(&t->net, ws, &request, t->gradients[shard], 1.0 / (double)batch_tokens(t));
    t->ops->sum_in_order(lane, t->verdict.loss + shard, request.nll, sequences * time);
}

/* shard counts this rank's own. */
static void run_micro_shard(void *context, int shard, struct lane *lane) {
    const struct pass *pass = context;
    const struct trainer *t = pass->trainer;
    t->ops->clear(lane, t->gradients[shard], t->net.parameters.total * sizeof(real));
    t->ops->clear(lane, t->verdict.loss + shard, sizeof *t->verdict.loss);
    for (size_t first = 0; first < t->shard_sequences; first += t->slice_sequences) {
        size_t left = t->shard_sequences - first;
        run_slice(pass, shard, first, left < t->slice_sequences ? left : t->slice_sequences, lane);
    }
}

/* Adds this rank's gradients as its part of the binary tree over all 8, whose shape does not depend on who computed
 * them; one block of elements. */
static void add_tree_block(void *context, int block, struct lane *lane) {
    const struct trainer *t = context;
    const size_t start = (size_t)block * t->tree_block, left = t->net.parameters.total - start;
    real *parts[MICRO_SHARDS];
    for (int i = 0; i < t->shard_count; i++) parts[i] = t->gradients[i] + start;
    t->ops->add_tree(lane, parts, t->shard_count, left < t->tree_block ? left : t->tree_block,
                     t->verdict.finite + block);
}

/* The CPU's norm is summed tensor by tensor. */
static void clip(const struct trainer *t) {
    if (t->config.optim_clip <= 0) return;
    if (t->ops->device_memory)
        t->ops->clip_by_norm(t->lanes, t->gradients[0], t->net.parameters.total, t->config.optim_clip);
    else
        clip_gradients(&t->net.parameters, t->gradients[0], t->config.optim_clip);
}

/* From the sum of the effective weights' gradients to what the optimiser reads, in gradients[0]. */
static void finish_gradients(void *context) {
    const struct pass *pass = context;
    struct trainer *t = pass->trainer;
    network_master_gradients(&t->net, t->lanes, t->lane_count, t->gradients[0], t->weights, weights_seen(pass));
    clip(t);
}

/* Everything of a step but the batch and the update: from the same memory always the same ops with the same arguments,
 * which a device may record. With several ranks the tree goes on behind it. */
static void run_pass(void *context) {
    struct pass *pass = context;
    struct trainer *t = pass->trainer;
    const real *seen = weights_seen(pass);
    if (seen != t->weights)
        network_effective(&t->net, t->lanes, t->lane_count, t->effective, t->weights,
                          pass->qat ? VIEW_QAT : VIEW_MASTER);
    else
        network_round(&t->net, t->lanes, t->weights);
    t->ops->for_each(t->lanes, t->workspace_count, t->shard_count, run_micro_shard, pass);
    t->ops->for_each(t->lanes, t->lane_count, tree_blocks(t), add_tree_block, t);
    if (t->comm->size == 1) finish_gradients(pass);
}

/* The tree's upper levels. */
static status add_over_ranks(struct pass *pass) {
    struct trainer *t = pass->trainer;
    if (t->comm->size == 1) return NULL;
    TRY(comm_add_tree(t->comm, t->lanes, t->gradients[0], t->gradients[1], t->net.parameters.total, t->verdict.finite));
    t->ops->replay(t->lanes, recorded_key(t, RECORDED_FINISH, false, pass->qat), finish_gradients, pass);
    return NULL;
}

static double add_losses(double *loss, int count) {
    for (int stride = 1; stride < count; stride *= 2)
        for (int i = 0; i < count; i += 2 * stride) loss[i] += loss[i + stride];
    return loss[0];
}

static bool all_finite(const real *x, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static status gradient_diverged(const struct trainer *t) {
    const struct parameters *p = &t->net.parameters;
    real *gradient = malloc(p->total * sizeof *gradient);
    if (!gradient) return status_new(STATUS_DIVERGED, "step %lld: a gradient is not finite", (long long)t->steps_done);
    t->ops->download(t->lanes, gradient, t->gradients[0], p->total * sizeof *gradient);
    int first = 0;
    while (first + 1 < p->count && all_finite(gradient + p->tensors[first].offset, p->tensors[first].count)) first++;
    free(gradient);
    return status_new(STATUS_DIVERGED,
                      "step %lld: the gradient of %s is not finite; lower optim.muon_rate and optim.adam_rate",
                      (long long)t->steps_done, p->tensors[first].name);
}

/* The step's loss; an error when it or the gradient is not finite. */
static status judge(const struct trainer *t, double *loss) {
    t->ops->download(t->lanes, t->downloaded.loss, t->verdict.loss, verdict_bytes(t));
    TRY(t->ops->finish(t->lanes));
    *loss = add_losses(t->downloaded.loss, t->shard_count);
    TRY(comm_add_tree_host(t->comm, loss));
    *loss /= (double)batch_tokens(t);
    if (!isfinite(*loss))
        return status_new(STATUS_DIVERGED,
                          "step %lld: the loss is %g; lower optim.muon_rate and optim.adam_rate, or set optim.clip",
                          (long long)t->steps_done, *loss);
    for (int i = 0; i < tree_blocks(t); i++)
        if (!t->downloaded.finite[i]) return gradient_diverged(t);
    return NULL;
}

static void fill_batch(struct trainer *t, int64_t step) {
    if (t->batch_step == step) return;
    batch_fill(&t->plan, step, t->batch, t->batch + batch_tokens(t));
    t->batch_step = step;
}

status trainer_gradients(struct trainer *t, bool repeats_on, bool qat, double *loss) {
    struct pass pass = {.trainer = t, .repeats_on = repeats_on, .qat = qat};
    fill_batch(t, t->steps_done);
    t->ops->upload(t->lanes, t->ids, t->batch, 2 * batch_tokens(t) * sizeof *t->batch);
    t->ops->replay(t->lanes, recorded_key(t, RECORDED_PASS, repeats_on, qat), run_pass, &pass);
    if (t->ops->device_memory && t->steps_done + 1 < t->config.train_steps)
        fill_batch(t, t->steps_done + 1); /* while the device is at work */
    TRY(add_over_ranks(&pass));
    return judge(t, loss);
}
