/* evaluation: scores the validation split window by window; see evaluation.h.
 *
 * Windows go to the lanes in parcels whose size depends on the options alone, so that each parcel's forward pass has
 * the same shape and the same bits on any machine; a round of parcels is then summed in token order. Where a parcel
 * does not fill a device, several are at work at once, and rounds of full parcels are recorded. */
#include <math.h>
#include <stdlib.h>

#include "kernels/clock.h"

#include "model/evaluation_state.h"
#include "model/network_shapes.h"

/* A round of a device is short, so that recording it takes little, and a recording pays after some rounds. */
enum { PARCELS_PER_LANE = 4, RECORDED_ROUNDS = 8 };

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t ceiling(size_t a, size_t b) { return (a + b - 1) / b; }

static int round_parcels(const struct evaluator *e) {
    return e->lane_count * (e->net.ops->device_memory ? 1 : PARCELS_PER_LANE);
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static void lay_out_host(struct evaluator *e, struct arena *arena) {
    size_t round_tokens = (size_t)round_parcels(e) * parcel_tokens(e);
    e->lanes = arena_take(arena, (size_t)e->lane_count * sizeof *e->lanes);
    e->tokens = arena_take(arena, 2 * round_tokens * sizeof *e->tokens);
    e->scores = arena_take(arena, round_tokens * sizeof *e->scores);
}

static void lay_out(struct evaluator *e, struct arena *arena) {
    size_t total = e->net.parameters.total, round_tokens = (size_t)round_parcels(e) * parcel_tokens(e);
    e->masters = e->net.ops->device_memory ? arena_reals(arena, total) : NULL;
    e->effective = arena_reals(arena, network_weight_reals(&e->net));
    e->ids = arena_take(arena, 2 * round_tokens * sizeof *e->ids);
    e->nll = arena_take(arena, round_tokens * sizeof *e->nll);
    learner_lay_out(e, arena);
}

static status create_lanes(struct evaluator *e) {
    e->workspaces = calloc((size_t)e->lane_count, sizeof(struct workspace *));
    if (!e->workspaces) return status_new(STATUS_SYSTEM, "no memory left for %d lanes", e->lane_count);
    for (int i = 0; i < e->lane_count; i++) {
        TRY(workspace_create(&e->workspaces[i], &e->net, learns(e), i));
        e->lanes[i] = *workspace_lane(e->workspaces[i]);
    }
    return NULL;
}

static void evaluator_destroy(struct evaluator *e) {
    for (int i = 0; e->workspaces && i < e->lane_count; i++)
        if (e->workspaces[i]) workspace_destroy(e->workspaces[i]);
    free(e->workspaces);
    arena_destroy(&e->arena);
    arena_destroy(&e->host);
    network_destroy(&e->net);
}

/* --- parcels ----------------------------------------------------------------------------------------------------- */

/* A window shorter than T, which only the last can be, is a parcel of its own. */
static size_t full_windows(const struct window_plan *windows) {
    bool short_tail = window_plan_at(windows, windows->count - 1).time < windows->time;
    return windows->count - short_tail;
}

static void plan_parcels(struct evaluator *e, const struct config *config) {
    size_t slice = (size_t)slice_tokens_of(config, e->net.ops->device_memory) / e->windows.time;
    size_t full = full_windows(&e->windows);
    e->chunk_windows = full ? full : 1;
    if (config->eval_mode == EVAL_TTT)
        e->chunk_windows = least((size_t)config->eval_ttt_chunk / e->windows.time, e->windows.count);
    e->parcel_windows = least(slice ? slice : 1, e->chunk_windows);
    e->chunk_parcels = ceiling(e->chunk_windows, e->parcel_windows);
    e->parcel_count = full / e->chunk_windows * e->chunk_parcels + ceiling(full % e->chunk_windows, e->parcel_windows) +
                      (e->windows.count - full);
}

struct parcel parcel_at(const struct evaluator *e, size_t index) {
    size_t full = full_windows(&e->windows), start = index / e->chunk_parcels * e->chunk_windows;
    size_t end = least(start + e->chunk_windows, full), first = start + index % e->chunk_parcels * e->parcel_windows;
    if (first >= end) return (struct parcel){full, 1};
    return (struct parcel){first, least(e->parcel_windows, end - first)};
}

void parcel_fill(const struct evaluator *e, struct parcel parcel, int place) {
    size_t count = parcel.count * window_plan_at(&e->windows, parcel.first).time;
    int32_t *ids = e->tokens + (size_t)place * 2 * parcel_tokens(e), *targets = ids + count;
    for (size_t i = 0; i < parcel.count; i++) {
        struct window window = window_plan_at(&e->windows, parcel.first + i);
        const uint16_t *tokens = e->dataset->validation.tokens + window.start;
        for (size_t t = 0; t < window.time; t++) {
            ids[i * window.time + t] = tokens[t];
            targets[i * window.time + t] = tokens[t + 1];
        }
    }
}

struct forward_request parcel_request(const struct evaluator *e, struct parcel parcel, int place) {
    size_t time = window_plan_at(&e->windows, parcel.first).time;
    const int32_t *ids = e->ids + (size_t)place * 2 * parcel_tokens(e);
    return (struct forward_request){.weights = e->effective,
                                    .ids = ids,
                                    .targets = ids + parcel.count * time,
                                    .sequences = parcel.count,
                                    .time = time,
                                    .repeats_on = e->net.config.recurrence_layers.count > 0,
                                    .temperature = e->net.config.eval_temperature,
                                    .nll = e->nll + (size_t)place * parcel_tokens(e)};
}

static void run_parcel(void *context, int piece, struct lane *lane) {
    const struct evaluator *e = context;
    struct forward_request request = parcel_request(e, parcel_at(e, e->first_parcel + (size_t)piece), piece);
    network_forward(&e->net, e->workspaces[lane->index], &request);
}

static void run_parcels(void *context) {
    struct evaluator *e = context;
    e->net.ops->for_each(e->lanes, e->lane_count, e->parcels, run_parcel, e);
}

/* A recorded round is one of full parcels: always the same work. */
static uint64_t recording_of(const struct evaluator *e) {
    if (e->parcels < round_parcels(e) || e->parcel_count < (size_t)round_parcels(e) * RECORDED_ROUNDS) return 0;
    for (int i = 0; i < e->parcels; i++) {
        struct parcel parcel = parcel_at(e, e->first_parcel + (size_t)i);
        size_t time = window_plan_at(&e->windows, parcel.first).time;
        if (parcel.count < e->parcel_windows || time < e->windows.time) return 0;
    }
    return e->recording;
}

/* From e->first_parcel on. Tokens and losses of a round go and come in one piece. */
static void run_round(struct evaluator *e, int parcels) {
    size_t round_tokens = (size_t)parcels * parcel_tokens(e);
    e->parcels = parcels;
    for (int i = 0; i < parcels; i++) parcel_fill(e, parcel_at(e, e->first_parcel + (size_t)i), i);
    e->net.ops->upload(e->lanes, e->ids, e->tokens, 2 * round_tokens * sizeof *e->ids);
    e->net.ops->replay(e->lanes, recording_of(e), run_parcels, e);
    e->net.ops->download(e->lanes, e->scores, e->nll, round_tokens * sizeof *e->nll);
}

/* --- sums -------------------------------------------------------------------------------------------------------- */

static void score(const struct evaluator *e, struct evaluation *out, size_t target, double nll) {
    const uint16_t *tokens = e->dataset->validation.tokens;
    unsigned bytes = token_byte_count(e->dataset, tokens[target + 1], tokens[target]);
    size_t place = (size_t)((unsigned __int128)target * EVALUATION_BLOCKS / e->windows.scored);
    struct evaluation_block *block = &out->blocks[place];
    block->nll += nll;
    block->bytes += bytes;
    block->tokens++;
    out->nll += nll;
    out->bytes += bytes;
    out->tokens++;
}

static void score_parcel(const struct evaluator *e, struct evaluation *out, struct parcel parcel, const double *nll) {
    for (size_t i = 0; i < parcel.count; i++) {
        struct window window = window_plan_at(&e->windows, parcel.first + i);
        for (size_t t = window.first; t < window.time; t++) score(e, out, window.start + t, nll[i * window.time + t]);
    }
}

/* Parcels first to end-1, in rounds. */
static status score_parcels(struct evaluator *e, size_t first, size_t end, evaluation_progress progress, void *context,
                            struct evaluation *out) {
    for (e->first_parcel = first; e->first_parcel < end; e->first_parcel += (size_t)round_parcels(e)) {
        size_t done = parcel_at(e, e->first_parcel).first;
        if (progress && progress(context, done, e->windows.count))
            return status_new(STATUS_INTERRUPTED, "evaluation stopped after %zu of %zu windows", done,
                              e->windows.count);
        int parcels = (int)least((size_t)round_parcels(e), end - e->first_parcel);
        run_round(e, parcels);
        TRY(e->net.ops->finish(e->lanes));
        for (int i = 0; i < parcels; i++)
            score_parcel(e, out, parcel_at(e, e->first_parcel + (size_t)i), e->scores + (size_t)i * parcel_tokens(e));
    }
    return NULL;
}

/* Chunk by chunk. The last one, which may be short and hold the tail, is not learnt from: nothing comes after it. */
static status score_all(struct evaluator *e, evaluation_progress progress, void *context, struct evaluation *out) {
    size_t chunks = ceiling(e->windows.count, e->chunk_windows);
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        size_t first = chunk * e->chunk_parcels;
        bool last = chunk + 1 == chunks;
        TRY(score_parcels(e, first, last ? e->parcel_count : first + e->chunk_parcels, progress, context, out));
        if (!last && learns(e)) TRY(learner_update(e, chunk, progress, context));
    }
    if (progress) progress(context, e->windows.count, e->windows.count);
    return NULL;
}

