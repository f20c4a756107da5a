/* quantize: rounds weights into the storage that storage.c chose; see quantize.h. */
#include "model/quantize/quantize.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/arena.h"
#include "kernels/clock.h"
#include "kernels/half.h"
#include "model/quantize/calibrate.h"

enum { NOTE_CAPACITY = 320, BATCH = 8, DAMPINGS = 4 };
static const double FIRST_DAMPING = 0.01;

/* --- one tensor -------------------------------------------------------------------------------------------------- */

struct job {
    struct quantized_model *model;
    const struct backend *ops;
    const real *weights;
    const struct calibration *calibration;
    const int *order;             /* tensors to round, costliest first */
    int first;                    /* of the batch at work, in order */
    char (*notes)[NOTE_CAPACITY]; /* (tensors) */
};

static int qmax_of(const struct quantized_part *part) { return (1 << (part->bits - 1)) - 1; }

static const real *weights_of(const struct job *job, const struct quantized_tensor *q,
                              const struct quantized_part *part) {
    return job->weights + q->tensor->offset + part->first * q->tensor->shape[1];
}

static void round_rows(const struct job *job, struct lane *lane, struct quantized_tensor *q, double percentile) {
    for (struct quantized_part *part = q->parts; part < q->parts + q->part_count; part++)
        if (part->storage == STORED_INT)
            job->ops->quantize_rows(lane, part->integers, part->scales, weights_of(job, q, part), part->rows,
                                    q->tensor->shape[1], part->group, qmax_of(part), percentile,
                                    job->model->network->config.quant_scale_floor == FLOOR_PUBLISHED);
}

static double squared_error(const struct job *job, const struct quantized_tensor *q,
                            const struct quantized_part *part) {
    const size_t cols = q->tensor->shape[1], width = part->group ? part->group : cols;
    const size_t scales_in_row = (cols + width - 1) / width;
    const real *w = weights_of(job, q, part);
    double sum = 0;
    for (size_t i = 0; i < part->count; i++) {
        const real decoded =
            (real)part->integers[i] * half_to_real(part->scales[i / cols * scales_in_row + i % cols / width]);
        double difference = (double)w[i] - (double)decoded;
        sum += difference * difference;
    }
    return sum;
}

