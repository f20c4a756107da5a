/* optimizer: Muon and Adam over the pieces; see optimizer.h. */
#include "model/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_TOGETHER = 64 }; /* matrices of one piece */

/* Products of Newton-Schulz are cubic, Adam is linear; only the order of magnitude matters. */
static double cost(const struct tensor *tensor) {
    if (tensor->optimizer != OPTIMIZER_MUON) return (double)tensor->count;
    size_t least = tensor->shape[0] < tensor->shape[1] ? tensor->shape[0] : tensor->shape[1];
    return (double)tensor->count * (double)least;
}

static int by_descending_cost(const void *a, const void *b) {
    const struct piece *left = a, *right = b;
    if (left->cost != right->cost) return left->cost > right->cost ? -1 : 1;
    return left->first - right->first;
}

static const struct tensor *tensor_at(const struct optimizer *o, int place) {
    return &o->parameters->tensors[o->parameters->by_offset[place]];
}

static bool goes_with(const struct optimizer *o, const struct piece *piece, const struct tensor *next) {
    if (o->ops->batch_most == 1 || !updated_alike(tensor_at(o, piece->first), next)) return false;
    size_t most = o->ops->batch_most < MOST_TOGETHER ? o->ops->batch_most : MOST_TOGETHER;
    return next->optimizer != OPTIMIZER_MUON || (size_t)piece->count < most;
}

static void cut_pieces(struct optimizer *o) {
    struct piece *piece = NULL;
    for (int place = 0; place < o->parameters->count; place++) {
        const struct tensor *tensor = tensor_at(o, place);
        if (!piece || !goes_with(o, piece, tensor)) {
            piece = &o->pieces[o->piece_count++];
            *piece = (struct piece){.first = place, .offset = tensor->offset};
        }
        piece->count++;
        piece->span = tensor->offset + tensor->count - piece->offset;
        piece->cost += cost(tensor);
    }
    qsort(o->pieces, (size_t)o->piece_count, sizeof *o->pieces, by_descending_cost);
}

static void measure_scratch(struct optimizer *o) {
    for (const struct piece *piece = o->pieces; piece < o->pieces + o->piece_count; piece++) {
        const struct tensor *tensor = tensor_at(o, piece->first);
        if (tensor->optimizer != OPTIMIZER_MUON) continue;
        size_t bytes = o->ops->newton_schulz_scratch((size_t)piece->count, tensor->shape[0], tensor->shape[1]);
        size_t rows = o->ops->rows_scratch(tensor->shape[0], tensor->shape[1]);
        if (bytes < rows) bytes = rows;
        if (bytes > o->scratch_bytes) o->scratch_bytes = bytes;
    }
}

/* Each piece, the costliest first, goes to the rank that has least to do so far. */
static void share_out(struct optimizer *o) {
    double load[OPTIMIZER_MOST_RANKS] = {0};
    for (const struct piece *piece = o->pieces; piece < o->pieces + o->piece_count; piece++) {
        int least = 0;
        for (int rank = 1; rank < o->ranks; rank++)
            if (load[rank] < load[least]) least = rank;
        load[least] += piece->cost;
        for (int i = 0; i < piece->count; i++) o->owner[o->parameters->by_offset[piece->first + i]] = least;
    }
}

/* In the order and with the gaps of the weights, so that a piece is one pass there too. One rank alone has first
 * moments where the weights stand. */
static void place_moments(struct optimizer *o) {
    for (int place = 0; place < o->parameters->count; place++) {
        const struct tensor *tensor = tensor_at(o, place);
        int i = o->parameters->by_offset[place];
        bool own = o->owner[i] == o->rank, adam = tensor->optimizer != OPTIMIZER_MUON;
        o->first_offset[i] = o->first_total;
        o->second_offset[i] = o->second_total;
        o->second_whole[i] = o->second_whole_total;
        if (own) o->first_total += aligned_reals(tensor->count);
        if (own && adam) o->second_total += aligned_reals(tensor->count);
        if (adam) o->second_whole_total += aligned_reals(tensor->count);
    }
}

static void lay_out(struct optimizer *o) {
    cut_pieces(o);
    share_out(o);
    place_moments(o);
    measure_scratch(o);
}

status optimizer_create(struct optimizer *optimizer, const struct config *config, const struct parameters *parameters,
                        const struct backend *ops, int rank, int ranks) {
    size_t count = (size_t)parameters->count;
    *optimizer =
        (struct optimizer){.config = config, .parameters = parameters, .ops = ops, .rank = rank, .ranks = ranks};
    optimizer->pieces = calloc(count, sizeof *optimizer->pieces);
    optimizer->owner = calloc(count, sizeof *optimizer->owner);
    optimizer->first_offset = calloc(3 * count, sizeof *optimizer->first_offset);
    if (!optimizer->pieces || !optimizer->owner || !optimizer->first_offset) {
        optimizer_destroy(optimizer);
        return status_new(STATUS_SYSTEM, "optimiser: out of memory");
    }
    optimizer->second_offset = optimizer->first_offset + count;
    optimizer->second_whole = optimizer->second_offset + count;
    lay_out(optimizer);
    return NULL;
}

