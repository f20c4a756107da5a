/* estimate: what a plan will take: seconds from stored rates of like stages, else from counted operations; memory; and
 * what its design can show. See plan_estimate.
 *
 * Counted work of a training: tokens x network_training_flops, plus Newton-Schulz on every Muon tensor of every step.
 * Of an evaluation: network_forward_flops for every token of every window. Of a quantisation: sampling, one forward
 * pass, the Hessians and GPTQ's updates, and compression of what is stored. */
#include <math.h>
#include <stdlib.h>

#include "harness/device.h"
#include "harness/measure.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/suite_families.h"
#include "kernels/clock.h"
#include "kernels/rates.h"
#include "model/quantize/quantize.h"

static const double measure_seconds = 0.1;

/* Reading, hashing and checking one stored weight, or writing it. */
static const double seconds_per_weight = 2e-8;

/* What a stage takes beside its work: four transactions and a file or two, each of which waits for the disk. */
static const double seconds_per_stage = 0.01;

/* What a training leaves, each of the weights' size: weights, averaged ones, and a checkpoint of these and moments. */
enum { COPIES_OF_A_TRAINING = 5 };

struct variant_work {
    double work[STAGE_KINDS];  /* of one stage of a kind */
    double optimizing;         /* part of the training's: Newton-Schulz */
    double sampling;           /* part of the quantisation's: token by token */
    double calls[STAGE_KINDS]; /* of for_each, one stage of a kind */
    double parameters;
    double stored; /* bytes that the artifact holds before compression */
};

/* --- counted operations ------------------------------------------------------------------------------------------- */

static double muon_flops(const struct network *net) {
    double sum = 0;
    for (int i = 0; i < net->parameters.count; i++) {
        const struct tensor *t = &net->parameters.tensors[i];
        if (t->optimizer != OPTIMIZER_MUON) continue;
        double low = fmin((double)t->shape[0], (double)t->shape[1]),
               high = fmax((double)t->shape[0], (double)t->shape[1]);
        sum += (double)net->config.optim_muon_iterations * (4 * low * low * high + 2 * low * low * low);
    }
    return sum;
}

static double training_work(const struct network *net) {
    const struct config *c = &net->config;
    double steps = (double)c->train_steps, repeated = steps - (double)schedule_recurrence_step(c);
    repeated = fmin(fmax(repeated, 0), steps);
    double per_token = (steps - repeated) * network_training_flops(net, false, net->time) +
                       repeated * network_training_flops(net, true, net->time);
    return (double)c->train_batch_tokens * per_token + steps * muon_flops(net);
}

/* That pass through the model, which in overlapping windows is more than are scored. */
static double evaluated_tokens(const struct network *net, const struct dataset *dataset) {
    const struct config *c = &net->config;
    double tokens = (double)dataset->validation.count;
    if (c->eval_tokens > 0) tokens = fmin(tokens, (double)c->eval_tokens);
    return c->eval_mode == EVAL_SLIDING ? tokens * (double)net->time / (double)c->eval_stride : tokens;
}

static double evaluation_work(const struct network *net, const struct dataset *dataset) {
    const struct config *c = &net->config;
    double tokens = evaluated_tokens(net, dataset);
    bool repeats = c->recurrence_layers.count > 0;
    double learning = c->eval_mode == EVAL_TTT ? (double)c->eval_ttt_epochs : 0;
    return tokens * (network_forward_flops(net, repeats, net->time) +
                     learning * network_training_flops(net, repeats, net->time));
}

static double calibration_tokens(const struct network *net) {
    const struct config *c = &net->config;
    bool calibrated = c->quant_method == METHOD_GPTQ && c->quant_calibration != CALIBRATION_NONE;
    return calibrated ? (double)c->quant_calibration_sequences * (double)net->time : 0;
}

static double sampling_work(const struct network *net) {
    if (net->config.quant_calibration != CALIBRATION_SELF) return 0;
    return calibration_tokens(net) * network_forward_flops(net, net->config.recurrence_layers.count > 0, net->time);
}

