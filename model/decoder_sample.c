/* decoder_sample: the model's own text: sequences in fixed groups, each group one piece of work. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/random.h"
#include "model/decoder.h"

enum { GROUP = 8 };

struct sampling {
    const struct network *net;
    const real *weights;
    bool repeats_on;
    size_t count, time, group; /* group: sequences of one decoder */
    double temperature;
    uint64_t seed;
    int32_t *tokens;           /* (count, time) */
    struct decoder **decoders; /* one for each lane */
    real *logits;              /* (lanes, group, V) */
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
static void current_tokens(const struct sampling *s, size_t first, size_t position, int32_t ids[GROUP]) {
    for (size_t i = 0; i < s->group; i++)
        ids[i] = first + i < s->count ? s->tokens[(first + i) * s->time + position] : 0;
}

static void sample_group(void *context, int piece, struct lane *lane) {
    const struct sampling *s = context;
    struct decoder *decoder = s->decoders[lane->index];
    size_t first = (size_t)piece * s->group, vocab = (size_t)s->net->config.model_vocab_size;
    size_t used = s->count - first < s->group ? s->count - first : s->group;
    real *logits = s->logits + (size_t)lane->index * s->group * vocab;
    struct random_stream streams[GROUP];
    for (size_t i = 0; i < used; i++) {
        char consumer[64];
        snprintf(consumer, sizeof consumer, "calibration sequence %zu", first + i);
        streams[i] = random_stream(s->seed, consumer);
        s->tokens[(first + i) * s->time] = (int32_t)random_below(streams[i], 0, vocab);
    }
    decoder_reset(decoder);
    for (size_t t = 1; t < s->time; t++) {
        int32_t ids[GROUP];
        current_tokens(s, first, t - 1, ids);
        decoder_step(decoder, s->weights, s->repeats_on, ids, logits);
        for (size_t i = 0; i < used; i++)
            s->tokens[(first + i) * s->time + t] =
                draw(logits + i * vocab, vocab, s->temperature, random_uniform(streams[i], t));
    }
}

static status run(struct sampling *s, struct lane *lanes, int lane_count, int pieces) {
    for (int i = 0; i < lane_count; i++) {
        TRY(decoder_create(&s->decoders[i], s->net, s->group, s->time, i));
        lanes[i] = *decoder_lane(s->decoders[i]);
    }
    s->net->ops->for_each(lanes, lane_count, pieces, sample_group, s);
    return NULL;
}

status decoder_sample(const struct network *net, const real *weights, bool repeats_on, size_t count, size_t time,
                      double temperature, uint64_t seed, int32_t *tokens) {
    if (count == 0 || time == 0) return NULL;
    size_t group = count < GROUP ? count : GROUP;
    int pieces = (int)((count + group - 1) / group), available = net->ops->lane_count();
    int lane_count = available < pieces ? available : pieces;
    struct sampling s = {net, weights, repeats_on, count, time, group, temperature, seed, tokens, NULL, NULL};
    struct lane *lanes = calloc((size_t)lane_count, sizeof *lanes);
    s.decoders = calloc((size_t)lane_count, sizeof *s.decoders);
    s.logits = malloc((size_t)lane_count * group * (size_t)net->config.model_vocab_size * sizeof *s.logits);
    status failure = lanes && s.decoders && s.logits
                         ? run(&s, lanes, lane_count, pieces)
                         : status_new(STATUS_SYSTEM, "no memory to sample %zu sequences side by side", group);
    for (int i = 0; s.decoders && i < lane_count; i++) decoder_destroy(s.decoders[i]);
    free(s.decoders);
    free(s.logits);
    free(lanes);
    return failure;
}
