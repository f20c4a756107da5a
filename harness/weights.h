/* weights: a model's parameters in a safetensors file, under the names of the tensors, in the build's precision. */
#pragma once
#include "model/parameters.h"

/* key is kept in the file's metadata. Written atomically. */
status weights_save(const char *path, const struct parameters *parameters, const real *weights, const char *key);

/* Into a buffer of parameters->total reals; gaps become zero. STATUS_DATA naming the file when it is another stage's,
 * holds more than the tensors, a tensor is missing or has another shape, or the hash of all (parameters_sha256) is not
 * the expected one: no byte of the file can change unseen. */
status weights_load(const char *path, const struct parameters *parameters, const char *key, const char *sha256,
                    real *weights);

/* A zeroed buffer for them, 64-byte aligned; free() it. NULL: no memory. */
real *weights_allocate(const struct parameters *parameters);
