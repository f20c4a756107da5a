/* test_time_training: updates the weights on a chunk that was scored; see evaluation.h.
 *
 *   g = d(mean nll of the chunk)/dw; sgd: w = w (1 - rate decay) - rate g; adamw: the same with Adam's direction
 *
 * Parcel k of a chunk adds into partial gradient k mod P, in order; the partial ones are added as a binary tree. P
 * depends on the options alone, so the bits do not depend on the number of lanes. */
#include "model/evaluation_state.h"

struct lesson {
    struct evaluator *e;
    size_t first, end; /* parcels */
    double scale;      /* 1 / tokens */
};

void learner_lay_out(struct evaluator *e, struct arena *arena) {
    struct learner *l = &e->learner;
    const size_t total = e->net.parameters.total;
    if (!learns(e)) return;
    for (l->partial_count = LEARNERS; (size_t)l->partial_count > e->chunk_parcels;) l->partial_count /= 2;
    for (int i = 0; i < l->partial_count; i++) l->gradients[i] = arena_reals(arena, total);
    l->masters = arena_reals(arena, total);
    l->finite = arena_take(arena, (size_t)e->net.parameters.count * sizeof *l->finite);
    l->step = arena_take(arena, sizeof *l->step);
    if (e->net.config.eval_ttt_optimizer != TTT_ADAMW) return;
    l->first = arena_reals(arena, total);
    l->second = arena_reals(arena, total);
    l->adam = arena_take(arena, sizeof *l->adam);
}

void learner_start(struct evaluator *e, const real *masters) {
    e->net.ops->copy(e->lanes, e->learner.masters, masters, e->net.parameters.total * sizeof *masters);
}

/* --- the gradient ------------------------------------------------------------------------------------------------ */

static void add_gradients_of_parcels(void *context, int partial, struct lane *lane) {
    const struct lesson *lesson = context;
    struct evaluator *e = lesson->e;
    real *gradients = e->learner.gradients[partial];
    e->net.ops->clear(lane, gradients, e->net.parameters.total * sizeof *gradients);
    for (size_t k = lesson->first + (size_t)partial; k < lesson->end; k += (size_t)e->learner.partial_count) {
        const struct parcel parcel = parcel_at(e, k);
        const size_t place = (size_t)lane->index * 2 * parcel_tokens(e);
        parcel_fill(e, parcel, lane->index);
        e->net.ops->upload(lane, e->ids + place, e->tokens + place, 2 * parcel_tokens(e) * sizeof *e->ids);
        struct forward_request request = parcel_request(e, parcel, lane->index);
        request.temperature = 1;
        network_train(&e->net, e->workspaces[lane->index], &request, gradients, lesson->scale);
    }
}

static void add_tree(void *context, int tensor, struct lane *lane) {
    const struct evaluator *e = context;
    const struct learner *l = &e->learner;
    const struct tensor *t = &e->net.parameters.tensors[tensor];
    real *parts[LEARNERS];
    for (int i = 0; i < l->partial_count; i++) parts[i] = l->gradients[i] + t->offset;
    e->net.ops->add_tree(lane, parts, l->partial_count, t->count, l->finite + tensor);
}

/* Of the master weights, in gradients[0]. */
static void find_gradient(struct evaluator *e, size_t chunk) {
    struct lesson lesson = {.e = e, .first = chunk * e->chunk_parcels, .end = (chunk + 1) * e->chunk_parcels};
    lesson.scale = 1 / (double)(e->chunk_windows * e->windows.time);
    e->net.ops->for_each(e->lanes, e->lane_count, e->learner.partial_count, add_gradients_of_parcels, &lesson);
    e->net.ops->for_each(e->lanes, e->lane_count, e->net.parameters.count, add_tree, e);
    network_master_gradients(&e->net, e->lanes, e->lane_count, e->learner.gradients[0], e->learner.masters,
                             e->effective);
}

/* --- the update -------------------------------------------------------------------------------------------------- */

/* muon_apply is a decaying step along any direction: the gradient itself for SGD, none for the decay of AdamW. */
static void update_tensor(void *context, int tensor, struct lane *lane) {
    const struct evaluator *e = context;
    const struct learner *l = &e->learner;
    const struct tensor *t = &e->net.parameters.tensors[tensor];
    const bool sgd = e->net.config.eval_ttt_optimizer == TTT_SGD;
    e->net.ops->muon_apply(lane, l->masters + t->offset, l->gradients[0] + t->offset, t->count, l->step, sgd ? 1 : 0);
    if (sgd) return;
    e->net.ops->adam_step(lane, l->masters + t->offset, l->first + t->offset, l->second + t->offset,
                          l->gradients[0] + t->offset, t->count, l->adam);
}

static void upload_settings(const struct evaluator *e) {
    const struct config *c = &e->net.config;
    const struct learner *l = &e->learner;
    struct muon_settings step = muon_settings_of(0, c->eval_ttt_rate, c->eval_ttt_decay);
    e->net.ops->upload(e->lanes, l->step, &step, sizeof step);
    if (!l->adam) return;
    struct adam_settings adam =
        adam_settings_at(c->eval_ttt_rate, c->optim_adam_beta1, c->optim_adam_beta2, c->optim_adam_epsilon, l->updates);
    e->net.ops->upload(e->lanes, l->adam, &adam, sizeof adam);
}

status learner_update(struct evaluator *e, size_t chunk, evaluation_progress progress, void *context) {
    size_t done = (chunk + 1) * e->chunk_windows;
    for (int64_t epoch = 0; epoch < e->net.config.eval_ttt_epochs; epoch++) {
        if (progress && progress(context, done, e->windows.count))
            return status_new(STATUS_INTERRUPTED, "evaluation stopped while it learnt from window %zu of %zu", done,
                              e->windows.count);
        find_gradient(e, chunk);
        e->learner.updates++;
        upload_settings(e);
        e->net.ops->for_each(e->lanes, e->lane_count, e->net.parameters.count, update_tensor, e);
        network_effective(&e->net, e->lanes, e->lane_count, e->effective, e->learner.masters, VIEW_MASTER);
    }
    return NULL;
}
