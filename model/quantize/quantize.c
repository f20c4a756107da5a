/* quantize: chooses how each tensor is stored, and stores it; see quantize.h. */
#include "model/quantize/quantize.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/arena.h"
#include "kernels/half.h"
#include "model/quantize/calibrate.h"

enum { NOTE_CAPACITY = 320, BATCH = 8, DAMPINGS = 4 };
static const double FIRST_DAMPING = 0.01;

/* --- how a tensor is stored -------------------------------------------------------------------------------------- */

static int bits_of_class(const struct config *config, enum tensor_class class) {
    int64_t bits = class == CLASS_MAMBA       ? config->quant_bits_mamba
                   : class == CLASS_ATTENTION ? config->quant_bits_attention
                   : class == CLASS_MLP       ? config->quant_bits_mlp
                                              : 0;
    return (int)(bits ? bits : config->quant_bits);
}

int quantize_bits(const struct config *config, const struct tensor *tensor) {
    if (tensor->role == ROLE_EMBEDDING) return config->quant_embedding == EMBEDDING_INT8 ? 8 : 0;
    if (config->quant_method == METHOD_NONE || tensor->count <= (size_t)config->train_quantise_above) return 0;
    return tensor->linear || tensor->role == ROLE_BIGRAM_TABLE ? bits_of_class(config, tensor->class) : 0;
}

static enum storage storage_of(const struct config *config, const struct tensor *tensor) {
    if (quantize_bits(config, tensor)) return STORED_INT;
    return tensor->class == CLASS_CONTROL ? STORED_F32 : STORED_F16;
}

static status allocate_tensor(struct quantized_tensor *q) {
    size_t count = q->tensor->count;
    if (q->storage == STORED_INT) {
        q->integers = malloc(count);
        q->scales = calloc(q->scale_count, sizeof *q->scales);
        if (q->integers && q->scales) return NULL;
    } else if (q->storage == STORED_F16) {
        if ((q->halves = calloc(count, sizeof *q->halves))) return NULL;
    } else if ((q->floats = calloc(count, sizeof *q->floats))) {
        return NULL;
    }
    return status_new(STATUS_SYSTEM, "%s: out of memory", q->tensor->name);
}

status quantized_model_allocate(struct quantized_model *model, const struct network *net) {
    *model = (struct quantized_model){.network = net, .count = net->parameters.count};
    model->tensors = calloc((size_t)model->count, sizeof *model->tensors);
    if (!model->tensors) return status_new(STATUS_SYSTEM, "quantised model: out of memory");
    for (int i = 0; i < model->count; i++) {
        struct quantized_tensor *q = &model->tensors[i];
        q->tensor = &net->parameters.tensors[i];
        q->storage = storage_of(&net->config, q->tensor);
        if (q->storage == STORED_INT) {
            q->bits = quantize_bits(&net->config, q->tensor);
            q->group = (size_t)net->config.quant_group;
            size_t cols = q->tensor->shape[1], width = q->group ? q->group : cols;
            q->scale_count = q->tensor->shape[0] * ((cols + width - 1) / width);
        }
        status s = allocate_tensor(q);
        if (s) {
            quantized_model_free(model);
            return s;
        }
    }
    return NULL;
}

void quantized_model_free(struct quantized_model *model) {
    for (int i = 0; model->tensors && i < model->count; i++) {
        free(model->tensors[i].integers);
        free(model->tensors[i].scales);
        free(model->tensors[i].halves);
        free(model->tensors[i].floats);
    }
    free(model->tensors);
    *model = (struct quantized_model){0};
}

/* --- reading back ------------------------------------------------------------------------------------------------ */

static void decode_integers(const struct quantized_tensor *q, real *weights) {
    size_t rows = q->tensor->shape[0], cols = q->tensor->shape[1], width = q->group ? q->group : cols, scale = 0;
    for (size_t r = 0; r < rows; r++)
        for (size_t start = 0; start < cols; start += width, scale++) {
            const real s = half_to_real(q->scales[scale]);
            for (size_t c = start; c < cols && c < start + width; c++)
                weights[r * cols + c] = (real)q->integers[r * cols + c] * s;
        }
}

static void decode_tensor(const struct quantized_tensor *q, real *weights) {
    if (q->storage == STORED_INT) decode_integers(q, weights);
    for (size_t i = 0; q->storage == STORED_F16 && i < q->tensor->count; i++) weights[i] = half_to_real(q->halves[i]);
    for (size_t i = 0; q->storage == STORED_F32 && i < q->tensor->count; i++) weights[i] = (real)q->floats[i];
}

