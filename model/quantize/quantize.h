/* quantize: trained weights to stored tensors, by the options quant.*; the mathematics is in kernels/ops.def.
 *
 * Linear weights of more than train.quantise_above elements become integers with fp16 scales; E and smaller linears
 * fp16 (E also int8 on request); the bigram table is quantised like a linear of rows; control tensors stay fp32, or
 * fp16 on request. Under quant.method = ternary every linear weight becomes trits with one fp32 scale, which decode to
 * exactly what ternarize makes of it. */
#pragma once
#include "model/data.h"
#include "model/network.h"

enum storage { STORED_F32, STORED_F16, STORED_INT, STORED_TRITS };
enum { TRITS_PER_BYTE = 5, MOST_PARTS = 5 };

/* Rows of a tensor that are stored the same way. */
struct quantized_part {
    size_t first, rows, count; /* count: elements */
    enum storage storage;
    int bits;           /* STORED_INT */
    size_t group;       /* columns per scale; 0: the row */
    size_t scale_count; /* rows * groups of columns */
    int8_t *integers;
    uint16_t *scales; /* fp16 */
    uint16_t *halves; /* STORED_F16 */
    float *floats;    /* STORED_F32 */
    uint8_t *trits; /* STORED_TRITS: sum of (trit + 1) 3^i over the elements 5k + i, the last byte filled with trit 0 */
    float trit_scale;
    int32_t shape[2]; /* STORED_TRITS: rows and columns, which the bytes do not tell */
};

/* One part, but for in_proj where its rows differ (quant.protect, quant.group_rows). */
struct quantized_tensor {
    const struct tensor *tensor;
    int part_count;
    struct quantized_part parts[MOST_PARTS]; /* in the order of the rows */
};

struct quantized_model {
    const struct network *network; /* borrowed */
    int count;
    struct quantized_tensor *tensors;
    char notes[2048]; /* fallbacks and clips chosen, one line each */
    double calibration_seconds, quantise_seconds;
};

typedef bool (*quantize_progress)(void *context, const char *what, double fraction); /* true: stop */

/* By net->config's quant.* options. weights: the averaged model in master precision, the host's. dataset may be NULL
 * unless quant.calibration is train. */
status quantize_model(const struct network *net, const real *weights, const struct dataset *dataset, uint64_t seed,
                      quantize_progress progress, void *context, struct quantized_model *out);
void quantized_model_free(struct quantized_model *model);

/* Bytes of the backend's memory that quantize_model takes at its peak, calibration included, beside the weights that it
 * is given. */
status quantize_memory(const struct network *net, size_t *bytes);

/* Storage for every tensor as the config wants it, values still unset: for who fills it from a file. */
status quantized_model_allocate(struct quantized_model *model, const struct network *net);
size_t quantized_model_bytes(const struct quantized_model *model); /* of the stored values */

/* The weights that a reader of the stored values gets: all of the buffer, gaps as zeros. */
void quantized_model_decode(const struct quantized_model *model, real *weights);

/* The model that decoded weights make: trits decode to what the linears calculate with, so theirs is a float model. */
struct config quantized_config(const struct config *config);

/* Is the tensor stored as integers under this config, and with how many bits (0: no)? */
int quantize_bits(const struct config *config, const struct tensor *tensor);