/* Calibration samples (through the decoder), runs once over what it sampled, and adds up x x^T for every linear. */
static double quantisation_work(const struct network *net) {
    const struct config *c = &net->config;
    double tokens = calibration_tokens(net);
    double sum = tokens * network_forward_flops(net, c->recurrence_layers.count > 0, net->time) + sampling_work(net);
    for (int i = 0; i < net->parameters.count; i++) {
        const struct tensor *t = &net->parameters.tensors[i];
        double rows = (double)t->shape[0], cols = (double)t->shape[1];
        sum += 4 * (double)t->count;
        if (t->linear && quantize_bits(c, t) && c->quant_method == METHOD_GPTQ)
            sum += tokens * 2 * cols * cols + cols * cols * cols + 2 * rows * cols * cols;
    }
    return sum;
}

/* Calls of for_each: shards, gradient tree, view, update and average of a step; a report's rounds of an evaluation;
 * every few positions of a sampling. */
static void count_calls(const struct network *net, double evaluated_tokens, double calls[STAGE_KINDS]) {
    enum { OF_A_STEP = 5, PARCELS_PER_LANE = 4, SEQUENCES = 8, POSITIONS = 16 };
    const struct config *c = &net->config;
    double lanes = net->ops->lane_count(), time = (double)net->time;
    calls[STAGE_TRAIN] = OF_A_STEP * (double)c->train_steps;
    calls[STAGE_EVALUATE] =
        1 + evaluated_tokens / (fmax((double)c->train_slice_tokens, time) * lanes * PARCELS_PER_LANE);
    double groups = ceil((double)c->quant_calibration_sequences / SEQUENCES / lanes);
    calls[STAGE_QUANTISE] = sampling_work(net) > 0 ? groups * time / POSITIONS : 0;
}

static status stored_bytes(const struct network *net, double *bytes) {
    struct quantized_model model;
    TRY(quantized_model_allocate(&model, net));
    *bytes = (double)quantized_model_bytes(&model);
    quantized_model_free(&model);
    return NULL;
}

static status count_variant(const struct plan *plan, int variant, const struct dataset *dataset,
                            struct variant_work *out) {
    struct network net;
    const struct config *config = &plan->suite->variants[variant].config;
    TRY(network_create(&net, config, plan->ops, 1, (size_t)config->train_sequence));
    out->parameters = (double)net.parameters.elements;
    out->work[STAGE_TRAIN] = training_work(&net);
    out->optimizing = (double)config->train_steps * muon_flops(&net);
    out->sampling = sampling_work(&net);
    out->work[STAGE_AVERAGE] = out->parameters;
    out->work[STAGE_QUANTISE] = quantisation_work(&net);
    out->work[STAGE_EVALUATE] = evaluation_work(&net, dataset);
    count_calls(&net, evaluated_tokens(&net, dataset), out->calls);
    status s = stored_bytes(&net, &out->stored);
    network_destroy(&net);
    return s;
}

/* --- seconds ------------------------------------------------------------------------------------------------------ */

/* What a job has of the machine. */
struct share {
    int jobs;
    int lanes;      /* of each job */
    double slower;  /* than one that has every lane, or a device, for itself */
    double crowded; /* jobs for each core, at least 1: what the work of one thread slows down by */
};

static struct share share_of(const struct backend *ops, int jobs, int devices) {
    int cores = ops->lane_count();
    if (ops->device_memory) return (struct share){jobs, cores, devices > 1 ? ceil((double)jobs / devices) : jobs, 1};
    return (struct share){jobs, jobs < cores ? cores / jobs : 1, jobs, fmax(1, (double)jobs / cores)};
}

static status predict(struct plan *plan, struct store *store, const struct share *share,
                      const struct variant_work *works) {
    for (int i = 0; i < plan->stage_count; i++) {
        struct plan_stage *stage = &plan->stages[i];
        stage->work = works[stage->variant].work[stage->kind];
        if (stage->state == STAGE_DONE && isfinite(stage->seconds)) {
            stage->measured = true;
            continue;
        }
        stage->seconds = NAN;
        if (store)
            TRY(store_predict_seconds(store, stage->kind, plan->ops->name, share->lanes, stage->work, &stage->seconds));
        stage->measured = isfinite(stage->seconds);
        stage->seconds += seconds_per_stage;
    }
    return NULL;
}

