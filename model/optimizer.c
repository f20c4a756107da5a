/* optimizer: Muon and Adam over the tensors; see optimizer.h. */
#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum {
    BLOCK_ALIGNMENT = 16, /* reals: in float32, each tensor of `second` starts on a multiple of 64 bytes */
    MOST_TOGETHER = 64    /* matrices of one piece */
};

/* Products of Newton-Schulz are cubic, Adam is linear; only the order of magnitude matters. */
static double cost(const struct tensor *tensor) {
    if (tensor->optimizer != OPTIMIZER_MUON) return (double)tensor->count;
    size_t least = tensor->shape[0] < tensor->shape[1] ? tensor->shape[0] : tensor->shape[1];
    return (double)tensor->count * (double)least;
}

static int by_descending_cost(const void *a, const void *b, void *tensors) {
    int x = *(const int *)a, y = *(const int *)b;
    const struct tensor *left = (const struct tensor *)tensors + x, *right = (const struct tensor *)tensors + y;
    if (cost(left) != cost(right)) return cost(left) > cost(right) ? -1 : 1;
    if (left->shape[0] != right->shape[0]) return left->shape[0] > right->shape[0] ? -1 : 1;
    return x - y;
}

static bool go_together(const struct tensor *a, const struct tensor *b) {
    return a->optimizer == OPTIMIZER_MUON && b->optimizer == OPTIMIZER_MUON && a->shape[0] == b->shape[0] &&
           a->shape[1] == b->shape[1];
}

static const struct tensor *tensor_at(const struct optimizer *o, int place) {
    return &o->parameters->tensors[o->order[place]];
}

static void cut_pieces(struct optimizer *o) {
    int most = o->ops->batch_most < MOST_TOGETHER ? (int)o->ops->batch_most : MOST_TOGETHER, first = 0;
    for (int i = 0; i < o->parameters->count; i++) {
        if (i && i - first < most && go_together(tensor_at(o, first), tensor_at(o, i))) continue;
        first = o->pieces[o->piece_count++] = i;
    }
    o->pieces[o->piece_count] = o->parameters->count;
}

static void measure_scratch(struct optimizer *o) {
    for (int piece = 0; piece < o->piece_count; piece++) {
        const struct tensor *tensor = tensor_at(o, o->pieces[piece]);
        if (tensor->optimizer != OPTIMIZER_MUON) continue;
        size_t batch = (size_t)(o->pieces[piece + 1] - o->pieces[piece]);
        size_t bytes = o->ops->newton_schulz_scratch(batch, tensor->shape[0], tensor->shape[1]);
        size_t rows = o->ops->rows_scratch(tensor->shape[0], tensor->shape[1]);
        if (bytes < rows) bytes = rows;
        if (bytes > o->scratch_bytes) o->scratch_bytes = bytes;
    }
}

/* Each piece, the costliest first, goes to the rank that has least to do so far. */
static void share_out(struct optimizer *o, double *load) {
    for (int piece = 0; piece < o->piece_count; piece++) {
        int least = 0;
        for (int rank = 1; rank < o->ranks; rank++)
            if (load[rank] < load[least]) least = rank;
        for (int place = o->pieces[piece]; place < o->pieces[piece + 1]; place++) {
            o->owner[o->order[place]] = least;
            load[least] += cost(tensor_at(o, place));
        }
    }
}

