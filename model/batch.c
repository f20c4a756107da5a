/* batch: which windows of the stream make the batch of a step; see data.h. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/random.h"
#include "model/data.h"

static const int64_t no_epoch = -1;

status batch_plan_create(struct batch_plan *plan, const struct token_stream *stream, size_t time, size_t sequences,
                         int order, uint64_t seed) {
    *plan = (struct batch_plan){
        .stream = stream, .time = time, .sequences = sequences, .order = order, .seed = seed, .epoch = no_epoch};
    if (time == 0 || stream->count < time + 1)
        return status_new(STATUS_DATA,
                          "the train split has %zu tokens, less than one window of %zu inputs and a target",
                          stream->count, time);
    plan->windows = (stream->count - 1) / time;
    if (order != DATA_SHUFFLED) return NULL;
    if (plan->windows > UINT32_MAX)
        return status_new(STATUS_DATA, "%zu windows cannot be shuffled, at most %u", plan->windows, UINT32_MAX);
    plan->permutation = malloc(plan->windows * sizeof *plan->permutation);
    return plan->permutation ? NULL
                             : status_new(STATUS_SYSTEM, "no memory left for the order of %zu windows", plan->windows);
}

void batch_plan_destroy(struct batch_plan *plan) {
    free(plan->permutation);
    *plan = (struct batch_plan){.epoch = no_epoch};
}

static void enter_epoch(struct batch_plan *plan, int64_t epoch) {
    char consumer[64];
    snprintf(consumer, sizeof consumer, "data.order epoch %lld", (long long)epoch);
    random_permutation(random_stream(plan->seed, consumer), plan->permutation, plan->windows);
    plan->epoch = epoch;
}

/* The window at a place of the endless sequence of epochs. */
static size_t window_at(struct batch_plan *plan, uint64_t place) {
    uint64_t index = place % plan->windows;
    if (plan->order != DATA_SHUFFLED) return index;
    int64_t epoch = (int64_t)(place / plan->windows);
    if (epoch != plan->epoch) enter_epoch(plan, epoch);
    return plan->permutation[index];
}

void batch_fill(struct batch_plan *plan, int64_t step, int32_t *ids, int32_t *targets) {
    for (size_t i = 0; i < plan->sequences; i++) {
        size_t window = window_at(plan, (uint64_t)step * plan->sequences + i);
        const uint16_t *tokens = plan->stream->tokens + window * plan->time;
        for (size_t t = 0; t < plan->time; t++) {
            ids[i * plan->time + t] = tokens[t];
            targets[i * plan->time + t] = tokens[t + 1];
        }
    }
}
