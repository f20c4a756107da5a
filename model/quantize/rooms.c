/* rooms: sizes and lays out the memory of a quantisation; see rooms.h. */
#include "model/quantize/rooms.h"

/* The most that any tensor needs of everything. */
struct sizes {
    size_t integers, scales, h, image, scratch; /* elements, scratch in bytes */
};

bool is_rounded(const struct quantized_tensor *tensor) {
    for (int p = 0; p < tensor->part_count; p++)
        if (tensor->parts[p].storage == STORED_INT || tensor->parts[p].storage == STORED_TRITS) return true;
    return false;
}

static void enlarge(size_t *most, size_t count) { *most = count > *most ? count : *most; }

static void measure_tensor(const struct quantized_model *model, const struct quantized_tensor *q, struct sizes *sizes) {
    const struct backend *ops = model->network->ops;
    const size_t rows = q->tensor->shape[0], cols = q->tensor->shape[1];
    const bool gptq = model->network->config.quant_method == METHOD_GPTQ;
    size_t scales = 0;
    if (!is_rounded(q)) return;
    if (q->parts[0].storage == STORED_TRITS) {
        enlarge(&sizes->image, q->tensor->count);
        enlarge(&sizes->scratch, ops->tensor_scratch(q->tensor->count));
        return;
    }
    for (int p = 0; p < q->part_count; p++) scales += q->parts[p].scale_count;
    enlarge(&sizes->integers, q->tensor->count);
    enlarge(&sizes->scales, scales);
    if (gptq || ops->device_memory) enlarge(&sizes->scratch, ops->gptq_scratch(rows, cols));
    if (gptq && ops->device_memory) enlarge(&sizes->h, cols * cols);
}

static void lay_out_host(struct rooms *rooms, const struct quantized_model *model, const struct sizes *sizes,
                         struct arena *arena) {
    size_t count = (size_t)model->count, lanes = (size_t)rooms->lane_count;
    rooms->lanes = arena_take(arena, lanes * sizeof *rooms->lanes);
    rooms->each = arena_take(arena, lanes * sizeof *rooms->each);
    rooms->images = arena_take(arena, lanes * sizeof *rooms->images);
    rooms->order = arena_take(arena, count * sizeof *rooms->order);
    rooms->notes = arena_take(arena, count * sizeof *rooms->notes);
    for (size_t i = 0; i < lanes; i++) {
        real *image = arena_reals(arena, sizes->image);
        if (image) rooms->images[i] = image;
    }
}

/* After lay_out_host. */
static void lay_out(struct rooms *rooms, const struct sizes *sizes, struct arena *arena) {
    for (int i = 0; i < rooms->lane_count; i++) {
        void *scratch = arena_take(arena, sizes->scratch);
        struct room room = {.integers = arena_take(arena, sizes->integers),
                            .scales = arena_take(arena, sizes->scales * sizeof *room.scales),
                            .info = arena_take(arena, MOST_PARTS * sizeof *room.info),
                            .h = sizes->h ? arena_take(arena, sizes->h * sizeof *room.h) : NULL,
                            .image = arena_reals(arena, sizes->image)};
        if (!scratch) continue;
        rooms->lanes[i] = (struct lane){i, scratch, sizes->scratch};
        rooms->each[i] = room;
    }
}

/* Bytes of both arenas. */
static struct sizes size_up(struct rooms *rooms, const struct quantized_model *model, size_t *host_bytes,
                            size_t *bytes) {
    struct sizes sizes = {0};
    struct arena counting = {.ops = model->network->ops}, host = {0};
    for (int i = 0; i < model->count; i++) measure_tensor(model, &model->tensors[i], &sizes);
    lay_out_host(rooms, model, &sizes, &host);
    lay_out(rooms, &sizes, &counting);
    *host_bytes = host.used;
    *bytes = counting.used;
    return sizes;
}

size_t rooms_bytes(const struct quantized_model *model, int lane_count) {
    struct rooms rooms = {.lane_count = lane_count};
    size_t host, bytes;
    size_up(&rooms, model, &host, &bytes);
    return model->network->ops->device_memory ? bytes : host + bytes;
}

static status allocate(struct rooms *rooms, const struct quantized_model *model) {
    size_t host, bytes;
    struct sizes sizes = size_up(rooms, model, &host, &bytes);
    TRY(arena_create(&rooms->host, host, "quantisation"));
    lay_out_host(rooms, model, &sizes, &rooms->host);
    TRY(arena_create_for(&rooms->arena, model->network->ops, bytes, "quantisation"));
    lay_out(rooms, &sizes, &rooms->arena);
    return NULL;
}

status rooms_create(struct rooms *rooms, const struct quantized_model *model, int lane_count) {
    *rooms = (struct rooms){.lane_count = lane_count};
    status s = allocate(rooms, model);
    if (s) rooms_destroy(rooms);
    return s;
}

void rooms_destroy(struct rooms *rooms) {
    arena_destroy(&rooms->arena);
    arena_destroy(&rooms->host);
}
