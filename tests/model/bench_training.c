/* bench_training: training and sampling speed of the presets, against this machine's product rate of the same run.
 *
 * Share = (counted FLOPs of forward and backward per token, network_training_flops) * tokens/s / product rate. The
 * optimiser's own FLOPs are work but not counted as useful. Sampling (GPTQ's self-calibration) is timed at two lengths:
 * work per token must not grow with the prefix. Usage: bench_training [tiny|small|nemotron-h ...] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"
#include "kernels/random.h"
#include "kernels/rates.h"
#include "model/decoder.h"
#include "model/trainer.h"

struct bench_row {
    const char *preset;
    const char *settings[24]; /* laid over the options' defaults */
    int steps;                /* timed, after one that is not */
};

/* The presets of suites/presets at a batch that a CPU finishes in seconds: the model's shapes are the preset's. */
static const struct bench_row rows[] = {
    {"tiny",
     {"model.dim=32", "model.layers=4", "attention.layers=2", "attention.heads=2", "attention.kv_heads=1",
      "attention.rope_dims=16", "mamba.state=16", "mamba.head_dim=16", "model.bigram_buckets=512",
      "model.bigram_dim=16", "train.sequence=64", "train.batch_tokens=2048"},
     20},
    {"small",
     {"model.dim=256", "attention.heads=4", "attention.kv_heads=2", "train.sequence=512", "train.batch_tokens=8192"},
     3},
    {"nemotron-h", {"train.sequence=1024", "train.batch_tokens=8192"}, 1},
};

static uint16_t *random_tokens(size_t count, size_t vocab) {
    uint16_t *tokens = malloc(count * sizeof *tokens);
    struct random_stream stream = random_stream(1, "bench tokens");
    for (size_t i = 0; tokens && i < count; i++) tokens[i] = (uint16_t)random_below(stream, i, vocab);
    return tokens;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static status median_step(struct trainer *trainer, int steps, double *seconds) {
    double times[64];
    struct step_record record;
    TRY(trainer_step(trainer, &record));
    for (int i = 0; i < steps; i++) {
        TRY(trainer_step(trainer, &record));
        times[i] = record.milliseconds / 1e3;
    }
    qsort(times, (size_t)steps, sizeof *times, by_value);
    *seconds = times[steps / 2];
    return NULL;
}

static status configure(struct config *config, const struct bench_row *row) {
    config_defaults(config);
    for (int i = 0; row->settings[i]; i++) {
        char key[64];
        const char *value = strchr(row->settings[i], '=');
        snprintf(key, sizeof key, "%.*s", (int)(value - row->settings[i]), row->settings[i]);
        TRY(config_set(config, key, value + 1));
    }
    return config_check(config);
}

static void print_row(const struct bench_row *row, const struct trainer *trainer, double seconds, double product_rate,
                      size_t bytes) {
    const struct network *net = trainer_network(trainer);
    const struct config *config = &net->config;
    double flops = network_training_flops(net, false, (size_t)config->train_sequence);
    double tokens = (double)config->train_batch_tokens / seconds;
    printf("%-11s %8.2f M %6lld x %-5lld %9.3f %10.0f %10.2f %9.1f %8.1f %% %9.0f\n", row->preset,
           (double)net->parameters.elements / 1e6, (long long)(config->train_batch_tokens / config->train_sequence),
           (long long)config->train_sequence, seconds, tokens, flops / 1e6, flops * tokens / 1e9,
           100.0 * flops * tokens / product_rate, (double)bytes / 1e6);
}

static status bench(const struct bench_row *row, const struct backend *ops, double product_rate) {
    struct config config;
    TRY(configure(&config, row));
    size_t count = 1 << 20, bytes;
    struct dataset data = {.vocab_size = (size_t)config.model_vocab_size};
    uint16_t *tokens = random_tokens(count, data.vocab_size);
    data.train = data.validation = (struct token_stream){tokens, count};
    struct trainer *trainer;
    TRY(trainer_memory(&config, ops, &bytes));
    TRY(trainer_create(&trainer, &config, ops, &data, 1));
    double seconds;
    TRY(median_step(trainer, row->steps, &seconds));
    print_row(row, trainer, seconds, product_rate, bytes);
    trainer_destroy(trainer);
    free(tokens);
    return NULL;
}

/* Milliseconds per token of 16 sequences sampled side by side. */
static status sampling_cost(const struct network *net, const real *weights, size_t time, double *milliseconds) {
    enum { SEQUENCES = 16 };
    int32_t *tokens = malloc(SEQUENCES * time * sizeof *tokens);
    if (!tokens) return status_new(STATUS_SYSTEM, "out of memory");
    double start = clock_seconds();
    status s = decoder_sample(net, weights, false, SEQUENCES, time, 0.8, 1, NULL, NULL, tokens);
    *milliseconds = 1e3 * (clock_seconds() - start) / (double)(SEQUENCES * time);
    free(tokens);
    return s;
}

/* The cost per token at a quarter of T and at T; equal when it does not depend on the prefix. */
static status bench_sampling(const struct bench_row *row, const struct backend *ops) {
    struct config config;
    TRY(configure(&config, row));
    struct network net;
    size_t time = (size_t)config.train_sequence < 512 ? (size_t)config.train_sequence : 512;
    TRY(network_create(&net, &config, ops, 1, time));
    real *weights = calloc(network_weight_reals(&net), sizeof *weights);
    double early = 0, whole = 0;
    status s =
        weights ? parameters_initialise(&net.parameters, weights, 1) : status_new(STATUS_SYSTEM, "out of memory");
    if (!s) network_round(&net, &(struct lane){0}, weights);
    if (!s) s = sampling_cost(&net, weights, time / 4, &early);
    if (!s) s = sampling_cost(&net, weights, time, &whole);
    if (!s)
        printf("%-11s %10zu tokens %8.3f ms/token %10zu tokens %8.3f ms/token   ratio %.2f\n", row->preset, time / 4,
               early, time, whole, whole / early);
    free(weights);
    network_destroy(&net);
    return s;
}

static bool wanted(const char *preset, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], preset) == 0) return true;
    return argc == 1;
}

/* Training with a product rate, else sampling. */
static int run_rows(int argc, char **argv, const struct backend *ops, double product_rate) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!wanted(rows[i].preset, argc, argv)) continue;
        status s = product_rate > 0 ? bench(&rows[i], ops, product_rate) : bench_sampling(&rows[i], ops);
        if (s) {
            fprintf(stderr, "bench_training: %s: %s\n", rows[i].preset, status_text(s));
            return (int)status_kind(s);
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    const struct backend *ops = backend_find("cpu");
    int lanes = ops->lane_count();
    double product_rate = measured_product_rate(ops, lanes, 1.0);
    printf("product rate of %d lanes: %.1f GFLOP/s (%s, 512 x 512 x 512, median of 5 rounds)\n", lanes,
           product_rate / 1e9, REAL_NAME);
    printf("%-11s %10s %14s %9s %10s %10s %9s %10s %9s\n", "preset", "parameters", "batch", "s/step", "tokens/s",
           "MFLOP/tok", "GFLOP/s", "share", "arena MB");
    if (run_rows(argc, argv, ops, product_rate)) return 1;
    printf("\nsampling 16 sequences side by side, a quarter of the length and the whole\n");
    return run_rows(argc, argv, ops, 0);
}
