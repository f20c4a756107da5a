/* safetensors: the format read with every bound checked, and built deterministically; JSON by jansson. */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/files.h"

enum { LENGTH_BYTES = 8, LONGEST_HEADER = 100 * 1000 * 1000, TENSOR_LIMIT = 1 << 20 };

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [TYPE_F64] = {"F64", 8}, [TYPE_F32] = {"F32", 4}, [TYPE_F16] = {"F16", 2}, [TYPE_BF16] = {"BF16", 2},
    [TYPE_I64] = {"I64", 8}, [TYPE_I32] = {"I32", 4}, [TYPE_I8] = {"I8", 1},   [TYPE_U8] = {"U8", 1},
};

size_t tensor_type_size(enum tensor_type type) { return types[type].size; }

/* --- reading ----------------------------------------------------------------------------------------------------- */

struct reader {
    struct safetensors *file;
    const char *what;
    size_t data_start, data_size;
};

static status damaged(const struct reader *r, const char *tensor, const char *problem) {
    return status_new(STATUS_DATA, "%s: not a sound safetensors file: %s%.80s%s%s", r->what, tensor ? "tensor \"" : "",
                      tensor ? tensor : "", tensor ? "\" " : "", problem);
}

static status read_type(const struct reader *r, const json_t *entry, struct stored_tensor *tensor) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) {
            tensor->type = (enum tensor_type)i;
            return NULL;
        }
    return damaged(r, tensor->name, "has an unknown dtype");
}

/* A JSON integer from 0 to limit. */
static bool read_size(const json_t *value, size_t limit, size_t *size) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *size = (size_t)json_integer_value(value);
    return *size <= limit;
}

static status read_shape(const struct reader *r, const json_t *entry, struct stored_tensor *tensor) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > 4)
        return damaged(r, tensor->name, "has no shape of at most 4 dimensions");
    tensor->dims = (int)json_array_size(shape);
    tensor->count = 1;
    for (int i = 0; i < tensor->dims; i++) {
        size_t *length = &tensor->shape[i];
        if (!read_size(json_array_get(shape, (size_t)i), r->data_size, length) ||
            __builtin_mul_overflow(tensor->count, *length, &tensor->count))
            return damaged(r, tensor->name, "has a shape beyond the file's size");
    }
    return NULL;
}

static status read_offsets(const struct reader *r, const json_t *entry, struct stored_tensor *tensor) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    size_t begin, end, bytes;
    if (json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), r->data_size, &begin) ||
        !read_size(json_array_get(offsets, 1), r->data_size, &end) || begin > end)
        return damaged(r, tensor->name, "has offsets outside the file");
    if (__builtin_mul_overflow(tensor->count, types[tensor->type].size, &bytes) || bytes != end - begin)
        return damaged(r, tensor->name, "has a shape that does not match its bytes");
    tensor->data = r->file->buffer + r->data_start + begin;
    return NULL;
}

static status read_tensor(const struct reader *r, const char *name, const json_t *entry) {
    struct stored_tensor *tensor = &r->file->tensors[r->file->count];
    if (strlen(name) >= sizeof tensor->name) return damaged(r, name, "has a name of more than 127 bytes");
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return damaged(r, name, "is not described by dtype, shape and data_offsets");
    memcpy(tensor->name, name, strlen(name) + 1);
    TRY(read_type(r, entry, tensor));
    TRY(read_shape(r, entry, tensor));
    TRY(read_offsets(r, entry, tensor));
    r->file->count++;
    return NULL;
}

static status read_metadata(const struct reader *r, const json_t *metadata) {
    if (!json_is_object(metadata)) return damaged(r, NULL, "__metadata__ is not an object");
    struct safetensors *file = r->file;
    file->metadata = calloc(json_object_size(metadata) + 1, sizeof *file->metadata);
    if (!file->metadata) return status_new(STATUS_SYSTEM, "%s: out of memory", r->what);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value)) return damaged(r, NULL, "a value of __metadata__ is not a string");
        char *copy = strdup(key), *text = strdup(json_string_value(value));
        file->metadata[file->metadata_count].key = copy;
        file->metadata[file->metadata_count++].value = text;
        if (!copy || !text) return status_new(STATUS_SYSTEM, "%s: out of memory", r->what);
    }
    return NULL;
}

static int by_address(const void *a, const void *b) {
    const struct stored_tensor *x = *(const struct stored_tensor *const *)a,
                               *y = *(const struct stored_tensor *const *)b;
    if (x->data != y->data) return (x->data > y->data) - (x->data < y->data);
    return (x->count > y->count) - (x->count < y->count);
}

/* The format's rule: the tensors cover the data from end to end, without holes or overlap. */
static status check_cover(const struct reader *r) {
    size_t count = (size_t)r->file->count;
    const struct stored_tensor **order = malloc((count + 1) * sizeof *order);
    if (!order) return status_new(STATUS_SYSTEM, "%s: out of memory", r->what);
    for (size_t i = 0; i < count; i++) order[i] = &r->file->tensors[i];
    qsort(order, count, sizeof *order, by_address);
    const unsigned char *at = r->file->buffer + r->data_start;
    status s = NULL;
    for (size_t i = 0; i < count && !s; i++) {
        if (order[i]->data != at) s = damaged(r, order[i]->name, "overlaps another or leaves a hole before it");
        at += order[i]->count * types[order[i]->type].size;
    }
    if (!s && at != r->file->buffer + r->data_start + r->data_size)
        s = damaged(r, NULL, "there are bytes behind the last tensor");
    free(order);
    return s;
}