static double work_seconds(enum stage_kind kind, const struct variant_work *w, const struct phase_rates *rates,
                           const struct share *share) {
    switch (kind) {
    case STAGE_TRAIN:
        return share->slower * ((w->work[kind] - w->optimizing) / rates->training + w->optimizing / rates->optimizer) +
               share->crowded * w->parameters * (1 / rates->initialised + COPIES_OF_A_TRAINING * seconds_per_weight);
    case STAGE_QUANTISE:
        return share->slower * (w->sampling / rates->decoding + (w->work[kind] - w->sampling) / rates->forward) +
               share->crowded * w->stored / rates->compressed;
    case STAGE_EVALUATE:
        return share->slower * w->work[kind] / rates->forward + share->crowded * w->parameters * seconds_per_weight;
    default:
        return share->crowded * w->parameters * seconds_per_weight;
    }
}

/* One lane waits for no other. */
static double seconds_of(enum stage_kind kind, const struct variant_work *w, const struct phase_rates *rates,
                         const struct share *share) {
    double waiting = share->lanes > 1 ? w->calls[kind] * rates->call_seconds : 0;
    return work_seconds(kind, w, rates, share) + waiting + seconds_per_stage;
}

/* What this machine, or its device, does now. */
struct rates_now {
    double product;
    struct phase_rates phases;
};

struct measuring {
    const struct plan *plan;
    int jobs;
    size_t device_bytes; /* what the suite needs of a device's memory */
};

static status measure_now(void *context, void *result) {
    const struct measuring *measuring = context;
    const struct plan *plan = measuring->plan;
    struct rates_now *now = result;
    int baseline = suite_variant_find(plan->suite, plan->suite->design.baseline);
    if (plan->ops->device_memory && plan->ops->memory_left() < measuring->device_bytes)
        return status_new(STATUS_SYSTEM, "the suite does not fit the device");
    now->product = measured_product_rate(plan->ops, plan->ops->lane_count(), measure_seconds);
    TRY(measure_phases(&plan->suite->variants[baseline].config, plan->ops, measuring->jobs, now->product,
                       &now->phases));
    /* A limit is not what a moment with other work on the cores allowed. */
    now->product = fmax(now->product, measured_product_rate(plan->ops, plan->ops->lane_count(), measure_seconds));
    return NULL;
}

/* Of a device that is not there, or that the suite does not fit, no speed is known. */
static status measure_there(const struct plan *plan, int jobs, size_t device_bytes, struct rates_now *now) {
    struct measuring measuring = {plan, jobs, device_bytes};
    if (!plan->ops->device_memory) return measure_now(&measuring, now);
    status s = device_apart(plan->ops, measure_now, &measuring, now, sizeof *now);
    if (s) *now = (struct rates_now){NAN, {NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0}};
    status_free(s);
    return NULL;
}

static status measure_once(struct plan *plan, struct plan_estimate *e) {
    if (!plan->rates) {
        double start = clock_seconds();
        struct rates_now now;
        TRY(measure_there(plan, e->jobs, e->memory.device, &now));
        plan->rates = malloc(sizeof now);
        if (!plan->rates) return status_new(STATUS_SYSTEM, "out of memory");
        *plan->rates = now;
        e->seconds_timing = clock_seconds() - start;
    }
    e->gflops = plan->rates->product / 1e9;
    e->efficiency = plan->rates->phases.training / plan->rates->product;
    e->slice_tokens = plan->rates->phases.tokens;
    return NULL;
}

/* Stages without a stored like: a little of each phase of the baseline's model is done now. */
static status measure_missing(struct plan *plan, const struct share *share, const struct variant_work *works,
                              struct plan_estimate *e) {
    for (int i = 0; i < plan->stage_count; i++) {
        struct plan_stage *stage = &plan->stages[i];
        if (stage->measured) continue;
        if (e->measured) TRY(measure_once(plan, e));
        e->measured = false;
        stage->seconds = seconds_of(stage->kind, &works[stage->variant], &plan->rates->phases, share);
    }
    return NULL;
}

/* --- totals ------------------------------------------------------------------------------------------------------- */

static double least_of(const double *values, int count, int *at) {
    *at = 0;
    for (int i = 1; i < count; i++)
        if (values[i] < values[*at]) *at = i;
    return values[*at];
}

/* Until the last job has ended, when each takes the next run as soon as it is free; what runs share is done in the
 * first of them. */
