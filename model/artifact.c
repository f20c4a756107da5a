/* artifact: a quantised model as one compressed safetensors file, and back; see artifact.h. */
#include "model/artifact.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"
#include "model/files.h"
#include "model/safetensors.h"
#include "model/xz.h"

enum { LENGTH_BYTES = 8, LONGEST_HEADER = 16 << 20 };
static const char FORMAT[] = "hinge-artifact-1";

/* --- the tensors of the file ------------------------------------------------------------------------------------- */

enum { MOST_ENTRIES = 3 * MOST_PARTS, LARGEST_TRITS = 242 };

/* Rows of a tensor in parts are named "blocks.0.mamba.in_proj[1024:1152]", as Python would slice them. */
static struct stored_tensor entry(const struct quantized_tensor *q, const struct quantized_part *part,
                                  const char *suffix, enum tensor_type type, const void *data) {
    struct stored_tensor stored = {.type = type,
                                   .dims = q->tensor->dims,
                                   .shape = {part->rows, q->tensor->dims == 1 ? 0 : q->tensor->shape[1]},
                                   .count = part->count,
                                   .data = data};
    char rows[48] = "";
    if (q->part_count > 1) snprintf(rows, sizeof rows, "[%zu:%zu]", part->first, part->first + part->rows);
    snprintf(stored.name, sizeof stored.name, "%s%s%s", q->tensor->name, rows, suffix);
    return stored;
}

/* A list of values beside the tensor itself. */
static struct stored_tensor list_entry(const struct quantized_tensor *q, const struct quantized_part *part,
                                       const char *suffix, enum tensor_type type, const void *data, size_t count) {
    struct stored_tensor stored = entry(q, part, suffix, type, data);
    stored.dims = 1;
    stored.count = stored.shape[0] = count;
    stored.shape[1] = 0;
    return stored;
}

static size_t trit_bytes(const struct quantized_part *part) {
    return (part->count + TRITS_PER_BYTE - 1) / TRITS_PER_BYTE;
}

/* The one to three entries under which a part is stored. */
static int part_entries(const struct quantized_tensor *q, const struct quantized_part *part,
                        struct stored_tensor *out) {
    switch (part->storage) {
    case STORED_F32:
        out[0] = entry(q, part, "", TYPE_F32, part->floats);
        return 1;
    case STORED_F16:
        out[0] = entry(q, part, "", TYPE_F16, part->halves);
        return 1;
    case STORED_INT:
        out[0] = entry(q, part, ".q", TYPE_I8, part->integers);
        out[1] = entry(q, part, ".scale", TYPE_F16, part->scales);
        out[1].shape[1] = part->scale_count / part->rows;
        out[1].count = part->scale_count;
        return 2;
    case STORED_TRITS:
        out[0] = list_entry(q, part, ".trits", TYPE_U8, part->trits, trit_bytes(part));
        out[1] = list_entry(q, part, ".scale", TYPE_F32, &part->trit_scale, 1);
        out[2] = list_entry(q, part, ".shape", TYPE_I32, part->shape, 2);
        return 3;
    }
    return 0;
}

static int entries_of(const struct quantized_tensor *q, struct stored_tensor out[MOST_ENTRIES]) {
    int count = 0;
    for (int p = 0; p < q->part_count; p++) count += part_entries(q, &q->parts[p], out + count);
    return count;
}

static size_t entry_bytes(const struct stored_tensor *stored) { return stored->count * tensor_type_size(stored->type); }

