/* bench_step: a training step of the published preset, and of `small`, on the CUDA backend, against the product rate of
 * the same run.
 *
 *   bench_step [--small]               --small: a tiny batch, to see that all runs
 *   mpirun -np 2 bench_step            the same batch over 2 ranks, or 4 or 8, each with a GPU
 *
 * Shares = FLOPs of forward and backward (network_training_flops) / step time / product rate of all ranks: the rate of
 * a device that was idle, and the one it keeps up, which its power limit sets, as it does a step's. The first steps
 * prepare products and record the graph and are not counted; the figure is the median of the others. The hash is that
 * of the weights behind the last step: the same for any number of ranks. Behind them, where there is one rank, what
 * follows a training: sampling 32 sequences of T tokens for self-calibration, once, and scoring 262,144 tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bfloat16.h"
#include "kernels/clock.h"
#include "kernels/comm/comm.h"
#include "kernels/random.h"
#include "model/decoder.h"
#include "model/evaluation.h"
#include "model/files.h"
#include "model/trainer.h"

enum { WARM_UP = 2, TIMED = 7, CALIBRATION_SEQUENCES = 32, SCORED_TOKENS = 262144, SCORED_TOKENS_SMALL = 512 };

struct step_row {
    const char *name;
    const char *settings[16]; /* laid over the options' defaults, which are the published preset */
};

static const struct step_row rows[] = {
    {"8 virtual layers", {"recurrence.start=1"}},
    {"12 virtual layers", {"recurrence.layers=3,4", "recurrence.repeats=2", "recurrence.start=0"}},
    {"preset small",
     {"recurrence.start=1", "model.dim=256", "attention.heads=4", "attention.kv_heads=2", "train.batch_tokens=8192",
      "train.sequence=512"}},
};

static const char *const small_settings[] = {"train.batch_tokens=512", "train.sequence=64", "model.dim=64",
                                             "attention.heads=1", "attention.kv_heads=1"};

static void must(status s) {
    if (!s) return;
    fprintf(stderr, "bench_step: %s\n", status_text(s));
    exit((int)status_kind(s));
}

static void set(struct config *config, const char *setting) {
    char key[64];
    const char *value = strchr(setting, '=');
    snprintf(key, sizeof key, "%.*s", (int)(value - setting), setting);
    must(config_set(config, key, value + 1));
}

static struct config configure(const struct step_row *row, bool small) {
    struct config config;
    config_defaults(&config);
    set(&config, "train.slice_tokens=0");
    for (int i = 0; row->settings[i]; i++) set(&config, row->settings[i]);
    for (size_t i = 0; small && i < sizeof small_settings / sizeof *small_settings; i++)
        set(&config, small_settings[i]);
    must(config_check(&config));
    return config;
}

/* FLOP/s of a large product of random bf16. */
struct product_rates {
    double alone;     /* 20 of them, by a device that had nothing to do before */
    double sustained; /* for as long as some steps take, at the clocks that the power limit leaves */
};

static double time_products(const struct backend *ops, struct lane *lane, void *y, const void *x, const void *w,
                            size_t side, int times) {
    double start = clock_seconds();
    for (int i = 0; i < times; i++) ops->linear_forward(lane, y, x, w, side, side, side);
    must(ops->finish(lane));
    return times * 2.0 * (double)side * (double)side * (double)side / (clock_seconds() - start);
}