static status finish(const struct evaluator *e, struct evaluation *out) {
    if (!isfinite(out->nll))
        return status_new(STATUS_DIVERGED, "the loss over %lld validation tokens is %g: the weights are no model%s",
                          (long long)out->tokens, out->nll, learns(e) ? ", or eval.ttt_rate is too high" : "");
    if (out->bytes == 0)
        return status_new(STATUS_DATA, "the %lld scored tokens stand for no text", (long long)out->tokens);
    out->nll_per_token = out->nll / (double)out->tokens;
    out->bpb = out->nll / log(2.0) / (double)out->bytes;
    return NULL;
}

/* --- evaluate ---------------------------------------------------------------------------------------------------- */

static status check_vocabulary(const struct config *config, const struct dataset *dataset) {
    if ((size_t)config->model_vocab_size == dataset->vocab_size) return NULL;
    return status_new(STATUS_DATA, "model.vocab_size = %lld, but the tokenizer of %s has %zu pieces",
                      (long long)config->model_vocab_size, dataset->name, dataset->vocab_size);
}

/* All that is needed to know the sizes. */
static status evaluator_size(struct evaluator *e, const struct config *config, const struct backend *ops) {
    e->net.ops = ops;
    TRY(check_vocabulary(config, e->dataset));
    TRY(window_plan_create(&e->windows, config, e->dataset->validation.count));
    plan_parcels(e, config);
    TRY(network_create(&e->net, config, ops, e->parcel_windows, e->windows.time));
    size_t lanes = (size_t)network_lanes(&e->net, learns(e), LANES_OF_DEVICE);
    e->lane_count = (int)(ops->device_memory ? least(lanes, e->parcel_count) : lanes);
    e->recording = 16 * recording_number();
    return NULL;
}

