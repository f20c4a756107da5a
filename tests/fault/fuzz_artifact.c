/* fuzz_artifact: compressed models. */
#include <stdlib.h>
#include <string.h>

#include "model/artifact.h"
#include "model/files.h"
#include "model/xz.h"
#include "tests/fault/fuzz.h"
#include "tests/fault/tiny_model.h"

enum { COMPRESSED_HERE = 1 };

/* Behind a first byte that is odd stands what is to be compressed: a changed .xz file fails its own checks at once. */
static unsigned char *compressed(const uint8_t *data, size_t *size) {
    unsigned char *file;
    size_t content = *size ? *size - 1 : 0;
    if (*size && (data[0] & COMPRESSED_HERE)) {
        fuzz_need(xz_compress(data + 1, content, &file, size));
        return file;
    }
    file = malloc(content + 1);
    if (!file) abort();
    if (content) memcpy(file, data + 1, content);
    *size = content;
    return file;
}

static void read_artifact(const char *path) {
    struct network net;
    real *weights;
    status s = artifact_read(path, fuzz_backend(), &net, &weights);
    if (!s) network_destroy(&net);
    free(s ? NULL : weights);
    status_free(s);
}

/* --- seeds -------------------------------------------------------------------------------------------------------- */

static void seed_raw(const char *name, const unsigned char *packed, size_t packed_size, size_t raw_size) {
    struct xz_reader *reader;
    unsigned char *raw = malloc(raw_size);
    if (!raw) abort();
    fuzz_need(xz_open(&reader, packed, packed_size, name));
    fuzz_need(xz_read(reader, raw, raw_size));
    fuzz_need(xz_close(reader));
    fuzz_seed(name, COMPRESSED_HERE, raw, raw_size);
    free(raw);
}

static void seed_strategy(const char *name, const char *settings, bool packed_too) {
    struct config config = fuzz_config(settings);
    struct network net;
    struct quantized_model model = {0};
    struct artifact_sizes sizes;
    unsigned char *packed;
    size_t packed_size;
    fuzz_need(network_create(&net, &config, fuzz_backend(), 1, (size_t)config.train_sequence));
    real *weights = calloc(net.parameters.total, sizeof *weights);
    if (!weights) abort();
    fuzz_need(parameters_initialise(&net.parameters, weights, 1));
    fuzz_need(quantize_model(&net, weights, fuzz_dataset(), 1, NULL, NULL, &model));
    fuzz_need(artifact_write(&model, fuzz_scratch(), &sizes));
    fuzz_need(file_read(fuzz_scratch(), &packed, &packed_size));
    seed_raw(name, packed, packed_size, sizes.raw_bytes);
    if (packed_too) fuzz_seed("packed", 0, packed, packed_size);
    free(packed);
    free(weights);
    quantized_model_free(&model);
    network_destroy(&net);
}

static void seeds(void) {
    seed_strategy("int8", "quant.strategy=int8-rowwise", true);
    seed_strategy("int4", "quant.strategy=int8-rowwise quant.bits=4", false);
    seed_strategy("ternary", "quant.strategy=ternary model.linear=ternary", false);
}

/* What liblzma's decoder holds (64 MiB of dictionary and its state, at most), and what the file may declare. */
const struct fuzz_target fuzz_target = {.spare = (72u << 20) + ARTIFACT_MEMORY * ARTIFACT_SPARE,
                                        .factor = ARTIFACT_MEMORY * ARTIFACT_EXPANSION,
                                        .prepare = compressed,
                                        .read = read_artifact,
                                        .seeds = seeds};
