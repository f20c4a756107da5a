/* measure: a short training slice, forward pass, Newton-Schulz step, decoding and compression; see measure.h. */
#include "harness/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/arena.h"
#include "kernels/clock.h"
#include "model/decoder.h"
#include "model/network.h"
#include "model/network_shapes.h"
#include "model/trainer.h"
#include "model/xz.h"

enum {
    MOST_LANES = 256,
    ROUNDS = 3,
    CALLS = 9,
    MOST_TIMES = 1000,
    SHORTEST = 128,
    DECODED = 8,
    MOST_SAMPLE_BYTES = 1 << 20
};
static const double budget_seconds = 0.25, round_seconds = 0.1, slow_seconds = 2;

struct probe {
    struct network net;
    const struct backend *ops;
    int lane_count;
    int training_lanes;     /* at least that many */
    uint64_t recording;     /* the key of a training's passes, where a device records them; the next one: of decoding */
    size_t sequences, time; /* of a lane's slice */
    bool repeats_on;
    struct lane lanes[MOST_LANES];
    struct workspace *workspaces[MOST_LANES];
    struct decoder *decoders[MOST_LANES];
    struct arena arena; /* of the backend's memory */
    real *gradients[MOST_LANES], *matrices[MOST_LANES];
    double *nll[MOST_LANES];
    real *weights;
    int32_t *ids;           /* a slice and its next token */
    int32_t *tokens;        /* the same on the host */
    double drawing_seconds; /* of the initial weights */
    size_t rows, cols;
};

/* --- what is measured --------------------------------------------------------------------------------------------- */

static struct forward_request request_of(const struct probe *p, int lane) {
    return (struct forward_request){.weights = p->weights,
                                    .ids = p->ids,
                                    .targets = p->ids + 1,
                                    .sequences = p->sequences,
                                    .time = p->time,
                                    .repeats_on = p->repeats_on,
                                    .temperature = 1,
                                    .nll = p->nll[lane]};
}

static void pass_forward(void *context, int piece, struct lane *lane) {
    struct probe *p = context;
    struct forward_request request = request_of(p, lane->index);
    (void)piece;
    network_forward(&p->net, p->workspaces[lane->index], &request);
}

static void pass_training(void *context, int piece, struct lane *lane) {
    struct probe *p = context;
    struct forward_request request = request_of(p, lane->index);
    (void)piece;
    network_train(&p->net, p->workspaces[lane->index], &request, p->gradients[lane->index], 1);
}

static void one_newton_schulz(void *context, int piece, struct lane *lane) {
    struct probe *p = context;
    (void)piece;
    p->ops->newton_schulz(lane, &p->matrices[lane->index], 1, p->rows, p->cols, 1);
}

/* The decoding of a lane. */
struct decoding {
    struct probe *probe;
    struct decoder *decoder;
};

static void decode_token(void *context) {
    const struct decoding *d = context;
    decoder_read(d->decoder, d->probe->weights, d->probe->repeats_on, d->probe->ids, 1);
}

