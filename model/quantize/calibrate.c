/* calibrate: gathers the Hessians of all layers in forward passes over the calibration sequences.
 *
 * Sequences run in slices; slice k adds into partial sum k mod P, in order, and at the end the partial sums are added
 * as a binary tree. P depends on the model's size alone, so the bits do not depend on the number of lanes. */
#include "model/quantize/calibrate.h"

#include <stdlib.h>

#include "model/decoder.h"
#include "model/network_shapes.h"

enum { PARTIALS = 8 };
#define PARTIAL_BYTES_LIMIT ((size_t)1 << 30) /* of all partial sums together; fewer of them beyond */

struct job {
    struct calibration *calibration;
    struct network net; /* as large as a slice */
    struct workspace *workspaces[PARTIALS];
    struct lane lanes[PARTIALS];
    int lane_count, partials;
    double **partial; /* (partials, slots) */
    double **sums;    /* (partials) room for one slot's, where the backend's memory is not the host's; else NULL */
    real *effective;  /* what the model calculates with */
    const real *weights;
    int32_t *tokens, *ids; /* (sequences, time) the host's and the backend's */
    size_t time, slice_sequences, slices;
    size_t round;
};

/* --- which tensors share an H ------------------------------------------------------------------------------------ */

/* The tensor whose input is taken for this one: k and v read what q reads. */
static const struct tensor *input_owner(const struct parameters *parameters, const struct tensor *tensor) {
    bool shares = tensor->role == ROLE_ATTN_K || tensor->role == ROLE_ATTN_V;
    return shares ? parameters_get(parameters, tensor->layer, ROLE_ATTN_Q) : tensor;
}

static void assign_slots(struct calibration *c, const struct network *net) {
    const struct parameters *p = &net->parameters;
    for (int i = 0; i < p->count; i++) c->slot[i] = -1;
    for (int i = 0; i < p->count; i++) {
        const struct tensor *tensor = &p->tensors[i];
        if (!tensor->linear || quantize_bits(&net->config, tensor) == 0) continue;
        int owner = (int)(input_owner(p, tensor) - p->tensors);
        if (c->slot[owner] < 0) {
            c->slot_cols[c->slot_count] = tensor->shape[1];
            c->slot[owner] = c->slot_count++;
        }
        c->slot[i] = c->slot[owner];
    }
}