static status finish_time(const struct plan *plan, int jobs, bool with_done, double *seconds) {
    double *ends = calloc((size_t)jobs, sizeof *ends);
    bool *counted = calloc((size_t)plan->stage_count + 1, sizeof *counted);
    *seconds = 0;
    for (int r = 0, job; ends && counted && r < plan->run_count; r++) {
        double end = least_of(ends, jobs, &job);
        for (int part = 0; part < PART_COUNT; part++) {
            int s = plan->runs[r].stages[part];
            if (!counted[s] && (with_done || plan->stages[s].state != STAGE_DONE)) end += plan->stages[s].seconds;
            counted[s] = true;
        }
        ends[job] = end;
        *seconds = end > *seconds || isnan(end) ? end : *seconds;
    }
    status failed = ends && counted ? NULL : status_new(STATUS_SYSTEM, "out of memory");
    free(ends);
    free(counted);
    return failed;
}

int plan_runs_done(const struct plan *plan) {
    int runs = 0;
    for (int r = 0; r < plan->run_count; r++) {
        int done = 0;
        for (int part = 0; part < PART_COUNT; part++)
            done += plan->stages[plan->runs[r].stages[part]].state == STAGE_DONE;
        runs += done == PART_COUNT;
    }
    return runs;
}

static void count_stages(const struct plan *plan, struct plan_estimate *e) {
    for (int i = 0; i < plan->stage_count; i++) {
        const struct plan_stage *stage = &plan->stages[i];
        e->stages[stage->kind]++;
        e->done[stage->kind] += stage->state == STAGE_DONE;
    }
    e->runs = plan->run_count;
    e->runs_done = plan_runs_done(plan);
}

/* What the design could show at best, whatever the numbers turn out to be. */
static void judge_design(const struct suite *suite, struct plan_estimate *e) {
    const struct design *d = &suite->design;
    e->family = suite_largest_family(suite);
    e->attainable_p = attainable_p(d->test, (size_t)suite->seed_count);
    e->needed_seeds = e->family > 0 ? needed_seeds(d->test, d->correction, d->alpha, (size_t)e->family) : 0;
    e->can_be_significant = e->family == 0 || (e->needed_seeds && e->needed_seeds <= (size_t)suite->seed_count);
}

/* A simulated stage is a few rows of the database. */
static status estimate_simulated(struct plan *plan) {
    for (int i = 0; i < plan->stage_count; i++)
        if (plan->stages[i].state != STAGE_DONE) plan->stages[i].seconds = SIMULATED_STAGE_SECONDS;
    return NULL;
}

static status estimate(struct plan *plan, struct store *store, const struct share *share, struct variant_work *works,
                       struct plan_estimate *e) {
    if (suite_simulated(plan->suite)) return estimate_simulated(plan);
    for (int v = 0; v < plan->suite->variant_count; v++) {
        const struct dataset *dataset = datasets_find(plan->datasets, plan->suite->variants[v].config.data_name);
        TRY(count_variant(plan, v, dataset, &works[v]));
    }
    TRY(plan_memory(plan, &e->memory));
    TRY(predict(plan, store, share, works));
    TRY(measure_missing(plan, share, works, e));
    e->memory.process = memory_of_process(plan->ops);
    return NULL;
}

status plan_memory(const struct plan *plan, struct memory_use *out) {
    *out = (struct memory_use){0};
    for (int v = 0; v < plan->suite->variant_count; v++) {
        const struct config *config = &plan->suite->variants[v].config;
        TRY(memory_of_stages(config, plan->ops, datasets_find(plan->datasets, config->data_name), out));
    }
    return NULL;
}

static status add_up(const struct plan *plan, struct plan_estimate *e) {
    count_stages(plan, e);
    judge_design(plan->suite, e);
    TRY(finish_time(plan, e->jobs, true, &e->seconds_total));
    TRY(finish_time(plan, e->jobs, false, &e->seconds_left));
    e->seconds_total += e->seconds_timing;
    e->seconds_left += e->seconds_timing;
    return NULL;
}

status plan_estimate(struct plan *plan, struct store *store, int jobs, int devices, struct plan_estimate *out) {
    struct variant_work *works = calloc((size_t)plan->suite->variant_count, sizeof *works);
    const struct share share = share_of(plan->ops, jobs, devices);
    *out = (struct plan_estimate){.jobs = jobs, .measured = true, .gflops = NAN, .efficiency = NAN};
    if (!works) return status_new(STATUS_SYSTEM, "out of memory");
    status s = estimate(plan, store, &share, works, out);
    if (!s) s = add_up(plan, out);
    free(works);
    return s;
}