/* As sampling goes: a device, which has one lane here, records a token and replays it. */
static void decode(void *context, int piece, struct lane *lane) {
    struct probe *p = context;
    struct decoding d = {p, p->decoders[lane->index]};
    (void)piece;
    decoder_reset(d.decoder);
    decode_token(&d);
    for (int i = 1; i < DECODED; i++) p->ops->replay(lane, p->recording + 1, decode_token, &d);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* An error of the device shows in what comes after the measurement, too. */
static double seconds_of(struct probe *p, piece_function function, int pieces) {
    double start = clock_seconds();
    p->ops->for_each(p->lanes, p->lane_count, pieces, function, p);
    status_free(p->ops->finish(p->lanes));
    return clock_seconds() - start;
}

/* How many pieces take about a round: from one call with a piece for each lane; a first one that is quick warms up. */
static int pieces_of_a_round(struct probe *p, piece_function function) {
    double seconds = seconds_of(p, function, p->lane_count);
    if (seconds < round_seconds) seconds = seconds_of(p, function, p->lane_count);
    return p->lane_count * (int)fmin(fmax(1, ceil(round_seconds / seconds)), MOST_TIMES);
}

/* Units a second, one piece being `unit`: the median round after a warm-up. What is short is done in many pieces of one
 * call: else the waiting for the lanes at its end would be what is measured. */
static double rate_of(struct probe *p, double unit, piece_function function) {
    double rates[ROUNDS];
    int pieces = pieces_of_a_round(p, function);
    for (int r = 0; r < ROUNDS; r++) rates[r] = unit * pieces / seconds_of(p, function, pieces);
    qsort(rates, ROUNDS, sizeof *rates, by_value);
    return rates[ROUNDS / 2];
}

static void pass_of_a_step(void *context) {
    struct probe *p = context;
    p->ops->for_each(p->lanes, p->training_lanes, MICRO_SHARDS, pass_training, p);
}

/* As a training goes: where it is recorded, what counts are the replays. */
static double steps_seconds(struct probe *p, int steps) {
    double start = clock_seconds();
    for (int i = 0; i < steps; i++) p->ops->replay(p->lanes, p->recording, pass_of_a_step, p);
    status_free(p->ops->finish(p->lanes));
    return clock_seconds() - start;
}

/* The rate of a training on a device; `unit` is a pass's. A step that takes a round is done once; one that takes
 * seconds, as on the emulator, is not repeated even to be recorded. */
static double recorded_rate(struct probe *p, double unit) {
    double rates[ROUNDS], first = steps_seconds(p, 1);
    if (first >= slow_seconds) return unit * MICRO_SHARDS / first;
    steps_seconds(p, 1); /* recorded */
    double one = steps_seconds(p, 1);
    if (one >= round_seconds) return unit * MICRO_SHARDS / one;
    int steps = (int)fmin(ceil(round_seconds / one), MOST_TIMES);
    for (int r = 0; r < ROUNDS; r++) rates[r] = unit * MICRO_SHARDS * steps / steps_seconds(p, steps);
    qsort(rates, ROUNDS, sizeof *rates, by_value);
    return rates[ROUNDS / 2];
}

static double training_rate(struct probe *p, double unit) {
    return p->ops->device_memory ? recorded_rate(p, unit) : rate_of(p, unit, pass_training);
}

static void nothing(void *context, int piece, struct lane *lane) {
    (void)context;
    (void)piece;
    (void)lane;
}

/* On a machine that others use, a call lasts until each lane had its turn: far longer than what short pieces take. */
static double call_seconds(struct probe *p) {
    double seconds[CALLS];
    for (int i = 0; i < CALLS; i++) seconds[i] = seconds_of(p, nothing, p->lane_count);
    qsort(seconds, CALLS, sizeof *seconds, by_value);
    return seconds[CALLS / 2];
}

/* --- preparing ---------------------------------------------------------------------------------------------------- */

static void cut_slice(struct probe *p, const struct config *c, const struct network *net, double product_rate) {
    double budget = budget_seconds * product_rate / p->lane_count;
    size_t shard = (size_t)c->train_batch_tokens / 8 / (size_t)c->train_sequence;
    p->time = (size_t)c->train_sequence;
    p->sequences = (size_t)(slice_tokens_of(c, p->ops->device_memory) / c->train_sequence);
    if (p->sequences > shard) p->sequences = shard;
    if (p->sequences < 1) p->sequences = 1;
    double per_token = network_training_flops(net, p->repeats_on, p->time);
    while (p->sequences > 1 && (double)(p->sequences * p->time) * per_token > budget) p->sequences /= 2;
    while (p->time > SHORTEST && (double)(p->sequences * p->time) * per_token > budget) p->time /= 2;
}

static void find_matrix(struct probe *p) {
    p->rows = p->cols = 0;
    for (int i = 0; i < p->net.parameters.count; i++) {
        const struct tensor *t = &p->net.parameters.tensors[i];
        if (t->optimizer != OPTIMIZER_MUON || (size_t)t->shape[0] * (size_t)t->shape[1] <= p->rows * p->cols) continue;
        p->rows = (size_t)t->shape[0];
        p->cols = (size_t)t->shape[1];
    }
}

static int lanes_held(const struct probe *p) {
    return p->training_lanes > p->lane_count ? p->training_lanes : p->lane_count;
}

static size_t token_count(const struct probe *p) { return p->sequences * p->time + 2 * DECODED; }

static void lay_out(struct probe *p, struct arena *arena) {
    size_t scratch = p->ops->newton_schulz_scratch(1, p->rows, p->cols);
    p->weights = arena_reals(arena, network_weight_reals(&p->net));
    p->ids = arena_take(arena, token_count(p) * sizeof *p->ids);
    for (int lane = 0; lane < lanes_held(p); lane++) {
        p->gradients[lane] = arena_reals(arena, p->net.parameters.total);
        p->matrices[lane] = arena_reals(arena, p->rows * p->cols);
        p->nll[lane] = arena_take(arena, p->sequences * p->time * sizeof(double));
        p->lanes[lane] = (struct lane){lane, arena_take(arena, scratch), scratch};
    }
}

static status no_memory(size_t bytes) {
    return status_new(STATUS_SYSTEM, "measuring a training step needs %.1f MB of memory, which this machine refused",
                      (double)bytes / 1e6);
}

static status allocate(struct probe *p) {
    struct arena counting = {.ops = p->ops};
    lay_out(p, &counting);
    TRY(arena_create_for(&p->arena, p->ops, counting.used, "measuring a training step"));
    lay_out(p, &p->arena);
    p->tokens = calloc(token_count(p), sizeof *p->tokens);
    if (!p->tokens) return no_memory(token_count(p) * sizeof *p->tokens);
    for (int lane = 0; lane < lanes_held(p); lane++) {
        TRY(workspace_create(&p->workspaces[lane], &p->net, true, lane));
        TRY(decoder_create(&p->decoders[lane], &p->net, DECODED, DECODED, lane));
    }
    return NULL;
}

/* Weights as they are drawn, tokens and matrices without a meaning. */
static status fill(struct probe *p) {
    size_t total = p->net.parameters.total, count = p->rows * p->cols;
    real *values = calloc(total > count ? total : count, sizeof *values);
    if (!values) return no_memory((total > count ? total : count) * sizeof *values);
    for (size_t i = 0; i < count; i++) values[i] = (real)((i * 7919) % 17) - 8;
    for (int lane = 0; lane < lanes_held(p); lane++)
        p->ops->upload(p->lanes, p->matrices[lane], values, count * sizeof *values);
    memset(values, 0, count * sizeof *values);
    double start = clock_seconds();
    status s = parameters_initialise(&p->net.parameters, values, 1);
    p->drawing_seconds = clock_seconds() - start;
    p->ops->upload(p->lanes, p->weights, values, total * sizeof *values);
    network_round(&p->net, p->lanes, p->weights);
    free(values);
    for (size_t i = 0; i < token_count(p); i++)
        p->tokens[i] = (int32_t)(i * 7919 % (size_t)p->net.config.model_vocab_size);
    p->ops->upload(p->lanes, p->ids, p->tokens, token_count(p) * sizeof *p->tokens);
    return s;
}

static status prepare(struct probe *p, const struct config *config, double product_rate) {
    struct network whole;
    TRY(network_create(&whole, config, p->ops, 1, (size_t)config->train_sequence));
    cut_slice(p, config, &whole, product_rate);
    network_destroy(&whole);
    TRY(network_create(&p->net, config, p->ops, p->sequences, p->time));
    p->training_lanes = p->ops->device_memory ? trainer_lanes(&p->net) : p->lane_count;
    find_matrix(p);
    TRY(allocate(p));
    TRY(fill(p));
    return p->ops->finish(p->lanes);
}

static void release(struct probe *p) {
    for (int lane = 0; lane < lanes_held(p); lane++) {
        if (p->workspaces[lane]) workspace_destroy(p->workspaces[lane]);
        if (p->decoders[lane]) decoder_destroy(p->decoders[lane]);
    }
    free(p->tokens);
    arena_destroy(&p->arena);
    if (p->net.ops) network_destroy(&p->net);
    free(p);
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

static unsigned next_number(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 24;
}

struct sample {
    unsigned char *bytes;
    size_t count;
    status failures[MOST_LANES];
};

static void compress(void *context, int piece, struct lane *lane) {
    struct sample *sample = context;
    unsigned char *out = NULL;
    size_t size;
    (void)lane;
    sample->failures[piece] = xz_compress(sample->bytes, sample->count, &out, &size);
    free(out);
}

/* Bytes of 63 values, most of them in the middle, as weights of 6 bits are stored. The match finder slows down with the
 * data's size, so the sample has the model's as far as that is quick; and beside others that do the same. */
static status measure_compression(struct probe *p, int jobs, double *rate) {
    size_t parameters = p->net.parameters.elements;
    struct sample sample = {.count = parameters < MOST_SAMPLE_BYTES ? parameters : MOST_SAMPLE_BYTES};
    int copies = p->ops->device_memory ? 1 : jobs < p->lane_count ? jobs : p->lane_count;
    uint32_t state = 1;
    sample.bytes = malloc(sample.count);
    if (!sample.bytes) return status_new(STATUS_SYSTEM, "no memory to measure compression");
    for (size_t i = 0; i < sample.count; i++)
        sample.bytes[i] =
            (unsigned char)((next_number(&state) + next_number(&state) + next_number(&state)) * 63 / (3 * 255 + 1));
    double start = clock_seconds();
    if (copies == 1)
        compress(&sample, 0, NULL);
    else
        p->ops->for_each(p->lanes, p->lane_count, copies, compress, &sample);
    *rate = (double)sample.count / (clock_seconds() - start);
    free(sample.bytes);
    status failed = sample.failures[0];
    for (int i = 1; i < copies; i++)
        if (failed)
            status_free(sample.failures[i]);
        else
            failed = sample.failures[i];
    return failed;
}

static void measure(struct probe *p, struct phase_rates *rates) {
    double tokens = (double)(p->sequences * p->time), low = (double)(p->rows < p->cols ? p->rows : p->cols),
           high = (double)(p->rows < p->cols ? p->cols : p->rows);
    rates->tokens = p->sequences * p->time;
    rates->initialised = (double)p->net.parameters.elements / p->drawing_seconds;
    rates->training = training_rate(p, tokens * network_training_flops(&p->net, p->repeats_on, p->time));
    rates->forward = rate_of(p, tokens * network_forward_flops(&p->net, p->repeats_on, p->time), pass_forward);
    rates->decoding =
        rate_of(p, (double)DECODED * DECODED * network_forward_flops(&p->net, p->repeats_on, DECODED), decode);
    rates->call_seconds = call_seconds(p);
    rates->optimizer = p->rows ? rate_of(p, 4 * low * low * high + 2 * low * low * low, one_newton_schulz) : 1;
}

status measure_phases(const struct config *config, const struct backend *ops, int jobs, double product_rate,
                      struct phase_rates *rates) {
    struct probe *p = calloc(1, sizeof *p);
    if (!p) return status_new(STATUS_SYSTEM, "no memory to measure a training step");
    p->ops = ops;
    p->lane_count = ops->lane_count() < MOST_LANES ? ops->lane_count() : MOST_LANES;
    if (p->lane_count > 8) p->lane_count = 8; /* a training has 8 micro-shards */
    p->recording = 16 * recording_number();
    p->repeats_on = config->recurrence_layers.count > 0;
    status s = prepare(p, config, product_rate);
    if (!s) measure(p, rates);
    if (!s) s = measure_compression(p, jobs, &rates->compressed);
    release(p);
    return s;
}