static struct product_rates measure_product(const struct backend *ops, bool small) {
    enum { FIRST = 3, TIMES = 20 };
    static const double SUSTAINED_SECONDS = 1.5;
    const size_t side = small ? 64 : 8192, count = side * side;
    struct lane lane = {.scratch_bytes = ops->linear_scratch(side, side, side)};
    void *x, *y, *w;
    must(ops->memory_new(&lane.scratch, lane.scratch_bytes, "a benchmark"));
    must(ops->memory_new(&x, count * ops->act_bytes, "a benchmark"));
    must(ops->memory_new(&y, count * ops->act_bytes, "a benchmark"));
    must(ops->memory_new(&w, count * ops->act_bytes, "a benchmark"));
    uint16_t *halves = malloc(count * sizeof *halves);
    struct random_stream stream = random_stream(1, "bench step");
    for (size_t i = 0; i < count; i++) halves[i] = bfloat16_of((float)random_normal(stream, i));
    ops->upload(&lane, x, halves, count * sizeof *halves);
    ops->upload(&lane, w, halves, count * sizeof *halves);
    time_products(ops, &lane, y, x, w, side, FIRST);
    struct product_rates rates = {.alone = time_products(ops, &lane, y, x, w, side, TIMES)};
    int many = small ? 1 : (int)(SUSTAINED_SECONDS * rates.alone / (2.0 * (double)count * (double)side));
    for (int i = 0; i < 2; i++) rates.sustained = time_products(ops, &lane, y, x, w, side, many);
    ops->memory_free(lane.scratch), ops->memory_free(x), ops->memory_free(y), ops->memory_free(w);
    free(halves);
    return rates;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench_sampling(const struct trainer *trainer, const struct config *config) {
    const struct network *net = trainer_network(trainer);
    size_t time = (size_t)config->train_sequence;
    int32_t *tokens = malloc(CALIBRATION_SEQUENCES * time * sizeof *tokens);
    struct lane lane = {0};
    void *weights;
    must(net->ops->memory_new(&weights, network_weight_reals(net) * sizeof(real), "a benchmark"));
    network_effective(net, &lane, 1, weights, trainer_weights(trainer), VIEW_MASTER);
    double start = clock_seconds();
    must(decoder_sample(net, weights, config->recurrence_start < 1, CALIBRATION_SEQUENCES, time,
                        config->quant_calibration_temperature, 1, NULL, NULL, tokens));
    double seconds = clock_seconds() - start;
    printf("%-18s %9.1f s for %d x %zu tokens, %.3f ms for a token of each\n", "  its sampling", seconds,
           CALIBRATION_SEQUENCES, time, 1e3 * seconds / (double)time);
    net->ops->memory_free(weights);
    free(tokens);
}

/* Once before it counts. */
static void bench_evaluation(const struct trainer *trainer, const struct config *config, const struct dataset *data,
                             bool small) {
    struct config scored = *config;
    struct evaluation out;
    real *weights = malloc(trainer_network(trainer)->parameters.total * sizeof *weights);
    trainer_copy_out(trainer, trainer_weights(trainer), weights);
    scored.eval_tokens = small ? SCORED_TOKENS_SMALL : SCORED_TOKENS;
    for (int i = 0; i < 2; i++) must(evaluate(&scored, trainer_network(trainer)->ops, weights, data, NULL, NULL, &out));
    printf("%-18s %9.1f ms for %lld tokens, %.17g nats\n", "  its evaluation", 1e3 * out.seconds, (long long)out.tokens,
           out.nll_per_token);
    free(weights);
}

static void hash_weights(const struct trainer *trainer, char hex[65]) {
    size_t total = trainer_network(trainer)->parameters.total;
    real *weights = malloc(total * sizeof *weights);
    trainer_copy_out(trainer, trainer_weights(trainer), weights);
    bytes_sha256(weights, total * sizeof *weights, hex);
    free(weights);
}

/* Every rank comes here; the first speaks. */
static void bench(const struct step_row *row, struct comm *comm, const struct dataset *data, bool small,
                  struct product_rates product) {
    const struct backend *ops = comm->ops;
    struct config config = configure(row, small);
    struct trainer *trainer;
    struct step_record record;
    double times[TIMED];
    size_t bytes;
    must(trainer_memory(&config, ops, &bytes));
    must(trainer_create_on(&trainer, comm, &config, ops, data, 1));
    for (int i = 0; i < WARM_UP; i++) must(trainer_step(trainer, &record));
    for (int i = 0; i < TIMED; i++) {
        must(trainer_step(trainer, &record));
        times[i] = record.milliseconds / 1e3;
    }
    qsort(times, TIMED, sizeof *times, by_value);
    double seconds = times[TIMED / 2], tokens = (double)config.train_batch_tokens / seconds;
    double flops = network_training_flops(trainer_network(trainer), true, (size_t)config.train_sequence);
    char hash[65];
    hash_weights(trainer, hash);
    if (comm->rank == 0)
        printf("%-18s %9.1f ms (%.1f to %.1f) %11.0f tokens/s %8.1f TFLOP/s %6.1f %% %6.1f %% %8.2f GB   loss %.4f, "
               "hash %.12s\n",
               row->name, 1e3 * seconds, 1e3 * times[0], 1e3 * times[TIMED - 1], tokens, flops * tokens / 1e12,
               100 * flops * tokens / product.alone / comm->size, 100 * flops * tokens / product.sustained / comm->size,
               (double)bytes / 1e9, record.loss, hash);
    if (comm->size == 1) {
        bench_sampling(trainer, &config);
        bench_evaluation(trainer, &config, data, small);
    }
    trainer_destroy(trainer);
}

int main(int argc, char **argv) {
    bool small = argc > 1 && strcmp(argv[1], "--small") == 0;
    const struct backend *ops = backend_find("cuda");
    if (!ops) must(status_new(STATUS_SYSTEM, "this build has no CUDA"));
    struct comm comm;
    ops->choose_device(comm_local_rank());
    must(ops->open());
    must(comm_open(&comm, ops));
    size_t count = (size_t)1 << 23;
    struct config defaults;
    config_defaults(&defaults);
    struct dataset data = {.vocab_size = (size_t)defaults.model_vocab_size};
    uint16_t *tokens = malloc(count * sizeof *tokens);
    struct random_stream stream = random_stream(1, "bench tokens");
    for (size_t i = 0; i < count; i++) tokens[i] = (uint16_t)random_below(stream, i, data.vocab_size);
    data.train = data.validation = (struct token_stream){tokens, count};
    uint8_t *ones = malloc(data.vocab_size), *zeros = calloc(data.vocab_size, 1);
    memset(ones, 1, data.vocab_size);
    data.token_bytes = ones, data.token_space = data.token_boundary = zeros;
    struct product_rates product = measure_product(ops, small);
    if (comm.rank == 0)
        printf("bf16 product %.0f TFLOP/s alone, %.0f sustained, a step's shares are of both; %d rank%s\n",
               product.alone / 1e12, product.sustained / 1e12, comm.size, comm.size > 1 ? "s" : "");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) bench(&rows[i], &comm, &data, small, product);
    comm_close(&comm);
    free(tokens), free(ones), free(zeros);
    return 0;
}
