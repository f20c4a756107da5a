/* report_fixture: invented results; see report_fixture.h. */
#include "tests/unit/report_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"

enum { STEPS = 400 };

static const char *const plain_variants[] = {"none", "recurrence", "no-rope", "int8"};
const struct fixture_names plain_names = {"test-data", "Invented numbers: does the report show what its results hold?",
                                          4, plain_variants};

static const struct random_stream noise = {{17, 4}};
static uint64_t drawn;

static double normal(void) { return random_normal(noise, drawn++); }

static void fill_trace(struct result_run *run, double level) {
    run->step_count = STEPS;
    run->trace = calloc(STEPS, sizeof *run->trace);
    for (int i = 0; i < STEPS; i++) {
        double loss = level + 4.4 * exp(-i / 40.0) + 0.03 * normal();
        run->trace[i] =
            (struct step_record){.step = i, .loss = loss, .multiplier = 1, .milliseconds = 210, .tokens = 8192};
    }
    run->final_loss = run->trace[STEPS - 1].loss;
}

static struct result_evaluation evaluation_of(double bpb) {
    struct result_evaluation e = {.present = true};
    e.value.bpb = bpb;
    e.value.bytes = 1993411;
    e.value.tokens = 851200;
    e.value.nll = bpb * (double)e.value.bytes * log(2.0);
    return e;
}

static void fill_artifact(struct result_run *run, bool wide) {
    const size_t bytes[CLASS_COUNT] = {
        [0] = 262144, [1] = 98304, [2] = 612352, [3] = 131072, [4] = 786432, [5] = 30208};
    for (int c = 0; c < CLASS_COUNT; c++) {
        run->sizes.class_bytes[c] = bytes[c] * (wide && c > 0 && c < 5 ? 4 : 3) / 3;
        run->sizes.raw_bytes += run->sizes.class_bytes[c];
    }
    run->sizes.bytes = run->sizes.raw_bytes * 7 / 8 + (size_t)(1000 * fabs(normal()));
}

static void hex(char out[65], uint64_t seed) {
    for (int i = 0; i < 64; i++) out[i] = "0123456789abcdef"[random_below(noise, seed * 64 + i, 16)];
    out[64] = '\0';
}

static void fill_run(struct results *r, int index, double seed_effect) {
    static const double shift[] = {0.0, -0.021, 0.034, 0.0};
    struct result_run *run = &r->runs[index];
    int v = index % r->variant_count, s = index / r->variant_count;
    double level = 2.21 + seed_effect + shift[v % 4] + 0.0025 * normal();
    *run = (struct result_run){.id = index + 1, .variant = v, .seed = r->seeds[s], .steps = STEPS};
    if (v == 3) level = r->runs[index - 3].raw.value.bpb; /* int8 quantises the training of none */
    run->raw = evaluation_of(level);
    run->averaged = evaluation_of(level - 0.031 + 0.001 * normal());
    run->artifact = evaluation_of(run->averaged.value.bpb + (v == 3 ? 0.0009 : 0.0081) + 0.0006 * normal());
    snprintf(run->status, sizeof run->status, "done");
    run->parameter_count = v == 1 ? 3301128 : 3300104;
    run->train_seconds = 84.0 + 9 * (v == 1) + normal();
    run->tokens_per_second = 8192.0 * STEPS / run->train_seconds;
    run->calibration_seconds = v == 3 ? 0.0 : 2.1 + 0.1 * normal();
    run->quantise_seconds = v == 3 ? 0.12 : 1.4 + 0.1 * normal();
    fill_artifact(run, v == 3);
    fill_trace(run, level * 1.45);
    hex(run->key, (uint64_t)index + 100);
    hex(run->train_key, v == 3 ? (uint64_t)index - 3 : (uint64_t)index);
    hex(run->weights_sha256, (uint64_t)index + 200);
    hex(run->trace_sha256, (uint64_t)index + 300);
    snprintf(run->strategy, sizeof run->strategy, "%s", v == 3 ? "int8-rowwise" : "int6-gptq");
}

