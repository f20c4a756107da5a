/* scored_model: a small model and a text that tests of evaluation score. Tests may set options; they set them back. */
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"
#include "model/evaluation.h"

static inline void expect_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

static inline void expect_failure(status s, enum status_kind kind, const char *word) {
    assert_non_null(s);
    assert_int_equal(status_kind(s), kind);
    if (!strstr(status_text(s), word)) fail_msg("no \"%s\" in: %s", word, status_text(s));
    status_free(s);
}

enum { VOCABULARY = 40, TOKENS = 301, TIME = 16 };

static uint16_t tokens[TOKENS];
static uint8_t token_bytes[VOCABULARY], token_space[VOCABULARY], token_boundary[VOCABULARY];
static const struct dataset dataset = {.name = "made up",
                                       .vocab_size = VOCABULARY,
                                       .validation = {tokens, TOKENS},
                                       .token_bytes = token_bytes,
                                       .token_space = token_space,
                                       .token_boundary = token_boundary};
static struct config config;
static real *weights;
static size_t weight_count;

static inline void set(const char *key, const char *value) { expect_good(config_set(&config, key, value)); }

/* A hybrid of two layers with weights large enough for the losses to differ from token to token. */
static inline void make_model(void) {
    static const char *const options[][2] = {
        {"model.vocab_size", "40"},     {"model.dim", "16"},         {"model.layers", "2"},
        {"model.bigram_buckets", "16"}, {"model.bigram_dim", "8"},   {"attention.layers", "1"},
        {"attention.heads", "2"},       {"attention.kv_heads", "1"}, {"attention.rope_dims", "4"},
        {"mamba.state", "4"},           {"mamba.head_dim", "8"},     {"mamba.chunk", "8"},
        {"recurrence.layers", "1"},     {"train.sequence", "16"},    {"train.slice_tokens", "48"},
        {"train.batch_tokens", "128"},  {"eval.tail", "keep"},
    };
    config_defaults(&config);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) set(options[i][0], options[i][1]);
    expect_good(config_check(&config));
    struct parameters parameters;
    expect_good(parameters_create(&parameters, &config));
    weight_count = parameters.total;
    weights = malloc(weight_count * sizeof *weights);
    struct random_stream random = random_stream(3, "test weights");
    for (size_t i = 0; i < weight_count; i++) weights[i] = (real)(0.3 * random_normal(random, i));
    parameters_destroy(&parameters);
}

static inline int make(void **state) {
    (void)state;
    struct random_stream random = random_stream(1, "test tokens");
    for (size_t i = 0; i < VOCABULARY; i++) {
        token_boundary[i] = i < 3;
        token_space[i] = i >= 3 && i % 3 == 0;
        token_bytes[i] = i < 3 ? 0 : (uint8_t)(1 + i % 5);
    }
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] =
            random_below(random, 2 * i, 9) ? (uint16_t)(3 + random_below(random, 2 * i + 1, VOCABULARY - 3)) : BOS_ID;
    make_model();
    return 0;
}

static inline int drop(void **state) {
    (void)state;
    free(weights);
    return 0;
}

static inline struct evaluation run(void) {
    struct evaluation out;
    expect_good(evaluate(&config, backend_find("cpu"), weights, &dataset, NULL, NULL, &out));
    return out;
}

static inline void set_ttt(const char *chunk, const char *optimizer, const char *rate, const char *epochs) {
    set("eval.mode", "ttt");
    set("eval.ttt_chunk", chunk);
    set("eval.ttt_optimizer", optimizer);
    set("eval.ttt_rate", rate);
    set("eval.ttt_epochs", epochs);
    expect_good(config_check(&config));
}

static inline int one_lane(void) { return 1; }
static inline int three_lanes(void) { return 3; }

static inline void expect_close(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance * fabs(b))) fail_msg("%.15g is not %.15g", a, b);
}

/* Windows in batches of 3 against one at a time: float32 matrix products of other shapes, sums of 16 terms. */
static const double tolerance = sizeof(real) == 8 ? 1e-12 : 1e-5;
