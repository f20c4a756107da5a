/* quantize: rounds weights into the storage that storage.c chose; see quantize.h. */
#include "model/quantize/quantize.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"
#include "kernels/half.h"
#include "model/quantize/calibrate.h"
#include "model/quantize/rooms.h"

enum { BATCH = 8, DAMPINGS = 4 };
static const double FIRST_DAMPING = 0.01;
#define ROOMS_OF_DEVICE ((size_t)4 << 30) /* bytes; fewer tensors at once beyond */

/* --- one tensor -------------------------------------------------------------------------------------------------- */

struct job {
    struct quantized_model *model;
    const struct backend *ops;
    const real *weights;  /* the host's */
    const real *uploaded; /* the same in the backend's memory */
    const struct calibration *calibration;
    const struct rooms *rooms;
    int first;              /* of the batch at work, in rooms->order */
    struct lane *at[BATCH]; /* where its tensors are, while a device works on them */
};

static int qmax_of(const struct quantized_part *part) { return (1 << (part->bits - 1)) - 1; }

static size_t place_of(const struct quantized_tensor *q, const struct quantized_part *part) {
    return q->tensor->offset + part->first * q->tensor->shape[1];
}

/* Where a part's integers and scales stand in a room. */
static int8_t *integers_in(const struct room *room, const struct quantized_tensor *q,
                           const struct quantized_part *part) {
    return room->integers + part->first * q->tensor->shape[1];
}
static uint16_t *scales_in(const struct room *room, const struct quantized_tensor *q,
                           const struct quantized_part *part) {
    size_t before = 0;
    for (const struct quantized_part *p = q->parts; p < part; p++) before += p->scale_count;
    return room->scales + before;
}

static void round_rows(const struct job *job, struct lane *lane, struct quantized_tensor *q, double percentile) {
    const struct room *room = &job->rooms->each[lane->index];
    const bool floor = job->model->network->config.quant_scale_floor == FLOOR_PUBLISHED;
    for (struct quantized_part *part = q->parts; part < q->parts + q->part_count; part++)
        if (part->storage == STORED_INT)
            job->ops->quantize_rows(lane, integers_in(room, q, part), scales_in(room, q, part),
                                    job->uploaded + place_of(q, part), part->rows, q->tensor->shape[1], part->group,
                                    qmax_of(part), percentile, floor);
}

/* What stands in the lane's room. */
static void take_integers(const struct job *job, struct lane *lane, struct quantized_tensor *q) {
    const struct room *room = &job->rooms->each[lane->index];
    for (struct quantized_part *part = q->parts; part < q->parts + q->part_count; part++) {
        if (part->storage != STORED_INT) continue;
        job->ops->download(lane, part->integers, integers_in(room, q, part), part->count);
        job->ops->download(lane, part->scales, scales_in(room, q, part), part->scale_count * sizeof *part->scales);
    }
}

