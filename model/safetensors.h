/* safetensors: reading and writing the format (8-byte header length, JSON header, data), with every bound checked
 * before anything is allocated. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

enum tensor_type { TYPE_F64, TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_I64, TYPE_I32, TYPE_I8, TYPE_U8 };
size_t tensor_type_size(enum tensor_type type);

struct stored_tensor {
    char name[128];
    enum tensor_type type;
    int dims;
    size_t shape[4], count;
    const void *data; /* into the file's buffer; not aligned */
};

struct safetensors {
    unsigned char *buffer; /* owned */
    size_t size;
    int count;
    struct stored_tensor *tensors;
    int metadata_count;
    struct {
        char *key, *value;
    } * metadata;
};

/* From a file, or from memory that the call takes over (also when it fails); what names the source in messages. */
status safetensors_read(struct safetensors *file, const char *path);
status safetensors_parse(struct safetensors *file, unsigned char *buffer, size_t size, const char *what);
void safetensors_free(struct safetensors *file);
const struct stored_tensor *safetensors_find(const struct safetensors *file, const char *name); /* NULL when absent */
const char *safetensors_metadata(const struct safetensors *file, const char *key);              /* NULL when absent */

struct metadata_entry {
    const char *key, *value;
};

/* The file's bytes: deterministic; tensors in the order given, end to end as the format
 * wants it, the first on a multiple of 8. Caller frees *buffer. */
status safetensors_build(const struct stored_tensor *tensors, int count, const struct metadata_entry *metadata,
                         int metadata_count, unsigned char **buffer, size_t *size);
