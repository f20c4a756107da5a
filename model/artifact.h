/* artifact: the file that a competition would ship: one .xz stream (preset 9 | EXTREME, CRC64) around a safetensors
 * file with integers as I8, scales as F16 and the config as metadata; Python opens it with lzma and safetensors.
 *
 *   NAME                        fp16 or fp32 values
 *   NAME.q, NAME.scale          integers (rows, cols) and scales (rows, groups): value = q * scale
 *   NAME.trits, .scale, .shape  five trits a byte, base 3, first element lowest, 0 1 2 for -1 0 1; one F32 scale
 *   NAME[a:b]...                rows a to b-1 of a tensor whose rows are stored in different ways
 *
 * I8 and U8 are the types of .q and .trits alone ("attn.q" is a tensor of its own). */
#pragma once
#include "model/quantize/quantize.h"

#define ARTIFACT_CAP_BYTES 16000000

/* A file may declare at most so many bytes before compression: ARTIFACT_EXPANSION for each of its own and
 * ARTIFACT_SPARE on top. Stored weights shrink by a few times, so this refuses only files made to exhaust memory;
 * reading allocates at most ARTIFACT_MEMORY times as much as they may declare (five trits a byte, each a real once
 * decoded). */
#define ARTIFACT_EXPANSION 64
#define ARTIFACT_SPARE (1 << 20)
#define ARTIFACT_MEMORY (5 * sizeof(real) + 8)

struct artifact_sizes {
    size_t bytes;                    /* of the file */
    size_t raw_bytes;                /* before compression */
    size_t class_bytes[CLASS_COUNT]; /* before compression, by tensor class, scales included */
    size_t class_parameters[CLASS_COUNT];
    char sha256[65];
};

status artifact_write(const struct quantized_model *model, const char *path, struct artifact_sizes *sizes);

/* Bytes that artifact_write takes beside the model. */
size_t artifact_memory(const struct quantized_model *model);

/* Config from the metadata, weights decoded into a new buffer of net->parameters.total reals (caller frees, and
 * destroys net). A damaged, truncated or hostile file gives an error naming what is wrong, never a partial model. */
status artifact_read(const char *path, const struct backend *ops, struct network *net, real **weights);
