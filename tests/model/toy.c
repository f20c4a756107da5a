/* toy: see toy.h. */
#include "tests/model/toy.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"

void assert_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

void assert_failure(status s, enum status_kind kind, const char *words) {
    if (!s) fail_msg("no failure, expected one about \"%s\"", words);
    if (status_kind(s) != kind || !strstr(status_text(s), words) || strchr(status_text(s), '\n'))
        fail_msg("kind %d: %s", (int)status_kind(s), status_text(s));
    status_free(s);
}

static void apply(struct config *config, const char *settings) {
    char copy[1024], *rest;
    snprintf(copy, sizeof copy, "%s", settings);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        assert_good(config_set(config, word, equals + 1));
    }
}

struct config toy_config(const char *settings) {
    struct config config;
    config_defaults(&config);
    apply(&config,
          "model.vocab_size=64 model.dim=32 model.layers=3 model.mlp_mult=2 model.bigram_buckets=97 "
          "model.bigram_dim=12 attention.layers=1 attention.heads=4 attention.kv_heads=2 attention.rope_dims=8 "
          "mamba.state=8 mamba.head_dim=8 mamba.chunk=8 train.sequence=16 train.batch_tokens=256 "
          "train.slice_tokens=16 train.steps=12 train.warmdown=6 train.qat_below=0 "
          "quant.calibration_sequences=4");
    apply(&config, settings);
    assert_good(config_check(&config));
    return config;
}

const struct dataset *toy_dataset(void) {
    static uint16_t tokens[TOY_TOKENS];
    static struct dataset dataset = {.name = "toy", .vocab_size = TOY_VOCAB};
    struct random_stream stream = random_stream(1, "toy text");
    for (size_t i = 0; !dataset.train.count && i < TOY_TOKENS; i++) {
        size_t before = i ? tokens[i - 1] : 0;
        tokens[i] = (uint16_t)((5 * before + 3) % TOY_VOCAB);
        if (random_uniform(stream, 2 * i) < 0.05) tokens[i] = (uint16_t)random_below(stream, 2 * i + 1, TOY_VOCAB);
    }
    dataset.train = (struct token_stream){tokens, TOY_TOKENS};
    return &dataset;
}

struct dataset toy_scored(size_t windows) {
    static uint8_t bytes[TOY_VOCAB], none[TOY_VOCAB];
    memset(bytes, 1, sizeof bytes);
    struct dataset scored = *toy_dataset();
    scored.validation = (struct token_stream){scored.train.tokens, windows * 16 + 6};
    scored.token_bytes = bytes;
    scored.token_space = scored.token_boundary = none;
    return scored;
}

static int one(void) { return 1; }
static int two(void) { return 2; }
static int four(void) { return 4; }

const struct backend *toy_backend(int lanes) {
    static struct backend backends[3];
    int index = lanes == 1 ? 0 : lanes == 2 ? 1 : 2;
    backends[index] = *backend_find("cpu");
    backends[index].lane_count = lanes == 1 ? one : lanes == 2 ? two : four;
    return &backends[index];
}

static char folder[64];

int toy_folder_make(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hinge-model-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    return remove(path);
}

int toy_folder_remove(void **state) {
    (void)state;
    return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *toy_path(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}