static status read_header(const struct reader *r, const json_t *header) {
    if (!json_is_object(header)) return damaged(r, NULL, "the header is not an object");
    if (json_object_size(header) > TENSOR_LIMIT) return damaged(r, NULL, "it names more than a million tensors");
    r->file->tensors = calloc(json_object_size(header) + 1, sizeof *r->file->tensors);
    if (!r->file->tensors) return status_new(STATUS_SYSTEM, "%s: out of memory", r->what);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)header, key, value) {
        if (strcmp(key, "__metadata__") == 0)
            TRY(read_metadata(r, value));
        else
            TRY(read_tensor(r, key, value));
    }
    return check_cover(r);
}

static size_t little_endian(const unsigned char *bytes) {
    uint64_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return (size_t)value;
}

static status parse(struct reader *r) {
    struct safetensors *file = r->file;
    if (file->size < LENGTH_BYTES) return damaged(r, NULL, "it is shorter than 8 bytes");
    size_t length = little_endian(file->buffer);
    if (length > file->size - LENGTH_BYTES || length > LONGEST_HEADER)
        return damaged(r, NULL, "its header is longer than the file");
    r->data_start = LENGTH_BYTES + length;
    r->data_size = file->size - r->data_start;
    json_error_t error;
    json_t *header = json_loadb((const char *)file->buffer + LENGTH_BYTES, length, JSON_REJECT_DUPLICATES, &error);
    if (!header)
        return status_new(STATUS_DATA, "%s: not a sound safetensors file: header, byte %d: %s", r->what, error.position,
                          error.text);
    status s = read_header(r, header);
    json_decref(header);
    return s;
}

status safetensors_parse(struct safetensors *file, unsigned char *buffer, size_t size, const char *what) {
    *file = (struct safetensors){.buffer = buffer, .size = size};
    struct reader reader = {.file = file, .what = what};
    status s = parse(&reader);
    if (s) safetensors_free(file);
    return s;
}

status safetensors_read(struct safetensors *file, const char *path) {
    unsigned char *buffer;
    size_t size;
    *file = (struct safetensors){0};
    TRY(file_read(path, &buffer, &size));
    return safetensors_parse(file, buffer, size, path);
}

void safetensors_free(struct safetensors *file) {
    for (int i = 0; i < file->metadata_count; i++) {
        free(file->metadata[i].key);
        free(file->metadata[i].value);
    }
    free(file->metadata);
    free(file->tensors);
    free(file->buffer);
    *file = (struct safetensors){0};
}

const struct stored_tensor *safetensors_find(const struct safetensors *file, const char *name) {
    for (int i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key) {
    for (int i = 0; i < file->metadata_count; i++)
        if (strcmp(file->metadata[i].key, key) == 0) return file->metadata[i].value;
    return NULL;
}

/* --- building ---------------------------------------------------------------------------------------------------- */

static size_t tensor_bytes(const struct stored_tensor *tensor) { return tensor->count * types[tensor->type].size; }

static json_t *describe(const struct stored_tensor *tensor, size_t begin) {
    json_t *shape = json_array();
    for (int i = 0; i < tensor->dims; i++) json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", types[tensor->type].name, "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + tensor_bytes(tensor)));
}

/* NULL when a name or value is not UTF-8, or memory is out. */
static char *header_text(const struct stored_tensor *tensors, int count, const struct metadata_entry *metadata,
                         int metadata_count, size_t *data_size) {
    json_t *header = json_object(), *texts = json_object();
    int failed = 0;
    for (int i = 0; i < metadata_count; i++)
        failed |= json_object_set_new(texts, metadata[i].key, json_string(metadata[i].value));
    if (metadata_count > 0)
        failed |= json_object_set_new(header, "__metadata__", texts);
    else
        json_decref(texts);
    *data_size = 0;
    for (int i = 0; i < count; i++) {
        failed |= json_object_set_new(header, tensors[i].name, describe(&tensors[i], *data_size));
        *data_size += tensor_bytes(&tensors[i]);
    }
    char *text = failed ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

static void assemble(unsigned char *out, const char *header, size_t padded, const struct stored_tensor *tensors,
                     int count) {
    for (int i = 0; i < LENGTH_BYTES; i++) out[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    size_t length = strlen(header);
    memcpy(out + LENGTH_BYTES, header, length);
    memset(out + LENGTH_BYTES + length, ' ', padded - length);
    unsigned char *at = out + LENGTH_BYTES + padded;
    for (int i = 0; i < count; i++) {
        size_t bytes = tensor_bytes(&tensors[i]);
        if (bytes) memcpy(at, tensors[i].data, bytes);
        at += bytes;
    }
}

status safetensors_build(const struct stored_tensor *tensors, int count, const struct metadata_entry *metadata,
                         int metadata_count, unsigned char **buffer, size_t *size) {
    size_t data_size;
    char *header = header_text(tensors, count, metadata, metadata_count, &data_size);
    if (!header) return status_new(STATUS_DATA, "safetensors: a name or metadata value is not UTF-8, or memory is out");
    size_t padded = (strlen(header) + 7) / 8 * 8;
    *size = LENGTH_BYTES + padded + data_size;
    *buffer = malloc(*size);
    status s = *buffer ? NULL : status_new(STATUS_SYSTEM, "safetensors: %zu bytes of memory were refused", *size);
    if (!s) assemble(*buffer, header, padded, tensors, count);
    free(header);
    return s;
}