static double squared_error(const struct job *job, const struct quantized_tensor *q,
                            const struct quantized_part *part) {
    const size_t cols = q->tensor->shape[1], width = part->group ? part->group : cols;
    const size_t scales_in_row = (cols + width - 1) / width;
    const real *w = job->weights + place_of(q, part);
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
        take_integers(job, lane, q);
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

/* The integers of all parts; rows do not feel each other, so parts do not either. */
static void gptq(const struct job *job, struct lane *lane, struct quantized_tensor *q, const double *h,
                 double damping) {
    const struct room *room = &job->rooms->each[lane->index];
    for (int p = 0; p < q->part_count; p++) {
        struct quantized_part *part = &q->parts[p];
        if (part->storage == STORED_INT)
            job->ops->gptq_quantize(lane, integers_in(room, q, part), scales_in(room, q, part),
                                    job->uploaded + place_of(q, part), h, part->rows, q->tensor->shape[1], part->group,
                                    qmax_of(part), damping, room->info + p);
    }
}

/* False when H was not positive definite: then the room's integers stay what they were. */
static bool gptq_succeeded(const struct job *job, struct lane *lane, const struct quantized_tensor *q) {
    int info[MOST_PARTS];
    bool good = true;
    job->ops->download(lane, info, job->rooms->each[lane->index].info, sizeof info);
    for (int p = 0; p < q->part_count; p++) good &= q->parts[p].storage != STORED_INT || info[p] == 0;
    return good;
}

static const double *statistics(const struct job *job, int index) {
    return job->calibration ? calibration_hessian(job->calibration, index) : NULL;
}

/* Where the ops can read them. */
static const double *statistics_in(const struct job *job, const struct lane *lane, int index) {
    const double *room = job->rooms->each[lane->index].h;
    return room ? room : statistics(job, index);
}

static void put_statistics(const struct job *job, struct lane *lane, int index) {
    double *room = job->rooms->each[lane->index].h;
    size_t cols = job->model->tensors[index].tensor->shape[1];
    if (room) job->ops->upload(lane, room, statistics(job, index), cols * cols * sizeof *room);
}

/* Until the error feedback that was begun has succeeded. Where H stays indefinite, the plain rounding remains. */
static void feed_errors_back(const struct job *job, struct lane *lane, int index) {
    struct quantized_tensor *q = &job->model->tensors[index];
    char *note = job->rooms->notes[index];
    double damping = FIRST_DAMPING;
    for (int i = 0; i < DAMPINGS; i++, damping *= 10) {
        if (i > 0) gptq(job, lane, q, statistics_in(job, lane, index), damping);
        if (!gptq_succeeded(job, lane, q)) continue;
        if (i > 0) add_note(note, "%s: gptq with damping %g\n", q->tensor->name, damping);
        return;
    }
    add_note(note, "%s: the Hessian is not positive definite even with damping %g: rowwise\n", q->tensor->name,
             damping / 10);
}

static void begin_integers(const struct job *job, struct lane *lane, int index) {
    struct quantized_tensor *q = &job->model->tensors[index];
    double percentile = 100;
    if (job->model->network->config.quant_clip == CLIP_SEARCH) {
        percentile = search_clip(job, lane, q);
        if (percentile < 100)
            add_note(job->rooms->notes[index], "%s: clipped at percentile %g\n", q->tensor->name, percentile);
    }
    round_rows(job, lane, q, percentile);
    if (!statistics(job, index)) return;
    put_statistics(job, lane, index);
    gptq(job, lane, q, statistics_in(job, lane, index), FIRST_DAMPING);
}

static void end_integers(const struct job *job, struct lane *lane, int index) {
    if (statistics(job, index)) feed_errors_back(job, lane, index);
    take_integers(job, lane, &job->model->tensors[index]);
}

/* A tensor without a trit but 0 has no scale to be read from it: any will do. */
static float scale_of(const real *image, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (image[i] != 0) return (float)fabs((double)image[i]);
    return 1;
}

static void pack_trits(struct quantized_part *part, const real *image) {
    for (size_t start = 0; start < part->count; start += TRITS_PER_BYTE) {
        unsigned byte = 0;
        for (size_t i = TRITS_PER_BYTE; i-- > 0;) {
            real value = start + i < part->count ? image[start + i] : 0;
            byte = 3 * byte + (value > 0 ? 2 : value < 0 ? 0 : 1);
        }
        part->trits[start / TRITS_PER_BYTE] = (uint8_t)byte;
    }
}

/* The image is what the layer calculates with. */
static void begin_trits(const struct job *job, struct lane *lane, const struct quantized_tensor *q) {
    const struct quantized_part *part = &q->parts[0];
    job->ops->ternarize(lane, job->rooms->each[lane->index].image, job->uploaded + place_of(q, part), part->count);
}

static void end_trits(const struct job *job, struct lane *lane, struct quantized_tensor *q) {
    struct quantized_part *part = &q->parts[0];
    real *image = job->rooms->images[lane->index];
    job->ops->download(lane, image, job->rooms->each[lane->index].image, part->count * sizeof *image);
    part->trit_scale = scale_of(image, part->count);
    pack_trits(part, image);
}

static void begin_tensor(const struct job *job, struct lane *lane, int index) {
    if (job->model->tensors[index].parts[0].storage == STORED_TRITS)
        begin_trits(job, lane, &job->model->tensors[index]);
    else
        begin_integers(job, lane, index);
}

static void end_tensor(const struct job *job, struct lane *lane, int index) {
    if (job->model->tensors[index].parts[0].storage == STORED_TRITS)
        end_trits(job, lane, &job->model->tensors[index]);
    else
        end_integers(job, lane, index);
}

/* A device is not waited for before each of its lanes has a tensor. */
static void quantise_tensor(void *context, int piece, struct lane *lane) {
    struct job *job = context;
    int index = job->rooms->order[job->first + piece];
    begin_tensor(job, lane, index);
    job->at[piece] = lane;
    if (!job->ops->device_memory) end_tensor(job, lane, index);
}

static void quantise_batch(struct job *job, int count) {
    const struct rooms *rooms = job->rooms;
    job->ops->for_each(rooms->lanes, rooms->lane_count, count, quantise_tensor, job);
    for (int i = 0; i < count && job->ops->device_memory; i++)
        end_tensor(job, job->at[i], rooms->order[job->first + i]);
}

static void store_floats(const struct job *job, struct quantized_tensor *q) {
    const double limit = 65504; /* the largest half: an infinity would spread */
    for (struct quantized_part *part = q->parts; part < q->parts + q->part_count; part++) {
        const real *w = job->weights + place_of(q, part);
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

static int order_rounded(const struct quantized_model *model, int *order) {
    int count = 0;
    for (int i = 0; i < model->count; i++)
        if (is_rounded(&model->tensors[i])) order[count++] = i;
    qsort_r(order, (size_t)count, sizeof *order, by_descending_size, model->tensors);
    return count;
}

static status quantise_rounded(struct job *job, quantize_progress progress, void *context) {
    const struct rooms *rooms = job->rooms;
    int count = order_rounded(job->model, rooms->order);
    int batch = job->ops->device_memory ? rooms->lane_count : BATCH;
    for (job->first = 0; job->first < count; job->first += batch) {
        if (progress && progress(context, "quantising", (double)job->first / count))
            return status_new(STATUS_INTERRUPTED, "stopped while quantising");
        int left = count - job->first;
        quantise_batch(job, left < batch ? left : batch);
        TRY(job->ops->finish(rooms->lanes));
    }
    return NULL;
}

/* Of a device, which has a room for each tensor that is at work, as many as are not too large. */
static int lanes_for(const struct quantized_model *model) {
    const struct backend *ops = model->network->ops;
    int lanes = ops->filling_tokens ? BATCH : ops->lane_count();
    if (lanes > BATCH) lanes = BATCH;
    while (ops->device_memory && lanes > 1 && rooms_bytes(model, lanes) > ROOMS_OF_DEVICE) lanes /= 2;
    return lanes;
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
    size_t running = 0, kept = 0;
    if (net->config.quant_method == METHOD_GPTQ && net->config.quant_calibration != CALIBRATION_NONE)
        TRY(calibration_memory(net, &running, &kept));
    size_t rounding = kept + rooms_bytes(model, lanes_for(model));
    size_t beside = net->ops->device_memory ? net->parameters.total * sizeof(real) : quantized_model_bytes(model);
    *bytes = beside + (running > rounding ? running : rounding);
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
    struct rooms rooms;
    TRY(rooms_create(&rooms, model, lanes_for(model)));
    job->rooms = &rooms;
    for (int i = 0; i < model->count; i++) store_floats(job, &model->tensors[i]);
    status s = quantise_rounded(job, progress, context);
    if (!s) join_notes(model, rooms.notes);
    job->rooms = NULL;
    rooms_destroy(&rooms);
    return s;
}

static status calibrate_and_quantise(struct job *job, const struct dataset *dataset, uint64_t seed,
                                     quantize_progress progress, void *context) {
    struct quantized_model *model = job->model;
    const struct network *net = model->network;
    struct calibration calibration = {0};
    bool calibrated = net->config.quant_method == METHOD_GPTQ;
    double start = clock_seconds();
    if (calibrated && net->config.quant_calibration == CALIBRATION_NONE) {
        snprintf(model->notes, sizeof model->notes, "gptq without statistics is rowwise\n");
    } else if (calibrated) {
        TRY(calibrate(net, job->uploaded, dataset, seed, progress, context, &calibration));
        job->calibration = &calibration;
    }
    double middle = clock_seconds();
    status s = quantise_all(job, progress, context);
    job->calibration = NULL;
    calibration_free(&calibration);
    model->calibration_seconds = middle - start;
    model->quantise_seconds = clock_seconds() - middle;
    return s;
}

static status fill(struct quantized_model *model, const real *weights, const struct dataset *dataset, uint64_t seed,
                   quantize_progress progress, void *context) {
    const struct backend *ops = model->network->ops;
    struct job job = {.model = model, .ops = ops, .weights = weights, .uploaded = weights};
    struct lane lane = {0};
    void *copy = NULL;
    size_t bytes = model->network->parameters.total * sizeof *weights;
    if (ops->device_memory) {
        TRY(ops->memory_new(&copy, bytes, "the weights to quantise"));
        ops->upload(&lane, copy, weights, bytes);
        job.uploaded = copy;
    }
    status s = calibrate_and_quantise(&job, dataset, seed, progress, context);
    if (copy) ops->memory_free(copy);
    return s;
}

status quantize_model(const struct network *net, const real *weights, const struct dataset *dataset, uint64_t seed,
                      quantize_progress progress, void *context, struct quantized_model *out) {
    TRY(quantized_model_allocate(out, net));
    status s = fill(out, weights, dataset, seed, progress, context);
    if (s) quantized_model_free(out);
    return s;
}