static size_t stored_bytes(const struct quantized_tensor *q) {
    struct stored_tensor entries[MOST_ENTRIES];
    size_t bytes = 0;
    for (int i = entries_of(q, entries) - 1; i >= 0; i--) bytes += entry_bytes(&entries[i]);
    return bytes;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

struct metadata {
    char (*values)[512];
    struct metadata_entry *entries;
    int count;
};

static void metadata_free(struct metadata *m) {
    free(m->values);
    free(m->entries);
}

static status metadata_of(const struct config *config, struct metadata *m) {
    m->values = calloc(option_row_count, sizeof *m->values);
    m->entries = calloc(option_row_count + 1, sizeof *m->entries);
    if (!m->values || !m->entries) {
        metadata_free(m);
        return status_new(STATUS_SYSTEM, "artifact: out of memory");
    }
    m->entries[0] = (struct metadata_entry){"format", FORMAT};
    m->count = 1;
    for (size_t i = 0; i < option_row_count; i++)
        if (!option_of_source(&option_rows[i]))
            m->entries[m->count++] =
                (struct metadata_entry){option_rows[i].key, option_text(&option_rows[i], config, m->values[i])};
    return NULL;
}

static status build(const struct quantized_model *model, unsigned char **raw, size_t *raw_size) {
    struct metadata metadata = {0};
    int count = 0;
    struct stored_tensor *entries = calloc(MOST_ENTRIES * (size_t)model->count, sizeof *entries);
    if (!entries) return status_new(STATUS_SYSTEM, "artifact: out of memory");
    for (int i = 0; i < model->count; i++) count += entries_of(&model->tensors[i], entries + count);
    status s = metadata_of(&model->network->config, &metadata);
    if (!s) {
        s = safetensors_build(entries, count, metadata.entries, metadata.count, raw, raw_size);
        metadata_free(&metadata);
    }
    free(entries);
    return s;
}

static void measure(const struct quantized_model *model, struct artifact_sizes *sizes) {
    for (int i = 0; i < model->count; i++) {
        const struct quantized_tensor *q = &model->tensors[i];
        sizes->class_bytes[q->tensor->class] += stored_bytes(q);
        sizes->class_parameters[q->tensor->class] += q->tensor->count;
    }
}

status artifact_write(const struct quantized_model *model, const char *path, struct artifact_sizes *sizes) {
    unsigned char *raw, *packed;
    size_t raw_size, packed_size;
    TRY(build(model, &raw, &raw_size));
    status s = xz_compress(raw, raw_size, &packed, &packed_size);
    free(raw);
    if (s) return status_context(s, "%s", path);
    *sizes = (struct artifact_sizes){.bytes = packed_size, .raw_bytes = raw_size};
    measure(model, sizes);
    bytes_sha256(packed, packed_size, sizes->sha256);
    s = file_write_atomic(path, packed, packed_size);
    free(packed);
    return s;
}

size_t artifact_memory(const struct quantized_model *model) {
    size_t raw = quantized_model_bytes(model);
    return raw + xz_compress_memory(raw);
}

/* --- reading: the declaration ------------------------------------------------------------------------------------ */

struct reader {
    const char *path;
    struct xz_reader *xz;
    size_t most_raw;     /* bytes that it may declare */
    unsigned char *head; /* length and JSON header */
    size_t head_size;
    struct network *net;
    struct quantized_model model;
    struct safetensors file;
};

static status damaged(const struct reader *r, const char *name, const char *problem) {
    return status_new(STATUS_DATA, "%s: not a sound artifact: %s %s", r->path, name, problem);
}

static status read_head(struct reader *r) {
    unsigned char length_bytes[LENGTH_BYTES];
    TRY(xz_read(r->xz, length_bytes, LENGTH_BYTES));
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) length = length << 8 | length_bytes[i];
    if (length > LONGEST_HEADER || length > r->most_raw) return damaged(r, "its header", "is longer than it may be");
    r->head_size = LENGTH_BYTES + (size_t)length;
    r->head = malloc(r->head_size);
    if (!r->head) return status_new(STATUS_SYSTEM, "%s: out of memory", r->path);
    memcpy(r->head, length_bytes, LENGTH_BYTES);
    return xz_read(r->xz, r->head + LENGTH_BYTES, (size_t)length);
}

/* An option refused here is damage of a file, not a mistake on the command line. */
static status in_metadata(const struct reader *r, status s) {
    if (!s) return NULL;
    status damage = status_new(STATUS_DATA, "%s: metadata: %s", r->path, status_text(s));
    status_free(s);
    return damage;
}