static status evaluator_prepare(struct evaluator *e, const real *weights) {
    struct arena counter = {.ops = e->net.ops}, host = {0};
    lay_out_host(e, &host);
    lay_out(e, &counter);
    TRY(arena_create(&e->host, host.used, "the evaluation"));
    lay_out_host(e, &e->host);
    TRY(arena_create_for(&e->arena, e->net.ops, counter.used, "the evaluation"));
    lay_out(e, &e->arena);
    TRY(create_lanes(e));
    if (e->masters) {
        e->net.ops->upload(e->lanes, e->masters, weights, e->net.parameters.total * sizeof *weights);
        weights = e->masters;
    }
    network_effective(&e->net, e->lanes, e->lane_count, e->effective, weights, VIEW_MASTER);
    if (learns(e)) learner_start(e, weights);
    return NULL;
}

status evaluate(const struct config *config, const struct backend *ops, const real *weights,
                const struct dataset *dataset, evaluation_progress progress, void *context, struct evaluation *out) {
    struct evaluator e = {.dataset = dataset};
    double start = clock_seconds();
    *out = (struct evaluation){0};
    TRY(evaluator_size(&e, config, ops));
    status s = evaluator_prepare(&e, weights);
    if (!s) s = score_all(&e, progress, context, out);
    if (!s) s = finish(&e, out);
    evaluator_destroy(&e);
    out->seconds = clock_seconds() - start;
    return s;
}

status evaluation_memory(const struct config *config, const struct backend *ops, const struct dataset *dataset,
                         size_t *bytes) {
    struct evaluator e = {.dataset = dataset};
    struct arena counting = {.ops = ops}, host = {0};
    TRY(evaluator_size(&e, config, ops));
    lay_out_host(&e, &host);
    lay_out(&e, &counting);
    *bytes = counting.used + (ops->device_memory ? 0 : host.used) +
             (size_t)e.lane_count * workspace_bytes(&e.net, learns(&e));
    evaluator_destroy(&e);
    return NULL;
}