/* The percentile for the whole tensor; on a tie the largest, which clips least. */
static double search_clip(const struct job *job, struct lane *lane, struct quantized_tensor *q) {
    static const double percentiles[] = {100, 99.999, 99.99, 99.95, 99.9};
    double best = percentiles[0], least = INFINITY;
    for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
        double error = 0;
        round_rows(job, lane, q, percentiles[i]);
        for (int p = 0; p < q->part_count; p++)
            if (q->parts[p].storage == STORED_INT) error += squared_error(job, q, &q->parts[p]);
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

/* Rows do not feel each other, so parts do not either. False when H is not positive definite. */
static bool gptq(const struct job *job, struct lane *lane, struct quantized_tensor *q, const double *h,
                 double damping) {
    int info = 0;
    for (struct quantized_part *part = q->parts; part < q->parts + q->part_count && info == 0; part++)
        if (part->storage == STORED_INT)
            job->ops->gptq_quantize(lane, part->integers, part->scales, weights_of(job, q, part), h, part->rows,
                                    q->tensor->shape[1], part->group, qmax_of(part), damping, &info);
    return info == 0;
}

/* Rounds q again with error feedback. Where H stays indefinite, the plain rounding that q holds already remains. */
static void feed_errors_back(const struct job *job, struct lane *lane, struct quantized_tensor *q, const double *h,
                             char note[NOTE_CAPACITY]) {
    double damping = FIRST_DAMPING;
    for (int i = 0; i < DAMPINGS; i++, damping *= 10) {
        if (!gptq(job, lane, q, h, damping)) continue;
        if (i > 0) add_note(note, "%s: gptq with damping %g\n", q->tensor->name, damping);
        return;
    }
    add_note(note, "%s: the Hessian is not positive definite even with damping %g: rowwise\n", q->tensor->name,
             damping / 10);
}

static void quantise_integers(const struct job *job, struct lane *lane, int index) {
    struct quantized_tensor *q = &job->model->tensors[index];
    char *note = job->notes[index];
    double percentile = 100;
    if (job->model->network->config.quant_clip == CLIP_SEARCH) {
        percentile = search_clip(job, lane, q);
        if (percentile < 100) add_note(note, "%s: clipped at percentile %g\n", q->tensor->name, percentile);
    }
    round_rows(job, lane, q, percentile);
    const double *h = job->calibration ? calibration_hessian(job->calibration, index) : NULL;
    if (h) feed_errors_back(job, lane, q, h, note);
}

/* A tensor without a trit but 0 has no scale to be read from it: any will do. */
static float scale_of(const real *image, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (image[i] != 0) return (float)fabs((double)image[i]);
    return 1;
}

/* The lane's scratch holds what the layer calculates with. */
static void quantise_trits(const struct job *job, struct lane *lane, struct quantized_tensor *q) {
    struct quantized_part *part = &q->parts[0];
    real *image = lane->scratch;
    job->ops->ternarize(lane, image, weights_of(job, q, part), part->count);
    part->trit_scale = scale_of(image, part->count);
    for (size_t start = 0; start < part->count; start += TRITS_PER_BYTE) {
        unsigned byte = 0;
        for (size_t i = TRITS_PER_BYTE; i-- > 0;) {
            real value = start + i < part->count ? image[start + i] : 0;
            byte = 3 * byte + (value > 0 ? 2 : value < 0 ? 0 : 1);
        }
        part->trits[start / TRITS_PER_BYTE] = (uint8_t)byte;
    }
}

static void quantise_tensor(void *context, int piece, struct lane *lane) {
    const struct job *job = context;
    int index = job->order[job->first + piece];
    if (job->model->tensors[index].parts[0].storage == STORED_TRITS)
        quantise_trits(job, lane, &job->model->tensors[index]);
    else
        quantise_integers(job, lane, index);
}

static void store_floats(const struct job *job, struct quantized_tensor *q) {
    const double limit = 65504; /* the largest half: an infinity would spread */
    for (struct quantized_part *part = q->parts; part < q->parts + q->part_count; part++) {
        const real *w = weights_of(job, q, part);
        for (size_t i = 0; i < part->count; i++) {
            if (part->storage == STORED_F32) part->floats[i] = (float)w[i];
            if (part->storage == STORED_F16)
                part->halves[i] = half_from_double(fmin(fmax((double)w[i], -limit), limit));
        }
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

static bool is_rounded(const struct quantized_tensor *q) {
    for (int p = 0; p < q->part_count; p++)
        if (q->parts[p].storage == STORED_INT || q->parts[p].storage == STORED_TRITS) return true;
    return false;
}

static int order_rounded(const struct quantized_model *model, int *order) {
    int count = 0;
    for (int i = 0; i < model->count; i++)
        if (is_rounded(&model->tensors[i])) order[count++] = i;
    qsort_r(order, (size_t)count, sizeof *order, by_descending_size, model->tensors);
    return count;
}

struct memory {
    int *order;
    char (*notes)[NOTE_CAPACITY];
    struct lane *lanes;
    int lane_count;
};

static size_t scratch_for(const struct quantized_model *model, const struct quantized_tensor *q) {
    if (q->parts[0].storage == STORED_TRITS) return q->tensor->count * sizeof(real);
    bool gptq = model->network->config.quant_method == METHOD_GPTQ;
    return gptq && is_rounded(q) ? model->network->ops->gptq_scratch(q->tensor->shape[0], q->tensor->shape[1]) : 0;
}

static void lay_out(struct memory *memory, const struct quantized_model *model, struct arena *arena) {
    size_t count = (size_t)model->count, scratch = 0;
    for (int i = 0; i < model->count; i++) {
        size_t bytes = scratch_for(model, &model->tensors[i]);
        if (bytes > scratch) scratch = bytes;
    }
    memory->order = arena_take(arena, count * sizeof *memory->order);
    memory->notes = arena_take(arena, count * sizeof *memory->notes);
    memory->lanes = arena_take(arena, (size_t)memory->lane_count * sizeof *memory->lanes);
    for (int i = 0; i < memory->lane_count; i++) {
        void *bytes = arena_take(arena, scratch);
        if (memory->lanes) memory->lanes[i] = (struct lane){i, bytes, scratch};
    }
}

static status quantise_rounded(struct job *job, const struct memory *memory, quantize_progress progress,
                               void *context) {
    int count = order_rounded(job->model, memory->order);
    job->order = memory->order;
    job->notes = memory->notes;
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

/* At the peak either the calibration runs, or its sums are still there while the tensors are rounded. */
static status peak_of(const struct quantized_model *model, size_t *bytes) {
    const struct network *net = model->network;
    struct memory memory = {.lane_count = net->ops->lane_count()};
    struct arena counting = {0};
    size_t running = 0, kept = 0;
    if (memory.lane_count > BATCH) memory.lane_count = BATCH;
    if (net->config.quant_method == METHOD_GPTQ && net->config.quant_calibration != CALIBRATION_NONE)
        TRY(calibration_memory(net, &running, &kept));
    lay_out(&memory, model, &counting);
    size_t rounding = kept + counting.used;
    *bytes = quantized_model_bytes(model) + (running > rounding ? running : rounding);
    return NULL;
}

status quantize_memory(const struct network *net, size_t *bytes) {
    struct quantized_model model;
    TRY(quantized_model_allocate(&model, net));
    status s = peak_of(&model, bytes);
    quantized_model_free(&model);
    return s;
}

static status quantise_all(struct job *job, quantize_progress progress, void *context) {
    struct quantized_model *model = job->model;
    struct memory memory = {.lane_count = job->ops->lane_count()};
    struct arena arena = {0};
    if (memory.lane_count > BATCH) memory.lane_count = BATCH;
    lay_out(&memory, model, &arena);
    TRY(arena_create(&arena, arena.used, "quantisation"));
    lay_out(&memory, model, &arena);
    for (int i = 0; i < model->count; i++) store_floats(job, &model->tensors[i]);
    status s = quantise_rounded(job, &memory, progress, context);
    if (!s) join_notes(model, memory.notes);
    arena_destroy(&arena);
    return s;
}

static status fill(struct quantized_model *model, const real *weights, const struct dataset *dataset, uint64_t seed,
                   quantize_progress progress, void *context) {
    const struct network *net = model->network;
    struct job job = {.model = model, .ops = net->ops, .weights = weights};
    struct calibration calibration = {0};
    bool calibrated = net->config.quant_method == METHOD_GPTQ;
    double start = clock_seconds();
    if (calibrated && net->config.quant_calibration == CALIBRATION_NONE) {
        snprintf(model->notes, sizeof model->notes, "gptq without statistics is rowwise\n");
    } else if (calibrated) {
        TRY(calibrate(net, weights, dataset, seed, progress, context, &calibration));
        job.calibration = &calibration;
    }
    double middle = clock_seconds();
    status s = quantise_all(&job, progress, context);
    calibration_free(&calibration);
    model->calibration_seconds = middle - start;
    model->quantise_seconds = clock_seconds() - middle;
    return s;
}

status quantize_model(const struct network *net, const real *weights, const struct dataset *dataset, uint64_t seed,
                      quantize_progress progress, void *context, struct quantized_model *out) {
    TRY(quantized_model_allocate(out, net));
    status s = fill(out, weights, dataset, seed, progress, context);
    if (s) quantized_model_free(out);
    return s;
}
