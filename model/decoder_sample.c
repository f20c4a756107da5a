/* decoder_sample: the model's own text: sequences in fixed groups, each group one piece of work.
 *
 * As many groups as there are lanes run side by side, a few positions at a time, so that the caller can stop it. What a
 * group reads and draws stays in the backend's memory until it is done, and each position asks for the same ops, which
 * a device records. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/random.h"
#include "model/decoder.h"

enum {
    GROUP = 8, /* sequences of one decoder; a device wants all of them at once */
    GROUP_OF_DEVICE = 64,
    POSITIONS = 16 /* between two reports */
};

/* Sequences that are sampled together; (time, group) each. */
struct group {
    const struct sampling *sampling;
    struct decoder *decoder;
    uint64_t recording;
    int32_t *tokens; /* in the backend's memory */
    double *uniforms;
    int32_t *host_tokens;
    double *host_uniforms;
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
    struct lane *lanes;
    struct group *groups; /* those at work */
    struct arena arena, host;
    int first_group; /* of those at work */
    size_t from, to; /* positions to fill now */
};

/* --- memory ------------------------------------------------------------------------------------------------------ */

static void lay_out_host(struct sampling *s, struct arena *arena) {
    size_t count = (size_t)s->side_by_side, cells = s->time * s->group;
    s->lanes = arena_take(arena, count * sizeof *s->lanes);
    s->groups = arena_take(arena, count * sizeof *s->groups);
    for (size_t i = 0; i < count; i++) {
        int32_t *tokens = arena_take(arena, cells * sizeof *tokens);
        double *uniforms = arena_take(arena, cells * sizeof *uniforms);
        if (!s->groups) continue;
        s->groups[i] = (struct group){.sampling = s, .host_tokens = tokens, .host_uniforms = uniforms};
    }
}

/* After lay_out_host. */
static void lay_out(struct sampling *s, struct arena *arena) {
    for (int i = 0; i < s->side_by_side; i++) {
        int32_t *tokens = arena_take(arena, s->time * s->group * sizeof *tokens);
        double *uniforms = arena_take(arena, s->time * s->group * sizeof *uniforms);
        if (!tokens) continue;
        s->groups[i].tokens = tokens;
        s->groups[i].uniforms = uniforms;
    }
}

static void size_groups(struct sampling *s) {
    int available = s->net->ops->lane_count();
    size_t most = s->net->ops->device_memory ? GROUP_OF_DEVICE : GROUP;
    s->group = s->count < most ? s->count : most;
    s->group_count = (int)((s->count + s->group - 1) / s->group);
    s->side_by_side = available < s->group_count ? available : s->group_count;
}

/* Bytes of both arenas. */
static void size_up(struct sampling *s, size_t *host_bytes, size_t *bytes) {
    struct arena counting = {.ops = s->net->ops}, host = {0};
    size_groups(s);
    lay_out_host(s, &host);
    lay_out(s, &counting);
    *host_bytes = host.used;
    *bytes = counting.used;
}

size_t decoder_sample_memory(const struct network *net, size_t count, size_t time) {
    if (count == 0 || time == 0) return 0;
    struct sampling s = {.net = net, .count = count, .time = time};
    size_t host, bytes;
    size_up(&s, &host, &bytes);
    return bytes + (size_t)s.side_by_side * decoder_bytes(net, s.group, time) + (net->ops->device_memory ? 0 : host);
}

static status prepare(struct sampling *s) {
    size_t host, bytes;
    size_up(s, &host, &bytes);
    TRY(arena_create(&s->host, host, "sampling"));
    lay_out_host(s, &s->host);
    TRY(arena_create_for(&s->arena, s->net->ops, bytes, "sampling"));
    lay_out(s, &s->arena);
    for (int i = 0; i < s->side_by_side; i++) {
        TRY(decoder_create(&s->groups[i].decoder, s->net, s->group, s->time, i));
        s->groups[i].recording = 16 * recording_number();
        s->lanes[i].index = i;
    }
    return NULL;
}

static void release(struct sampling *s) {
    for (int i = 0; s->groups && i < s->side_by_side; i++) decoder_destroy(s->groups[i].decoder);
    arena_destroy(&s->arena);
    arena_destroy(&s->host);
}

/* --- groups ------------------------------------------------------------------------------------------------------ */

