/* optimizer: Muon and Adam over the tensors; see optimizer.h. */
#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum { BLOCK_ALIGNMENT = 16 }; /* reals: in float32, each tensor of `second` starts on a multiple of 64 bytes */

/* Products of Newton-Schulz are cubic, Adam is linear; only the order of magnitude matters. */
static double cost(const struct tensor *tensor) {
    if (tensor->optimizer != OPTIMIZER_MUON) return (double)tensor->count;
    size_t least = tensor->shape[0] < tensor->shape[1] ? tensor->shape[0] : tensor->shape[1];
    return (double)tensor->count * (double)least;
}

static int by_descending_cost(const void *a, const void *b, void *tensors) {
    int x = *(const int *)a, y = *(const int *)b;
    double left = cost((const struct tensor *)tensors + x), right = cost((const struct tensor *)tensors + y);
    if (left != right) return left > right ? -1 : 1;
    return x - y;
}

static void lay_out(struct optimizer *o) {
    for (int i = 0; i < o->parameters->count; i++) {
        const struct tensor *tensor = &o->parameters->tensors[i];
        o->order[i] = i;
        if (tensor->optimizer == OPTIMIZER_MUON) {
            size_t bytes = o->ops->newton_schulz_scratch(1, tensor->shape[0], tensor->shape[1]);
            if (bytes > o->scratch_bytes) o->scratch_bytes = bytes;
        } else {
            o->second_offset[i] = o->second_total;
            o->second_total += (tensor->count + BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT * BLOCK_ALIGNMENT;
        }
    }
    qsort_r(o->order, (size_t)o->parameters->count, sizeof *o->order, by_descending_cost, o->parameters->tensors);
}

status optimizer_create(struct optimizer *optimizer, const struct config *config, const struct parameters *parameters,
                        const struct backend *ops) {
    size_t count = (size_t)parameters->count;
    *optimizer = (struct optimizer){.config = config, .parameters = parameters, .ops = ops};
    optimizer->order = calloc(count, sizeof *optimizer->order);
    optimizer->second_offset = calloc(count, sizeof *optimizer->second_offset);
    if (!optimizer->order || !optimizer->second_offset) {
        optimizer_destroy(optimizer);
        return status_new(STATUS_SYSTEM, "optimiser: out of memory");
    }
    lay_out(optimizer);
    return NULL;
}

void optimizer_destroy(struct optimizer *optimizer) {
    free(optimizer->order);
    free(optimizer->second_offset);
    *optimizer = (struct optimizer){0};
}

double muon_momentum_at(const struct config *config, int64_t step) {
    if (step >= config->optim_muon_momentum_steps) return config->optim_muon_momentum;
    double passed = (double)step / (double)config->optim_muon_momentum_steps;
    return config->optim_muon_momentum_start +
           passed * (config->optim_muon_momentum - config->optim_muon_momentum_start);
}

struct job {
    const struct optimizer *optimizer;
    const struct optimizer_step *step;
};

static void muon(const struct job *job, const struct tensor *tensor, struct lane *lane) {
    const struct config *config = job->optimizer->config;
    const struct backend *ops = job->optimizer->ops;
    const struct optimizer_step *s = job->step;
    real *update = s->update + tensor->offset;
    const size_t rows = tensor->shape[0], cols = tensor->shape[1];
    ops->muon_momentum(lane, update, s->first + tensor->offset, s->gradients + tensor->offset, tensor->count,
                       muon_momentum_at(config, s->step));
    if (config->optim_row_norm) ops->normalize_rows(lane, update, rows, cols);
    ops->newton_schulz(lane, &update, 1, rows, cols, (int)config->optim_muon_iterations);
    ops->muon_apply(lane, s->weights + tensor->offset, update, tensor->count, config->optim_muon_rate * s->multiplier,
                    config->optim_muon_decay, rows > cols ? sqrt((double)rows / (double)cols) : 1.0);
}

static void adam(const struct job *job, int index, const struct tensor *tensor, struct lane *lane) {
    const struct config *config = job->optimizer->config;
    const struct optimizer_step *s = job->step;
    double rate =
        tensor->optimizer == OPTIMIZER_ADAM_EMBEDDING ? config->optim_embedding_rate : config->optim_adam_rate;
    struct adam_settings settings = {.rate = rate * s->multiplier,
                                     .beta1 = config->optim_adam_beta1,
                                     .beta2 = config->optim_adam_beta2,
                                     .epsilon = config->optim_adam_epsilon,
                                     .step = s->step + 1};
    job->optimizer->ops->adam_step(lane, s->weights + tensor->offset, s->first + tensor->offset,
                                   s->second + job->optimizer->second_offset[index], s->gradients + tensor->offset,
                                   tensor->count, &settings);
}

static void update_tensor(void *context, int piece, struct lane *lane) {
    const struct job *job = context;
    int index = job->optimizer->order[piece];
    const struct tensor *tensor = &job->optimizer->parameters->tensors[index];
    if (tensor->optimizer == OPTIMIZER_MUON)
        muon(job, tensor, lane);
    else
        adam(job, index, tensor, lane);
}

void optimizer_apply(const struct optimizer *optimizer, const struct optimizer_step *step) {
    struct job job = {optimizer, step};
    optimizer->ops->for_each(step->lanes, step->lane_count, optimizer->parameters->count, update_tensor, &job);
}

static double sum_of_squares(const real *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

double clip_gradients(const struct parameters *parameters, real *gradients, double limit) {
    double sum = 0;
    for (int i = 0; i < parameters->count; i++)
        sum += sum_of_squares(gradients + parameters->tensors[i].offset, parameters->tensors[i].count);
    double norm = sqrt(sum);
    if (!(norm > limit)) return norm;
    const real factor = (real)(limit / norm);
    for (size_t i = 0; i < parameters->total; i++) gradients[i] *= factor;
    return norm;
}