static status config_from(const struct reader *r, const json_t *metadata, struct config *config) {
    const char *format = json_string_value(json_object_get(metadata, "format"));
    if (!format || strcmp(format, FORMAT) != 0) return damaged(r, "its metadata", "names another format");
    size_t known = 1;
    for (size_t i = 0; i < option_row_count; i++) known += !option_of_source(&option_rows[i]);
    if (json_object_size(metadata) != known) return damaged(r, "its metadata", "has other options");
    config_defaults(config);
    for (size_t i = 0; i < option_row_count; i++) {
        if (option_of_source(&option_rows[i])) continue;
        const char *value = json_string_value(json_object_get(metadata, option_rows[i].key));
        if (!value) return damaged(r, option_rows[i].key, "is missing in its metadata");
        TRY(in_metadata(r, config_set(config, option_rows[i].key, value)));
    }
    return in_metadata(r, config_check(config));
}

static status read_config(const struct reader *r, struct config *config) {
    json_error_t error;
    json_t *header =
        json_loadb((const char *)r->head + LENGTH_BYTES, r->head_size - LENGTH_BYTES, JSON_REJECT_DUPLICATES, &error);
    if (!header) return damaged(r, "its header:", error.text);
    status s = config_from(r, json_object_get(header, "__metadata__"), config);
    json_decref(header);
    return s;
}

/* --- reading: the values ----------------------------------------------------------------------------------------- */

static status too_large(const struct reader *r, double bytes) {
    return status_new(STATUS_DATA, "%s: declares %.0f bytes of weights; a file of its size holds at most %zu", r->path,
                      bytes, r->most_raw);
}

/* A model larger than the file can hold is refused before any room is made for it. */
static status check_size(const struct reader *r, const struct config *config) {
    struct parameters parameters;
    TRY(parameters_create(&parameters, config));
    size_t least = parameters.elements / TRITS_PER_BYTE;
    parameters_destroy(&parameters);
    return least > r->most_raw ? too_large(r, (double)least) : NULL;
}

/* As many bytes as the declared tensors need, no more. */
static status read_rest(struct reader *r) {
    size_t size = r->head_size;
    for (int i = 0; i < r->model.count; i++) size += stored_bytes(&r->model.tensors[i]);
    if (size > r->most_raw) return too_large(r, (double)size);
    unsigned char *raw = malloc(size);
    if (!raw) return status_new(STATUS_SYSTEM, "%s: %zu bytes of memory were refused", r->path, size);
    memcpy(raw, r->head, r->head_size);
    status s = xz_read(r->xz, raw + r->head_size, size - r->head_size);
    if (!s) {
        s = xz_close(r->xz);
        r->xz = NULL;
    }
    if (!s) return safetensors_parse(&r->file, raw, size, r->path);
    free(raw);
    return s;
}

static status copy_entry(const struct reader *r, const struct stored_tensor *wanted) {
    const struct stored_tensor *found = safetensors_find(&r->file, wanted->name);
    if (!found) return damaged(r, wanted->name, "is missing");
    if (found->type != wanted->type || found->dims != wanted->dims || found->count != wanted->count ||
        memcmp(found->shape, wanted->shape, sizeof found->shape) != 0)
        return damaged(r, wanted->name, "has another type or shape");
    memcpy((void *)wanted->data, found->data, entry_bytes(wanted));
    return NULL;
}

static bool halves_finite(const uint16_t *halves, size_t count) {
    for (size_t i = 0; i < count; i++)
        if ((halves[i] & 0x7C00) == 0x7C00) return false;
    return true;
}

static status check_integers(const struct reader *r, const struct quantized_part *part, const char *name) {
    const int qmax = (1 << (part->bits - 1)) - 1;
    for (size_t i = 0; i < part->count; i++)
        if (part->integers[i] < -qmax || part->integers[i] > qmax)
            return damaged(r, name, "has an integer beyond its bits");
    for (size_t i = 0; i < part->scale_count; i++)
        if (part->scales[i] == 0 || part->scales[i] > HALF_LARGEST)
            return damaged(r, name, "has a scale that is not a positive number");
    return NULL;
}

