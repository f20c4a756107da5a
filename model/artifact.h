/* artifact: the file that a competition would ship: one .xz stream (preset 9 | EXTREME, CRC64) around a safetensors
 * file with integers as I8, scales as F16 and the config as metadata; Python opens it with lzma and safetensors. */
#pragma once
#include "model/quantize/quantize.h"

#define ARTIFACT_CAP_BYTES 16000000

struct artifact_sizes {
    size_t bytes;                    /* of the file */
    size_t raw_bytes;                /* before compression */
    size_t class_bytes[CLASS_COUNT]; /* before compression, by tensor class, scales included */
    size_t class_parameters[CLASS_COUNT];
    char sha256[65];
};

status artifact_write(const struct quantized_model *model, const char *path, struct artifact_sizes *sizes);

/* Config from the metadata, weights decoded into a new buffer of net->parameters.total reals (caller frees, and
 * destroys net). A damaged, truncated or hostile file gives an error naming what is wrong, never a partial model. */
status artifact_read(const char *path, const struct backend *ops, struct network *net, real **weights);
