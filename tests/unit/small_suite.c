/* small_suite: see small_suite.h. */
#include "tests/unit/small_suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/files.h"
#include "tests/unit/small_text.h"

const char small_preset[] = "data.name: small\n"
                            "model.vocab_size: 400\n"
                            "model.dim: 16\n"
                            "model.layers: 2\n"
                            "model.mlp_mult: 1\n"
                            "model.bigram_buckets: 64\n"
                            "model.bigram_dim: 8\n"
                            "attention.layers: [1]\n"
                            "attention.heads: 2\n"
                            "attention.kv_heads: 1\n"
                            "attention.rope_dims: 4\n"
                            "mamba.state: 8\n"
                            "mamba.head_dim: 16\n"
                            "mamba.chunk: 8\n"
                            "train.steps: 8\n"
                            "train.batch_tokens: 128\n"
                            "train.sequence: 16\n"
                            "train.slice_tokens: 16\n"
                            "train.warmdown: 4\n"
                            "train.ema: 0.9\n"
                            "quant.calibration_sequences: 2\n"
                            "eval.tokens: 512\n";

const char small_suite[] = "name: small\n"
                           "question: Is it so?\n"
                           "preset: small\n"
                           "seeds: [1, 2]\n"
                           "baseline: none\n"
                           "metric: bpb.artifact\n"
                           "margin: 0.01\n"
                           "test: {kind: paired-t, alpha: 0.05, correction: holm}\n"
                           "variants:\n"
                           "  none: {}\n"
                           "  wide: {model.mlp_mult: 2}\n";

status small_load_with(struct suite *suite, const char *yaml, const char *scale, const char *setting) {
    expect_good(make_directories(small_path("presets")));
    small_write(small_path("presets/small.yaml"), small_preset, strlen(small_preset));
    small_write(small_path("suite.yaml"), yaml, strlen(yaml));
    const struct suite_request request = {
        .path = small_path("suite.yaml"), .scale = scale, .settings = &setting, .setting_count = setting != NULL};
    return suite_load(suite, &request);
}

status small_load(struct suite *suite, const char *yaml) { return small_load_with(suite, yaml, NULL, NULL); }

struct suite small_suite_good(const char *yaml) {
    struct suite suite;
    expect_good(small_load(&suite, yaml));
    return suite;
}

struct dataset_list small_datasets(const char *name, const char *sha256) {
    struct dataset_list list = {.count = 1, .rows = calloc(1, sizeof *list.rows)};
    struct dataset *row = list.rows;
    snprintf(row->name, sizeof row->name, "%s", name);
    snprintf(row->sha256, sizeof row->sha256, "%s", sha256);
    row->vocab_size = 400;
    row->train.count = row->validation.count = 10000;
    row->unigram_nll = 5;
    row->bytes_per_token = 2;
    return list;
}

struct small_plan *small_plan_make(const char *yaml) {
    struct small_plan *p = calloc(1, sizeof *p);
    p->suite = small_suite_good(yaml);
    p->datasets = small_datasets("small", "da7a");
    expect_good(plan_create(&p->plan, &p->suite, &p->datasets, backend_find("cpu")));
    return p;
}

void small_plan_free(struct small_plan *p) {
    plan_free(&p->plan);
    free(p->datasets.rows);
    suite_free(&p->suite);
    free(p);
}

char *small_replace(const char *text, const char *from, const char *to) {
    char *out = NULL;
    size_t size;
    FILE *stream = open_memstream(&out, &size);
    const char *found = strstr(text, from);
    assert_non_null(found);
    for (; found; text = found + strlen(from), found = strstr(text, from))
        fprintf(stream, "%.*s%s", (int)(found - text), text, to);
    fprintf(stream, "%s", text);
    fclose(stream);
    return out;
}