/* Behind the last element there are only trits 0, digits 1. */
static bool filled_with_zeros(const struct quantized_part *part) {
    size_t used = part->count % TRITS_PER_BYTE;
    int digits = part->trits[trit_bytes(part) - 1];
    for (size_t i = 0; i < used; i++) digits /= 3;
    for (size_t i = used; used > 0 && i < TRITS_PER_BYTE; i++, digits /= 3)
        if (digits % 3 != 1) return false;
    return true;
}

static status check_trits(const struct reader *r, const struct quantized_part *part, const struct tensor *tensor) {
    for (size_t i = 0; i < trit_bytes(part); i++)
        if (part->trits[i] > LARGEST_TRITS) return damaged(r, tensor->name, "has a byte that is not five trits");
    if (!filled_with_zeros(part)) return damaged(r, tensor->name, "has trits behind its last element");
    if (!isfinite(part->trit_scale) || part->trit_scale <= 0)
        return damaged(r, tensor->name, "has a scale that is not a positive number");
    if ((size_t)part->shape[0] != tensor->shape[0] || (size_t)part->shape[1] != tensor->shape[1])
        return damaged(r, tensor->name, "has another shape");
    return NULL;
}

static status check_values(const struct reader *r, const struct quantized_part *part, const struct tensor *tensor) {
    if (part->storage == STORED_INT) return check_integers(r, part, tensor->name);
    if (part->storage == STORED_TRITS) return check_trits(r, part, tensor);
    if (part->storage == STORED_F16 && !halves_finite(part->halves, part->count))
        return damaged(r, tensor->name, "has a value that is not finite");
    for (size_t i = 0; part->storage == STORED_F32 && i < part->count; i++)
        if (!isfinite(part->floats[i])) return damaged(r, tensor->name, "has a value that is not finite");
    return NULL;
}

static status fill_tensor(const struct reader *r, const struct quantized_tensor *q, int *entries_wanted) {
    struct stored_tensor entries[MOST_ENTRIES];
    int count = entries_of(q, entries);
    for (int i = 0; i < count; i++) TRY(copy_entry(r, &entries[i]));
    for (int p = 0; p < q->part_count; p++) TRY(check_values(r, &q->parts[p], q->tensor));
    *entries_wanted += count;
    return NULL;
}

static status fill_model(const struct reader *r) {
    int entries_wanted = 0;
    for (int i = 0; i < r->model.count; i++) TRY(fill_tensor(r, &r->model.tensors[i], &entries_wanted));
    if (r->file.count == entries_wanted) return NULL;
    return damaged(r, "it", "holds tensors that its model has not");
}

static status read_model(struct reader *r, const struct backend *ops, real **weights) {
    struct config config;
    TRY(read_head(r));
    TRY(read_config(r, &config));
    TRY(check_size(r, &config));
    TRY(network_create(r->net, &config, ops, 1, (size_t)config.train_sequence));
    TRY(quantized_model_allocate(&r->model, r->net));
    TRY(read_rest(r));
    TRY(fill_model(r));
    *weights = malloc(r->net->parameters.total * sizeof **weights);
    if (!*weights) return status_new(STATUS_SYSTEM, "%s: out of memory", r->path);
    quantized_model_decode(&r->model, *weights);
    return NULL;
}

static void release(struct reader *r) {
    if (r->xz) xz_abandon(r->xz);
    quantized_model_free(&r->model);
    safetensors_free(&r->file);
    free(r->head);
}

status artifact_read(const char *path, const struct backend *ops, struct network *net, real **weights) {
    unsigned char *packed;
    size_t packed_size;
    struct reader reader = {.path = path, .net = net};
    *net = (struct network){0};
    *weights = NULL;
    TRY(file_read(path, &packed, &packed_size));
    reader.most_raw = ARTIFACT_SPARE + ARTIFACT_EXPANSION * packed_size;
    status s = xz_open(&reader.xz, packed, packed_size, path);
    if (!s) s = read_model(&reader, ops, weights);
    release(&reader);
    free(packed);
    if (s && net->ops) network_destroy(net);
    return s;
}
