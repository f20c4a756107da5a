/* decoder_sample: the model's own text: sequences in fixed groups, each group one piece of work.
 *
 * As many groups as there are lanes run side by side, a few positions at a time, so that the caller can stop it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/random.h"
#include "model/decoder.h"

enum {
    GROUP = 8, /* sequences of one decoder; a device wants all of them at once */
    GROUP_OF_DEVICE = 64,
    POSITIONS = 16 /* between two reports */
};

struct sampling {
    const struct network *net;
    const real *weights;
    bool repeats_on;
    size_t count, time, group; /* group: sequences of one decoder */
    double temperature;
    uint64_t seed;
    int32_t *tokens; /* (count, time) */
    sample_progress progress;
    void *progress_context;

    int group_count, side_by_side;
    struct decoder **decoders; /* one for each group at work */
    real *logits;              /* (groups at work, group, V) */
    int first_group;           /* of those at work */
    size_t from, to;           /* positions to fill now */
};

/* The token at which the cumulative probability passes `uniform`; logits become weights before the normalisation. */
static int32_t draw(real *logits, size_t vocab, double temperature, double uniform) {
    double highest = (double)logits[0], total = 0, sum = 0;
    for (size_t i = 1; i < vocab; i++) highest = fmax(highest, (double)logits[i]);
    for (size_t i = 0; i < vocab; i++) {
        logits[i] = (real)exp(((double)logits[i] - highest) / temperature);
        total += (double)logits[i];
    }
    for (size_t i = 0; i + 1 < vocab; i++) {
        sum += (double)logits[i];
        if (sum > uniform * total) return (int32_t)i;
    }
    return (int32_t)vocab - 1;
}

/* What a group's decoder reads at this position; lanes of the last group without a sequence of their own read 0. */
static void current_tokens(const struct sampling *s, size_t first, size_t position, int32_t ids[GROUP_OF_DEVICE]) {
    for (size_t i = 0; i < s->group; i++)
        ids[i] = first + i < s->count ? s->tokens[(first + i) * s->time + position] : 0;
}

static struct random_stream stream_of(const struct sampling *s, size_t sequence) {
    char consumer[64];
    snprintf(consumer, sizeof consumer, "calibration sequence %zu", sequence);
    return random_stream(s->seed, consumer);
}

static void start_group(void *context, int piece, struct lane *lane) {
    const struct sampling *s = context;
    size_t first = (size_t)(s->first_group + piece) * s->group;
    (void)lane;
    decoder_reset(s->decoders[piece]);
    for (size_t i = first; i < first + s->group && i < s->count; i++)
        s->tokens[i * s->time] = (int32_t)random_below(stream_of(s, i), 0, (size_t)s->net->config.model_vocab_size);
}

static void continue_group(void *context, int piece, struct lane *lane) {
    const struct sampling *s = context;
    size_t first = (size_t)(s->first_group + piece) * s->group, vocab = (size_t)s->net->config.model_vocab_size;
    size_t used = s->count - first < s->group ? s->count - first : s->group;
    real *logits = s->logits + (size_t)piece * s->group * vocab;
    struct random_stream streams[GROUP_OF_DEVICE];
    (void)lane; /* the decoder has its own */
    for (size_t i = 0; i < used; i++) streams[i] = stream_of(s, first + i);
    for (size_t t = s->from; t < s->to; t++) {
        int32_t ids[GROUP_OF_DEVICE];
        current_tokens(s, first, t - 1, ids);
        decoder_step(s->decoders[piece], s->weights, s->repeats_on, ids, logits);
        for (size_t i = 0; i < used; i++)
            s->tokens[(first + i) * s->time + t] =
                draw(logits + i * vocab, vocab, s->temperature, random_uniform(streams[i], t));
    }
}

static status report(const struct sampling *s) {
    size_t whole = (size_t)s->first_group * s->group * s->time, left = s->count - (size_t)s->first_group * s->group;
    size_t at_work = (size_t)s->side_by_side * s->group < left ? (size_t)s->side_by_side * s->group : left;
    size_t done = whole + at_work * s->from, total = s->count * s->time;
    if (!s->progress || !s->progress(s->progress_context, done, total)) return NULL;
    return status_new(STATUS_INTERRUPTED, "sampling stopped after %zu of %zu tokens", done, total);
}

static status run_groups(struct sampling *s, struct lane *lanes, int groups) {
    const struct backend *ops = s->net->ops;
    ops->for_each(lanes, s->side_by_side, groups, start_group, s);
    for (s->from = 1; s->from < s->time; s->from = s->to) {
        s->to = s->from + POSITIONS < s->time ? s->from + POSITIONS : s->time;
        TRY(report(s));
        ops->for_each(lanes, s->side_by_side, groups, continue_group, s);
        for (int i = 0; i < groups; i++) TRY(ops->finish(decoder_lane(s->decoders[i])));
    }
    return NULL;
}

static status run(struct sampling *s, struct lane *lanes) {
    for (int i = 0; i < s->side_by_side; i++) {
        TRY(decoder_create(&s->decoders[i], s->net, s->group, s->time, i));
        lanes[i].index = i;
    }
    for (s->first_group = 0; s->first_group < s->group_count; s->first_group += s->side_by_side) {
        int left = s->group_count - s->first_group;
        TRY(run_groups(s, lanes, left < s->side_by_side ? left : s->side_by_side));
    }
    return NULL;
}

static void size_groups(struct sampling *s) {
    int available = s->net->ops->lane_count();
    size_t most = s->net->ops->device_memory ? GROUP_OF_DEVICE : GROUP;
    s->group = s->count < most ? s->count : most;
    s->group_count = (int)((s->count + s->group - 1) / s->group);
    s->side_by_side = available < s->group_count ? available : s->group_count;
}

static size_t logits_bytes(const struct sampling *s) {
    return (size_t)s->side_by_side * s->group * (size_t)s->net->config.model_vocab_size * sizeof *s->logits;
}

size_t decoder_sample_memory(const struct network *net, size_t count, size_t time) {
    if (count == 0 || time == 0) return 0;
    struct sampling s = {.net = net, .count = count, .time = time};
    size_groups(&s);
    return (size_t)s.side_by_side * decoder_bytes(net, s.group, time) +
           (net->ops->device_memory ? 0 : logits_bytes(&s));
}

status decoder_sample(const struct network *net, const real *weights, bool repeats_on, size_t count, size_t time,
                      double temperature, uint64_t seed, sample_progress progress, void *context, int32_t *tokens) {
    if (count == 0 || time == 0) return NULL;
    struct sampling s = {.net = net,
                         .weights = weights,
                         .repeats_on = repeats_on,
                         .count = count,
                         .time = time,
                         .temperature = temperature,
                         .seed = seed,
                         .tokens = tokens,
                         .progress = progress,
                         .progress_context = context};
    size_groups(&s);
    size_t at_work = (size_t)s.side_by_side;
    struct lane *lanes = calloc(at_work, sizeof *lanes);
    s.decoders = calloc(at_work, sizeof *s.decoders);
    s.logits = malloc(logits_bytes(&s));
    status failure = lanes && s.decoders && s.logits
                         ? run(&s, lanes)
                         : status_new(STATUS_SYSTEM, "no memory to sample %zu sequences side by side", s.group);
    for (int i = 0; s.decoders && i < s.side_by_side; i++) decoder_destroy(s.decoders[i]);
    free(s.decoders);
    free(s.logits);
    free(lanes);
    return failure;
}
