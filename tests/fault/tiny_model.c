/* tiny_model: see tiny_model.h. */
#include "tests/fault/tiny_model.h"

#include <stdio.h>
#include <string.h>

#include "tests/fault/fuzz.h"

enum { VOCAB = 16, TOKENS = 1000 };

static void apply(struct config *config, const char *settings) {
    char copy[1024], *rest;
    snprintf(copy, sizeof copy, "%s", settings);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        fuzz_need(config_set(config, word, equals + 1));
    }
}

struct config fuzz_config(const char *settings) {
    struct config config;
    config_defaults(&config);
    apply(&config, "model.vocab_size=16 model.dim=8 model.layers=1 model.mlp_mult=1 model.bigram_buckets=4 "
                   "model.bigram_dim=4 attention.layers= attention.heads=1 attention.kv_heads=1 "
                   "attention.rope_dims=2 mamba.state=4 mamba.head_dim=8 mamba.chunk=8 train.sequence=8 "
                   "train.batch_tokens=64 train.slice_tokens=8 train.steps=8 train.warmdown=4 train.qat_below=0 "
                   "train.quantise_above=16 quant.calibration_sequences=1");
    apply(&config, settings);
    fuzz_need(config_check(&config));
    return config;
}

const struct dataset *fuzz_dataset(void) {
    static uint16_t tokens[TOKENS];
    static struct dataset dataset = {.name = "fuzz", .vocab_size = VOCAB};
    for (size_t i = 0; i < TOKENS; i++) tokens[i] = (uint16_t)(i * i % VOCAB);
    dataset.train = (struct token_stream){tokens, TOKENS};
    return &dataset;
}

static int one(void) { return 1; }

const struct backend *fuzz_backend(void) {
    static struct backend backend;
    backend = *backend_find("cpu");
    backend.lane_count = one;
    return &backend;
}