void quantized_model_decode(const struct quantized_model *model, real *weights) {
    memset(weights, 0, model->network->parameters.total * sizeof *weights);
    for (int i = 0; i < model->count; i++)
        decode_tensor(&model->tensors[i], weights + model->tensors[i].tensor->offset);
}

/* --- one tensor -------------------------------------------------------------------------------------------------- */

struct job {
    struct quantized_model *model;
    const struct backend *ops;
    const real *weights;
    const struct calibration *calibration;
    const int *order; /* integer tensors, costliest first */
    int first;        /* of the batch at work, in order */
    real *decoded[BATCH];
    char (*notes)[NOTE_CAPACITY]; /* (tensors) */
};

static int qmax_of(const struct quantized_tensor *q) { return (1 << (q->bits - 1)) - 1; }

static void round_rows(const struct job *job, struct lane *lane, struct quantized_tensor *q, double percentile) {
    job->ops->quantize_rows(lane, q->integers, q->scales, job->weights + q->tensor->offset, q->tensor->shape[0],
                            q->tensor->shape[1], q->group, qmax_of(q), percentile,
                            job->model->network->config.quant_scale_floor == FLOOR_PUBLISHED);
}

static double squared_error(const struct job *job, const struct quantized_tensor *q, real *decoded) {
    const real *w = job->weights + q->tensor->offset;
    double sum = 0;
    decode_integers(q, decoded);
    for (size_t i = 0; i < q->tensor->count; i++) {
        double difference = (double)w[i] - (double)decoded[i];
        sum += difference * difference;
    }
    return sum;
}

/* The percentile for the whole tensor; on a tie the largest, which clips least. */
static double search_clip(const struct job *job, struct lane *lane, struct quantized_tensor *q, real *decoded) {
    static const double percentiles[] = {100, 99.999, 99.99, 99.95, 99.9};
    double best = percentiles[0], least = INFINITY;
    for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
        round_rows(job, lane, q, percentiles[i]);
        double error = squared_error(job, q, decoded);
        if (error < least) least = error, best = percentiles[i];
    }
    return best;
}

__attribute__((format(printf, 2, 3))) static void add_note(char note[NOTE_CAPACITY], const char *format, ...) {
    size_t used = strlen(note);
    va_list args;
    va_start(args, format);
    vsnprintf(note + used, NOTE_CAPACITY - used, format, args);
    va_end(args);
}

/* Rounds q again with error feedback. Where H stays indefinite, the plain rounding that q holds already remains. */
static void feed_errors_back(const struct job *job, struct lane *lane, struct quantized_tensor *q, const double *h,
                             char note[NOTE_CAPACITY]) {
    double damping = FIRST_DAMPING;
    for (int i = 0; i < DAMPINGS; i++, damping *= 10) {
        int info;
        job->ops->gptq_quantize(lane, q->integers, q->scales, job->weights + q->tensor->offset, h, q->tensor->shape[0],
                                q->tensor->shape[1], q->group, qmax_of(q), damping, &info);
        if (info == 0) {
            if (i > 0) add_note(note, "%s: gptq with damping %g\n", q->tensor->name, damping);
            return;
        }
    }
    add_note(note, "%s: the Hessian is not positive definite even with damping %g: rowwise\n", q->tensor->name,
             damping / 10);
}

static void quantise_tensor(void *context, int piece, struct lane *lane) {
    const struct job *job = context;
    int index = job->order[job->first + piece];
    struct quantized_tensor *q = &job->model->tensors[index];
    char *note = job->notes[index];
    double percentile = 100;
    if (job->model->network->config.quant_clip == CLIP_SEARCH) {
        percentile = search_clip(job, lane, q, job->decoded[piece]);
        if (percentile < 100) add_note(note, "%s: clipped at percentile %g\n", q->tensor->name, percentile);
    }
    round_rows(job, lane, q, percentile);
    const double *h = job->calibration ? calibration_hessian(job->calibration, index) : NULL;
    if (h) feed_errors_back(job, lane, q, h, note);
}

static void store_floats(struct quantized_tensor *q, const real *w) {
    const double limit = 65504; /* the largest half: an infinity would spread */
    for (size_t i = 0; i < q->tensor->count; i++) {
        if (q->storage == STORED_F32) q->floats[i] = (float)w[i];
        if (q->storage == STORED_F16) q->halves[i] = half_from_double(fmin(fmax((double)w[i], -limit), limit));
    }
}

/* --- all tensors ------------------------------------------------------------------------------------------------- */

static int by_descending_size(const void *a, const void *b, void *tensors) {
    int x = *(const int *)a, y = *(const int *)b;
    const struct quantized_tensor *all = tensors;
    size_t left = all[x].tensor->count, right = all[y].tensor->count;
    if (left != right) return left > right ? -1 : 1;
    return x - y;
}