static struct random_stream stream_of(const struct sampling *s, size_t sequence) {
    char consumer[64];
    snprintf(consumer, sizeof consumer, "calibration sequence %zu", sequence);
    return random_stream(s->seed, consumer);
}

static size_t first_of(const struct sampling *s, int piece) { return (size_t)(s->first_group + piece) * s->group; }

/* Sequences of a piece; places of the last group without a sequence of their own take part, and are not kept. */
static size_t used_by(const struct sampling *s, int piece) {
    size_t left = s->count - first_of(s, piece);
    return left < s->group ? left : s->group;
}

static void start_group(void *context, int piece, struct lane *lane) {
    const struct sampling *s = context;
    const struct backend *ops = s->net->ops;
    struct group *g = &s->groups[piece];
    (void)lane; /* the decoder has its own */
    for (size_t i = 0; i < used_by(s, piece); i++) {
        struct random_stream stream = stream_of(s, first_of(s, piece) + i);
        g->host_tokens[i] = (int32_t)random_below(stream, 0, (size_t)s->net->config.model_vocab_size);
        for (size_t t = 1; t < s->time; t++) g->host_uniforms[t * s->group + i] = random_uniform(stream, t);
    }
    ops->upload(decoder_lane(g->decoder), g->tokens, g->host_tokens, s->group * sizeof *g->tokens);
    ops->upload(decoder_lane(g->decoder), g->uniforms, g->host_uniforms, s->time * s->group * sizeof *g->uniforms);
    decoder_reset(g->decoder);
}

static void fill_position(void *context) {
    struct group *g = context;
    const struct sampling *s = g->sampling;
    decoder_read(g->decoder, s->weights, s->repeats_on, g->tokens, s->time);
    decoder_draw(g->decoder, g->tokens, g->uniforms, s->time, s->temperature);
}

static void continue_group(void *context, int piece, struct lane *lane) {
    const struct sampling *s = context;
    struct group *g = &s->groups[piece];
    (void)lane;
    for (size_t t = s->from; t < s->to; t++)
        if (t == 1) /* not yet what is asked for each time: the decoder starts */
            fill_position(g);
        else
            s->net->ops->replay(decoder_lane(g->decoder), g->recording, fill_position, g);
}

static void keep_group(const struct sampling *s, int piece) {
    const struct group *g = &s->groups[piece];
    s->net->ops->download(decoder_lane(g->decoder), g->host_tokens, g->tokens,
                          s->time * s->group * sizeof *g->host_tokens);
    for (size_t i = 0; i < used_by(s, piece); i++)
        for (size_t t = 0; t < s->time; t++)
            s->tokens[(first_of(s, piece) + i) * s->time + t] = g->host_tokens[t * s->group + i];
}

/* --- all --------------------------------------------------------------------------------------------------------- */

static status report(const struct sampling *s) {
    size_t whole = (size_t)s->first_group * s->group * s->time, left = s->count - (size_t)s->first_group * s->group;
    size_t at_work = (size_t)s->side_by_side * s->group < left ? (size_t)s->side_by_side * s->group : left;
    size_t done = whole + at_work * s->from, total = s->count * s->time;
    if (!s->progress || !s->progress(s->progress_context, done, total)) return NULL;
    return status_new(STATUS_INTERRUPTED, "sampling stopped after %zu of %zu tokens", done, total);
}

static status run_groups(struct sampling *s, int groups) {
    const struct backend *ops = s->net->ops;
    ops->for_each(s->lanes, s->side_by_side, groups, start_group, s);
    for (s->from = 1; s->from < s->time; s->from = s->to) {
        s->to = s->from + POSITIONS < s->time ? s->from + POSITIONS : s->time;
        TRY(report(s));
        ops->for_each(s->lanes, s->side_by_side, groups, continue_group, s);
        for (int i = 0; i < groups; i++) TRY(ops->finish(decoder_lane(s->groups[i].decoder)));
    }
    for (int i = 0; i < groups; i++) keep_group(s, i);
    return NULL;
}

static status run(struct sampling *s) {
    TRY(prepare(s));
    for (s->first_group = 0; s->first_group < s->group_count; s->first_group += s->side_by_side) {
        int left = s->group_count - s->first_group;
        TRY(run_groups(s, left < s->side_by_side ? left : s->side_by_side));
    }
    return NULL;
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
    status failure = run(&s);
    release(&s);
    return failure;
}