static void fill_config(struct config *c) {
    static const struct {
        const char *key, *value;
    } settings[] = {
        {"model.dim", "192"},       {"model.layers", "6"},       {"attention.layers", "3"},
        {"attention.heads", "4"},   {"attention.kv_heads", "2"}, {"attention.rope_dims", "48"},
        {"mamba.state", "32"},      {"mamba.head_dim", "48"},    {"model.bigram_buckets", "1024"},
        {"model.bigram_dim", "64"}, {"train.steps", "400"},      {"train.batch_tokens", "8192"},
        {"train.sequence", "256"},  {"train.warmdown", "200"},
    };
    config_defaults(c);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        status failure = config_set(c, settings[i].key, settings[i].value);
        if (failure) {
            fprintf(stderr, "fixture: %s\n", status_text(failure));
            abort();
        }
    }
}

static void fill_provenance(struct results *r) {
    static const char *const rows[][2] = {
        {"revision", "0.1.0-test (invented)"},
        {"compiler", "gcc 12.2.0"},
        {"flags", "-O3 -march=native"},
        {"cpu", "Test CPU @ 2.00GHz (invented)"},
        {"threads", "2"},
        {"openblas", "OpenBLAS 0.3.21 DYNAMIC_ARCH NO_AFFINITY Haswell MAX_THREADS=64"},
        {"gpu", "none"},
    };
    r->provenance_count = sizeof rows / sizeof *rows;
    r->provenance = calloc((size_t)r->provenance_count, sizeof *r->provenance);
    for (int i = 0; i < r->provenance_count; i++)
        r->provenance[i] = (struct result_text){strdup(rows[i][0]), strdup(rows[i][1])};
}

static void fill_variants(struct results *r, const struct fixture_names *names) {
    static const char *const overrides[] = {"", "recurrence.layers=2,3 recurrence.repeats=1", "attention.rope_dims=0",
                                            "quant.strategy=int8-rowwise"};
    r->variant_count = names->variant_count;
    r->variants = calloc((size_t)names->variant_count, sizeof *r->variants);
    for (int v = 0; v < names->variant_count; v++) {
        snprintf(r->variants[v].name, sizeof r->variants[v].name, "%s", names->variants[v]);
        snprintf(r->variants[v].overrides, sizeof r->variants[v].overrides, "%s", overrides[v % 4]);
    }
}

static void fill_texts(struct results *r, const struct fixture_names *names) {
    snprintf(r->suite, sizeof r->suite, "%s", names->suite);
    snprintf(r->question, sizeof r->question, "%s", names->question);
    snprintf(r->preset, sizeof r->preset, "demo");
    snprintf(r->metric, sizeof r->metric, "bpb.artifact");
    snprintf(r->declared_at, sizeof r->declared_at, "2000-01-01T12:00:00Z");
    snprintf(r->source, sizeof r->source, "suites/test.yaml");
    snprintf(r->dataset, sizeof r->dataset, "gcide");
    hex(r->declaration_sha256, 900);
    hex(r->dataset_sha256, 901);
}

void fixture_results(struct results *r, const struct fixture_names *names, int seeds) {
    static const int64_t some[] = {1337, 42, 7, 2024, 99, 5, 6, 8, 9, 10};
    *r = (struct results){.unigram_bpb = 4.7312, .seed_count = seeds, .run_count = seeds * names->variant_count};
    drawn = 0;
    fill_texts(r, names);
    fill_variants(r, names);
    fill_config(&r->config);
    fill_provenance(r);
    r->design = (struct design){.baseline = r->variants[0].name, .alpha = 0.05, .margin = 0.005, .seed = 1};
    r->seeds = calloc((size_t)seeds, sizeof *r->seeds);
    r->runs = calloc((size_t)r->run_count, sizeof *r->runs);
    for (int s = 0; s < seeds; s++) r->seeds[s] = s < 10 ? some[s] : 100 + s;
    for (int s = 0; s < seeds; s++) {
        double seed_effect = 0.008 * normal();
        for (int v = 0; v < r->variant_count; v++) fill_run(r, s * r->variant_count + v, seed_effect);
    }
}

struct result_run *fixture_run(struct results *r, int variant, int seed) {
    return &r->runs[seed * r->variant_count + variant];
}