static int order_integers(const struct quantized_model *model, int *order) {
    int count = 0;
    for (int i = 0; i < model->count; i++)
        if (model->tensors[i].storage == STORED_INT) order[count++] = i;
    qsort_r(order, (size_t)count, sizeof *order, by_descending_size, model->tensors);
    return count;
}

struct memory {
    int *order;
    char (*notes)[NOTE_CAPACITY];
    real *decoded[BATCH];
    struct lane *lanes;
    int lane_count;
};

static void lay_out(struct memory *memory, const struct quantized_model *model, struct arena *arena) {
    size_t count = (size_t)model->count, scratch = 0, largest = 0;
    for (int i = 0; i < model->count; i++) {
        const struct quantized_tensor *q = &model->tensors[i];
        if (q->storage != STORED_INT) continue;
        size_t bytes = gptq_scratch(q->tensor->shape[0], q->tensor->shape[1]);
        if (bytes > scratch && model->network->config.quant_method == METHOD_GPTQ) scratch = bytes;
        if (q->tensor->count > largest && model->network->config.quant_clip == CLIP_SEARCH) largest = q->tensor->count;
    }
    memory->order = arena_take(arena, count * sizeof *memory->order);
    memory->notes = arena_take(arena, count * sizeof *memory->notes);
    for (int i = 0; i < BATCH; i++) memory->decoded[i] = arena_reals(arena, largest);
    memory->lanes = arena_take(arena, (size_t)memory->lane_count * sizeof *memory->lanes);
    for (int i = 0; i < memory->lane_count; i++) {
        void *bytes = arena_take(arena, scratch);
        if (memory->lanes) memory->lanes[i] = (struct lane){i, bytes, scratch};
    }
}

static status quantise_integers(struct job *job, const struct memory *memory, quantize_progress progress,
                                void *context) {
    int count = order_integers(job->model, memory->order);
    job->order = memory->order;
    job->notes = memory->notes;
    memcpy(job->decoded, memory->decoded, sizeof job->decoded);
    for (job->first = 0; job->first < count; job->first += BATCH) {
        if (progress && progress(context, "quantising", (double)job->first / count))
            return status_new(STATUS_INTERRUPTED, "stopped while quantising");
        int left = count - job->first;
        job->ops->for_each(memory->lanes, memory->lane_count, left < BATCH ? left : BATCH, quantise_tensor, job);
    }
    return NULL;
}

static void join_notes(struct quantized_model *model, char (*notes)[NOTE_CAPACITY]) {
    size_t used = strlen(model->notes);
    for (int i = 0; i < model->count; i++) {
        size_t length = strlen(notes[i]);
        if (used + length >= sizeof model->notes) return;
        memcpy(model->notes + used, notes[i], length + 1);
        used += length;
    }
}

static status quantise_all(struct job *job, quantize_progress progress, void *context) {
    struct quantized_model *model = job->model;
    struct memory memory = {.lane_count = job->ops->lane_count()};
    struct arena arena = {0};
    if (memory.lane_count > BATCH) memory.lane_count = BATCH;
    lay_out(&memory, model, &arena);
    TRY(arena_create(&arena, arena.used, "quantisation"));
    lay_out(&memory, model, &arena);
    for (int i = 0; i < model->count; i++)
        store_floats(&model->tensors[i], job->weights + model->tensors[i].tensor->offset);
    status s = quantise_integers(job, &memory, progress, context);
    if (!s) join_notes(model, memory.notes);
    arena_destroy(&arena);
    return s;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static status fill(struct quantized_model *model, const real *weights, const struct dataset *dataset, uint64_t seed,
                   quantize_progress progress, void *context) {
    const struct network *net = model->network;
    struct job job = {.model = model, .ops = net->ops, .weights = weights};
    struct calibration calibration = {0};
    bool gptq = net->config.quant_method == METHOD_GPTQ;
    double start = now();
    if (gptq && net->config.quant_calibration == CALIBRATION_NONE) {
        snprintf(model->notes, sizeof model->notes, "gptq without statistics is rowwise\n");
    } else if (gptq) {
        TRY(calibrate(net, weights, dataset, seed, progress, context, &calibration));
        job.calibration = &calibration;
    }
    double middle = now();
    status s = quantise_all(&job, progress, context);
    calibration_free(&calibration);
    model->calibration_seconds = middle - start;
    model->quantise_seconds = now() - middle;
    return s;
}

status quantize_model(const struct network *net, const real *weights, const struct dataset *dataset, uint64_t seed,
                      quantize_progress progress, void *context, struct quantized_model *out) {
    TRY(quantized_model_allocate(out, net));
    status s = fill(out, weights, dataset, seed, progress, context);
    if (s) quantized_model_free(out);
    return s;
}