static size_t aligned(size_t count) { return (count + BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT * BLOCK_ALIGNMENT; }

/* One rank alone has first moments where the weights stand. */
static void place_moments(struct optimizer *o) {
    for (int i = 0; i < o->parameters->count; i++) {
        const struct tensor *tensor = &o->parameters->tensors[i];
        bool own = o->owner[i] == o->rank, adam = tensor->optimizer != OPTIMIZER_MUON;
        o->first_offset[i] = o->ranks == 1 ? tensor->offset : o->first_total;
        o->second_offset[i] = o->second_total;
        o->second_whole[i] = o->second_whole_total;
        if (own) o->first_total += aligned(tensor->count);
        if (own && adam) o->second_total += aligned(tensor->count);
        if (adam) o->second_whole_total += aligned(tensor->count);
    }
    if (o->ranks == 1) o->first_total = o->parameters->total;
}

static void lay_out(struct optimizer *o) {
    double load[OPTIMIZER_MOST_RANKS] = {0};
    for (int i = 0; i < o->parameters->count; i++) o->order[i] = i;
    qsort_r(o->order, (size_t)o->parameters->count, sizeof *o->order, by_descending_cost, o->parameters->tensors);
    cut_pieces(o);
    share_out(o, load);
    place_moments(o);
    measure_scratch(o);
}

status optimizer_create(struct optimizer *optimizer, const struct config *config, const struct parameters *parameters,
                        const struct backend *ops, int rank, int ranks) {
    size_t count = (size_t)parameters->count;
    *optimizer =
        (struct optimizer){.config = config, .parameters = parameters, .ops = ops, .rank = rank, .ranks = ranks};
    optimizer->order = calloc(count, sizeof *optimizer->order);
    optimizer->pieces = calloc(count + 1, sizeof *optimizer->pieces);
    optimizer->owner = calloc(count, sizeof *optimizer->owner);
    optimizer->first_offset = calloc(3 * count, sizeof *optimizer->first_offset);
    if (!optimizer->order || !optimizer->pieces || !optimizer->owner || !optimizer->first_offset) {
        optimizer_destroy(optimizer);
        return status_new(STATUS_SYSTEM, "optimiser: out of memory");
    }
    optimizer->second_offset = optimizer->first_offset + count;
    optimizer->second_whole = optimizer->second_offset + count;
    lay_out(optimizer);
    return NULL;
}

void optimizer_destroy(struct optimizer *optimizer) {
    free(optimizer->order);
    free(optimizer->pieces);
    free(optimizer->owner);
    free(optimizer->first_offset);
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

/* Muon's directions of one tensor, before they are made orthogonal. */
static real *direction(const struct job *job, int index, struct lane *lane) {
    const struct tensor *tensor = &job->optimizer->parameters->tensors[index];
    const struct config *config = job->optimizer->config;
    const struct backend *ops = job->optimizer->ops;
    const struct optimizer_step *s = job->step;
    real *update = s->update + tensor->offset;
    ops->muon_momentum(lane, update, s->first + job->optimizer->first_offset[index], s->gradients + tensor->offset,
                       tensor->count, muon_momentum_at(config, s->step));
    if (config->optim_row_norm) ops->normalize_rows(lane, update, tensor->shape[0], tensor->shape[1]);
    return update;
}

/* Tensors of one shape, from `first` of the order on. */
static void muon(const struct job *job, int first, size_t count, struct lane *lane) {
    const struct config *config = job->optimizer->config;
    const struct backend *ops = job->optimizer->ops;
    const struct optimizer_step *s = job->step;
    const size_t rows = tensor_at(job->optimizer, first)->shape[0], cols = tensor_at(job->optimizer, first)->shape[1];
    real *updates[MOST_TOGETHER] = {0};
    for (size_t i = 0; i < count; i++) updates[i] = direction(job, job->optimizer->order[first + (int)i], lane);
    ops->newton_schulz(lane, updates, count, rows, cols, (int)config->optim_muon_iterations);
    for (size_t i = 0; i < count; i++)
        ops->muon_apply(lane, s->weights + tensor_at(job->optimizer, first + (int)i)->offset, updates[i], rows * cols,
                        config->optim_muon_rate * s->multiplier, config->optim_muon_decay,
                        rows > cols ? sqrt((double)rows / (double)cols) : 1.0);
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
    job->optimizer->ops->adam_step(lane, s->weights + tensor->offset, s->first + job->optimizer->first_offset[index],
                                   s->second + job->optimizer->second_offset[index], s->gradients + tensor->offset,
                                   tensor->count, &settings);
}

static void update_piece(void *context, int piece, struct lane *lane) {
    const struct job *job = context;
    const struct optimizer *o = job->optimizer;
    int first = o->pieces[piece];
    if (o->owner[o->order[first]] != o->rank) return;
    if (tensor_at(o, first)->optimizer == OPTIMIZER_MUON)
        muon(job, first, (size_t)(o->pieces[piece + 1] - first), lane);
    else
        adam(job, o->order[first], tensor_at(o, first), lane);
}

void optimizer_apply(const struct optimizer *optimizer, const struct optimizer_step *step) {
    struct job job = {optimizer, step};
    optimizer->ops->for_each(step->lanes, step->lane_count, optimizer->piece_count, update_piece, &job);
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