void optimizer_destroy(struct optimizer *optimizer) {
    free(optimizer->pieces);
    free(optimizer->owner);
    free(optimizer->first_offset);
    *optimizer = (struct optimizer){0};
}

int piece_owner(const struct optimizer *o, const struct piece *piece) {
    return o->owner[o->parameters->by_offset[piece->first]];
}

double muon_momentum_at(const struct config *config, int64_t step) {
    if (step >= config->optim_muon_momentum_steps) return config->optim_muon_momentum;
    double passed = (double)step / (double)config->optim_muon_momentum_steps;
    return config->optim_muon_momentum_start +
           passed * (config->optim_muon_momentum - config->optim_muon_momentum_start);
}

struct update_settings optimizer_settings(const struct config *c, int64_t step, double multiplier) {
    const double beta1 = c->optim_adam_beta1, beta2 = c->optim_adam_beta2, epsilon = c->optim_adam_epsilon;
    const double momentum = muon_momentum_at(c, step);
    return (struct update_settings){
        .embedding = adam_settings_at(c->optim_embedding_rate * multiplier, beta1, beta2, epsilon, step + 1),
        .adam = adam_settings_at(c->optim_adam_rate * multiplier, beta1, beta2, epsilon, step + 1),
        .muon = muon_settings_of(momentum, c->optim_muon_rate * multiplier, c->optim_muon_decay)};
}

struct job {
    const struct optimizer *optimizer;
    const struct optimizer_step *step;
};

/* Of the first moments of a piece. */
static real *first_of(const struct job *job, const struct piece *piece) {
    const struct optimizer *o = job->optimizer;
    return job->step->first + o->first_offset[o->parameters->by_offset[piece->first]];
}

/* Muon's directions, made orthogonal, of tensors of one shape. */
static void directions(const struct job *job, const struct piece *piece, struct lane *lane) {
    const struct config *config = job->optimizer->config;
    const struct backend *ops = job->optimizer->ops;
    const struct optimizer_step *s = job->step;
    const struct tensor *shape = tensor_at(job->optimizer, piece->first);
    real *updates[MOST_TOGETHER] = {0};
    for (int i = 0; i < piece->count; i++) updates[i] = s->update + tensor_at(job->optimizer, piece->first + i)->offset;
    ops->muon_momentum(lane, s->update + piece->offset, first_of(job, piece), s->gradients + piece->offset, piece->span,
                       &s->settings->muon);
    for (int i = 0; i < piece->count && config->optim_row_norm; i++)
        ops->normalize_rows(lane, updates[i], shape->shape[0], shape->shape[1]);
    ops->newton_schulz(lane, updates, (size_t)piece->count, shape->shape[0], shape->shape[1],
                       (int)config->optim_muon_iterations);
}

static void muon(const struct job *job, const struct piece *piece, struct lane *lane) {
    const struct optimizer_step *s = job->step;
    const struct tensor *shape = tensor_at(job->optimizer, piece->first);
    const double rows = (double)shape->shape[0], cols = (double)shape->shape[1];
    directions(job, piece, lane);
    job->optimizer->ops->muon_apply(lane, s->weights + piece->offset, s->update + piece->offset, piece->span,
                                    &s->settings->muon, rows > cols ? sqrt(rows / cols) : 1.0);
}

static void adam(const struct job *job, const struct piece *piece, struct lane *lane) {
    const struct optimizer *o = job->optimizer;
    const struct optimizer_step *s = job->step;
    bool embedding = tensor_at(o, piece->first)->optimizer == OPTIMIZER_ADAM_EMBEDDING;
    o->ops->adam_step(lane, s->weights + piece->offset, first_of(job, piece),
                      s->second + o->second_offset[o->parameters->by_offset[piece->first]],
                      s->gradients + piece->offset, piece->span,
                      embedding ? &s->settings->embedding : &s->settings->adam);
}

static void update_piece(void *context, int index, struct lane *lane) {
    const struct job *job = context;
    const struct optimizer *o = job->optimizer;
    const struct piece *piece = &o->pieces[index];
    if (piece_owner(o, piece) != o->rank) return;
    if (tensor_at(o, piece->first)->optimizer == OPTIMIZER_MUON)
        muon(job, piece, lane);
    else
        adam(job, piece, lane);
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
