/* windows: the bookkeeping of an evaluation; see windows.h. */
#include "model/windows.h"

static size_t ceiling(size_t a, size_t b) { return (a + b - 1) / b; }

static size_t scored_targets(const struct config *config, size_t stream_tokens) {
    size_t time = (size_t)config->train_sequence, limit = (size_t)config->eval_tokens;
    size_t targets = stream_tokens > 0 ? stream_tokens - 1 : 0;
    if (limit > 0 && limit < targets) targets = limit;
    bool drop = config->eval_mode != EVAL_SLIDING && config->eval_tail == TAIL_DROP;
    return drop ? targets / time * time : targets;
}

status window_plan_create(struct window_plan *plan, const struct config *config, size_t stream_tokens) {
    size_t time = (size_t)config->train_sequence;
    size_t step = config->eval_mode == EVAL_SLIDING ? (size_t)config->eval_stride : time;
    size_t scored = scored_targets(config, stream_tokens);
    if (step == 0 || step > time)
        return status_new(STATUS_USAGE, "eval.stride = %zu with windows of train.sequence = %zu: from 1 to that", step,
                          time);
    if (scored == 0)
        return status_new(STATUS_DATA,
                          "no window of train.sequence = %zu fits the %zu validation tokens (eval.tokens = %lld); "
                          "shorten it, or set eval.tail=keep",
                          time, stream_tokens, (long long)config->eval_tokens);
    size_t later = scored > time ? ceiling(scored - time, step) : 0;
    *plan = (struct window_plan){.time = time, .step = step, .scored = scored, .count = 1 + later};
    return NULL;
}

struct window window_plan_at(const struct window_plan *plan, size_t index) {
    size_t start = index * plan->step, left = plan->scored - start;
    return (struct window){
        .start = start, .time = left < plan->time ? left : plan->time, .first = index ? plan->time - plan->step : 0};
}
