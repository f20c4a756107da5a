/* weights: parameters to and from safetensors; see weights.h. */
#include "harness/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files.h"
#include "model/safetensors.h"

static const enum tensor_type real_type = sizeof(real) == 4 ? TYPE_F32 : TYPE_F64;

real *weights_allocate(const struct parameters *parameters) {
    size_t bytes = (parameters->total * sizeof(real) + 63) / 64 * 64;
    real *weights = aligned_alloc(64, bytes);
    if (weights) memset(weights, 0, bytes);
    return weights;
}

static void describe(const struct tensor *tensor, const real *weights, struct stored_tensor *stored) {
    *stored = (struct stored_tensor){.type = real_type,
                                     .dims = tensor->dims,
                                     .shape = {tensor->shape[0], tensor->shape[1]},
                                     .count = tensor->count,
                                     .data = weights + tensor->offset};
    snprintf(stored->name, sizeof stored->name, "%s", tensor->name);
}

status weights_save(const char *path, const struct parameters *parameters, const real *weights, const char *key) {
    struct stored_tensor *stored = calloc((size_t)parameters->count, sizeof *stored);
    struct metadata_entry metadata = {"stage", key};
    unsigned char *bytes = NULL;
    size_t size = 0;
    if (!stored) return status_new(STATUS_SYSTEM, "%s: out of memory", path);
    for (int i = 0; i < parameters->count; i++) describe(&parameters->tensors[i], weights, &stored[i]);
    status s = safetensors_build(stored, parameters->count, &metadata, 1, &bytes, &size);
    if (!s) s = file_write_atomic(path, bytes, size);
    free(stored);
    free(bytes);
    return s;
}

static status copy_tensor(const char *path, const struct safetensors *file, const struct tensor *tensor,
                          real *weights) {
    const struct stored_tensor *stored = safetensors_find(file, tensor->name);
    if (!stored) return status_new(STATUS_DATA, "%s: lacks the tensor %s", path, tensor->name);
    bool fits = stored->type == real_type && stored->dims == tensor->dims && stored->count == tensor->count;
    for (int i = 0; i < tensor->dims && fits; i++) fits = stored->shape[i] == tensor->shape[i];
    if (!fits) return status_new(STATUS_DATA, "%s: tensor %s has another shape or type", path, tensor->name);
    memcpy(weights + tensor->offset, stored->data, tensor->count * sizeof(real));
    return NULL;
}

static status check_stage(const char *path, const struct safetensors *file, int tensors, const char *key) {
    const char *stage = safetensors_metadata(file, "stage");
    if (!stage || strcmp(stage, key) != 0 || file->metadata_count != 1)
        return status_new(STATUS_DATA, "%s: does not name the stage %.12s: the file is damaged or another's", path,
                          key);
    if (file->count == tensors) return NULL;
    return status_new(STATUS_DATA, "%s: holds %d tensors, the model has %d", path, file->count, tensors);
}

status weights_load(const char *path, const struct parameters *parameters, const char *key, const char *sha256,
                    real *weights) {
    struct safetensors file;
    char found[65];
    TRY(safetensors_read(&file, path));
    status s = check_stage(path, &file, parameters->count, key);
    for (int i = 0; i < parameters->count && !s; i++) s = copy_tensor(path, &file, &parameters->tensors[i], weights);
    safetensors_free(&file);
    TRY(s);
    parameters_sha256(parameters, weights, found);
    if (strcmp(found, sha256) == 0) return NULL;
    return status_new(STATUS_DATA, "%s: its weights have the hash %.12s, stored was %.12s: the file is damaged", path,
                      found, sha256);
}