static status make_slots(struct calibration *c, const struct network *net) {
    size_t count = (size_t)net->parameters.count;
    c->slot = calloc(count, sizeof *c->slot);
    c->slot_cols = calloc(count, sizeof *c->slot_cols);
    if (!c->slot || !c->slot_cols) return status_new(STATUS_SYSTEM, "calibration: out of memory");
    assign_slots(c, net);
    return NULL;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static size_t hessian_bytes(const struct calibration *c) {
    size_t bytes = 0;
    for (int i = 0; i < c->slot_count; i++) bytes += c->slot_cols[i] * c->slot_cols[i] * sizeof(double);
    return bytes;
}

static int partial_count(const struct calibration *c, size_t slices) {
    int count = PARTIALS;
    while (count > 1 && ((size_t)count > slices || (size_t)count * hessian_bytes(c) > PARTIAL_BYTES_LIMIT)) count /= 2;
    return count;
}

static bool on_device(const struct job *job) { return job->net.ops->device_memory; }

/* Sums of a device are added up on the host, slot by slot; elsewhere the first partial sums become the total. */
static void lay_out_sums(struct job *job, struct arena *host) {
    struct calibration *c = job->calibration;
    size_t most = 0;
    c->hessians = arena_take(host, (size_t)c->slot_count * sizeof *c->hessians);
    for (int i = 0; i < c->slot_count; i++) {
        size_t count = c->slot_cols[i] * c->slot_cols[i];
        double *h = arena_take(host, count * sizeof *h);
        if (c->hessians) c->hessians[i] = h;
        if (count > most) most = count;
    }
    job->sums = arena_take(host, (size_t)job->partials * sizeof *job->sums);
    for (int i = 0; i < job->partials; i++) {
        double *sum = arena_take(host, most * sizeof *sum);
        if (job->sums) job->sums[i] = sum;
    }
}

static void lay_out_host(struct job *job, struct arena *host) {
    struct calibration *c = job->calibration;
    job->tokens = arena_take(host, c->sequences * job->time * sizeof *job->tokens);
    job->partial = arena_take(host, (size_t)(job->partials * c->slot_count) * sizeof *job->partial);
    if (on_device(job))
        lay_out_sums(job, host);
    else
        c->hessians = job->partial;
}

/* The CPU's op needs no scratch; a device's lane has it for the largest of its calls. */
static void lay_out_lanes(struct job *job, struct arena *arena) {
    size_t bytes = 0;
    for (int slot = 0; on_device(job) && slot < job->calibration->slot_count; slot++) {
        size_t one = job->net.ops->gptq_scratch(job->slice_sequences * job->time, job->calibration->slot_cols[slot]);
        if (one > bytes) bytes = one;
    }
    for (int i = 0; i < job->lane_count; i++) job->lanes[i] = (struct lane){i, arena_take(arena, bytes), bytes};
}

/* After lay_out_host. */
static void lay_out(struct job *job, struct arena *arena) {
    struct calibration *c = job->calibration;
    job->ids = arena_take(arena, c->sequences * job->time * sizeof *job->ids);
    job->effective = arena_reals(arena, network_weight_reals(&job->net));
    for (int i = 0; i < job->partials * c->slot_count; i++) {
        size_t cols = c->slot_cols[i % c->slot_count];
        double *h = arena_take(arena, cols * cols * sizeof *h);
        if (h) job->partial[i] = h;
    }
    lay_out_lanes(job, arena);
}

/* All that is needed to know the sizes. */
static status size_up(struct job *job, const struct network *net, size_t *bytes, size_t *host_bytes) {
    struct calibration *c = job->calibration;
    job->time = (size_t)net->config.train_sequence;
    size_t windows = (size_t)slice_tokens_of(&net->config, net->ops->device_memory) / job->time;
    job->slice_sequences = windows < 1 ? 1 : windows > c->sequences ? c->sequences : windows;
    job->slices = (c->sequences + job->slice_sequences - 1) / job->slice_sequences;
    job->partials = partial_count(c, job->slices);
    int lanes = net->ops->lane_count();
    job->lane_count = lanes < job->partials ? lanes : job->partials;
    TRY(network_create(&job->net, &net->config, net->ops, job->slice_sequences, job->time));
    struct arena counting = {.ops = net->ops}, host = {0};
    lay_out_host(job, &host);
    lay_out(job, &counting);
    *bytes = counting.used;
    *host_bytes = host.used;
    return NULL;
}

static status prepare(struct job *job, const struct network *net) {
    struct calibration *c = job->calibration;
    size_t bytes, host_bytes;
    TRY(size_up(job, net, &bytes, &host_bytes));
    TRY(arena_create(&c->host, host_bytes, "calibration"));
    lay_out_host(job, &c->host);
    TRY(arena_create_for(&c->arena, net->ops, bytes, "calibration"));
    lay_out(job, &c->arena);
    for (int i = 0; i < job->lane_count; i++) TRY(workspace_create(&job->workspaces[i], &job->net, false, i));
    network_effective(&job->net, workspace_lane(job->workspaces[0]), 1, job->effective, job->weights, VIEW_MASTER);
    job->weights = job->effective;
    return NULL;
}

static void release(struct job *job) {
    for (int i = 0; i < PARTIALS; i++)
        if (job->workspaces[i]) workspace_destroy(job->workspaces[i]);
    if (job->net.ops) network_destroy(&job->net);
}

/* --- forward passes ---------------------------------------------------------------------------------------------- */

struct tap {
    const struct job *job;
    struct lane *lane;
    double **hessians; /* (slots) of one partial sum */
};

static void accumulate(void *context, int tensor, const act *x, size_t rows, size_t cols) {
    const struct tap *tap = context;
    const struct calibration *c = tap->job->calibration;
    int slot = c->slot[tensor];
    const struct parameters *p = &tap->job->net.parameters;
    if (slot < 0 || input_owner(p, &p->tensors[tensor]) != &p->tensors[tensor]) return;
    tap->job->net.ops->hessian_accumulate(tap->lane, tap->hessians[slot], x, rows, cols);
}

static void run_slice(void *context, int piece, struct lane *lane) {
    struct job *job = context;
    size_t slice = job->round * (size_t)job->partials + (size_t)piece;
    if (slice >= job->slices) return;
    size_t first = slice * job->slice_sequences, left = job->calibration->sequences - first;
    struct workspace *ws = job->workspaces[lane->index];
    struct tap tap = {job, lane, job->partial + piece * job->calibration->slot_count};
    struct forward_request request = {.weights = job->weights,
                                      .ids = job->ids + first * job->time,
                                      .sequences = left < job->slice_sequences ? left : job->slice_sequences,
                                      .time = job->time,
                                      .repeats_on = true,
                                      .temperature = 1,
                                      .tap = accumulate,
                                      .tap_context = &tap};
    network_forward(&job->net, ws, &request);
}

/* The partial sums of a slot, in the host's memory. */
static void host_sums(struct job *job, int slot, double *sums[PARTIALS]) {
    const struct calibration *c = job->calibration;
    for (int i = 0; i < job->partials; i++) {
        sums[i] = on_device(job) ? job->sums[i] : job->partial[i * c->slot_count + slot];
        if (on_device(job))
            job->net.ops->download(job->lanes, sums[i], job->partial[i * c->slot_count + slot],
                                   c->slot_cols[slot] * c->slot_cols[slot] * sizeof **sums);
    }
}

static void add_up(struct job *job) {
    struct calibration *c = job->calibration;
    for (int slot = 0; slot < c->slot_count; slot++) {
        size_t count = c->slot_cols[slot] * c->slot_cols[slot];
        double *sums[PARTIALS] = {0};
        host_sums(job, slot, sums);
        for (int stride = 1; stride < job->partials; stride *= 2)
            for (int i = 0; i < job->partials; i += 2 * stride)
                for (size_t k = 0; k < count; k++) sums[i][k] += sums[i + stride][k];
        for (size_t k = 0; k < count; k++) c->hessians[slot][k] = sums[0][k] / (double)c->sequences;
    }
}

static status run_passes(struct job *job, quantize_progress progress, void *context) {
    size_t rounds = (job->slices + (size_t)job->partials - 1) / (size_t)job->partials;
    for (job->round = 0; job->round < rounds; job->round++) {
        if (progress && progress(context, "calibrating", (double)job->round / (double)rounds))
            return status_new(STATUS_INTERRUPTED, "stopped while calibrating");
        job->net.ops->for_each(job->lanes, job->lane_count, job->partials, run_slice, job);
    }
    add_up(job);
    return job->net.ops->finish(job->lanes);
}

/* --- the tokens -------------------------------------------------------------------------------------------------- */

static status take_from_train(struct job *job, const struct dataset *dataset, uint64_t seed) {
    if (!dataset)
        return status_new(STATUS_USAGE, "quant.calibration = \"train\" needs the training text, which is not open");
    size_t count = job->calibration->sequences;
    int32_t *targets = malloc(count * job->time * sizeof *targets); /* batch_fill wants a place for them */
    if (!targets) return status_new(STATUS_SYSTEM, "calibration: out of memory");
    struct batch_plan plan;
    status s = batch_plan_create(&plan, &dataset->train, job->time, count, DATA_SHUFFLED, seed);
    if (!s) {
        batch_fill(&plan, 0, job->tokens, targets);
        batch_plan_destroy(&plan);
    }
    free(targets);
    return s;
}

struct reporter {
    quantize_progress progress;
    void *context;
};

static bool report_sampling(void *context, size_t done, size_t total) {
    const struct reporter *to = context;
    return to->progress && to->progress(to->context, "sampling", (double)done / (double)total);
}

static status gather_tokens(struct job *job, const struct dataset *dataset, uint64_t seed, struct reporter *to) {
    const struct config *config = &job->net.config;
    if (config->quant_calibration == CALIBRATION_TRAIN) return take_from_train(job, dataset, seed);
    return decoder_sample(&job->net, job->weights, true, job->calibration->sequences, job->time,
                          config->quant_calibration_temperature, seed, report_sampling, to, job->tokens);
}

static status run(struct job *job, const struct network *net, const struct dataset *dataset, uint64_t seed,
                  quantize_progress progress, void *context) {
    TRY(make_slots(job->calibration, net));
    if (job->calibration->slot_count == 0) return NULL;
    TRY(prepare(job, net));
    TRY(gather_tokens(job, dataset, seed, &(struct reporter){progress, context}));
    job->net.ops->upload(job->lanes, job->ids, job->tokens, job->calibration->sequences * job->time * sizeof *job->ids);
    return run_passes(job, progress, context);
}

status calibrate(const struct network *net, const real *weights, const struct dataset *dataset, uint64_t seed,
                 quantize_progress progress, void *context, struct calibration *out) {
    *out = (struct calibration){.sequences = (size_t)net->config.quant_calibration_sequences};
    struct job job = {.calibration = out, .weights = weights};
    status s = run(&job, net, dataset, seed, progress, context);
    release(&job);
    if (s) calibration_free(out);
    return s;
}

void calibration_free(struct calibration *calibration) {
    arena_destroy(&calibration->arena);
    arena_destroy(&calibration->host);
    free(calibration->slot);
    free(calibration->slot_cols);
    *calibration = (struct calibration){0};
}

static status measure(struct job *job, const struct network *net, size_t *peak, size_t *kept) {
    size_t host;
    TRY(make_slots(job->calibration, net));
    *peak = *kept = 0;
    if (job->calibration->slot_count == 0) return NULL;
    TRY(size_up(job, net, kept, &host));
    if (!on_device(job)) *kept += host;
    *peak = *kept + (size_t)job->lane_count * workspace_bytes(&job->net, false);
    if (net->config.quant_calibration == CALIBRATION_SELF)
        *peak += decoder_sample_memory(&job->net, job->calibration->sequences, job->time);
    return NULL;
}

status calibration_memory(const struct network *net, size_t *peak, size_t *kept) {
    struct calibration calibration = {.sequences = (size_t)net->config.quant_calibration_sequences};
    struct job job = {.calibration = &calibration};
    status s = measure(&job, net, peak, kept);
    release(&job);
    calibration_free(&calibration);
    return s;
}

const double *calibration_hessian(const struct calibration *calibration, int tensor) {
    if (!calibration->hessians || calibration->slot[tensor] < 0) return NULL;
    return calibration->hessians[calibration->slot[tensor]];
}
