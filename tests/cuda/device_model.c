/* device_model: see device_model.h. */
#include "tests/cuda/device_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "tests/model/toy.h"

const double LOSS_TOLERANCE = 2e-3;

/* Recurrence, QAT and clipping begin within 5 steps; a whole micro-shard is one slice on the device. */
static const char *const settings[DEVICE_SETTINGS] = {
    "train.steps=5 train.warmdown=5 train.slice_tokens=0 train.batch_tokens=128 mamba.head_dim=16 recurrence.layers=0 "
    "recurrence.start=0.4 "
    "train.qat_below=0.7 train.quantise_above=500 optim.clip=1 optim.row_norm=on",
    "train.steps=5 train.slice_tokens=0 model.linear=ternary train.ema=0 model.skips=all "
    "attention.layers=0",
};

const struct backend *cuda(void) {
    static bool open;
    const struct backend *ops = backend_find("cuda");
    assert_non_null(ops);
    if (!open) assert_good(ops->open());
    open = true;
    return ops;
}

struct config device_config(int i, const char *more) {
    char all[1024];
    snprintf(all, sizeof all, "%s %s", settings[i], more);
    return toy_config(all);
}

static real *copied(const struct trainer *trainer, const real *weights) {
    real *host = calloc(trainer_network(trainer)->parameters.total, sizeof *host);
    trainer_copy_out(trainer, weights, host);
    return host;
}

void outcome_take(struct outcome *out, const struct trainer *trainer) {
    out->total = trainer_network(trainer)->parameters.total;
    out->weights = copied(trainer, trainer_weights(trainer));
    out->averaged = copied(trainer, trainer_averaged(trainer));
    trainer_trace_sha256(trainer, out->trace);
}

void train(struct outcome *out, int i, const struct backend *ops) {
    struct trainer *trainer;
    struct step_record record;
    struct config config = device_config(i, "");
    assert_good(trainer_create(&trainer, &config, ops, toy_dataset(), 42));
    out->first = copied(trainer, trainer_weights(trainer));
    for (int step = 0; step < DEVICE_STEPS; step++) {
        assert_good(trainer_step(trainer, &record));
        out->loss[step] = record.loss;
    }
    outcome_take(out, trainer);
    trainer_destroy(trainer);
}

void outcome_free(struct outcome *out) {
    free(out->first);
    free(out->weights);
    free(out->averaged);
}

const struct outcome *trained_on_cpu(int i) {
    static struct outcome all[DEVICE_SETTINGS];
    if (!all[i].weights) train(&all[i], i, toy_backend(1));
    return &all[i];
}

const struct outcome *trained_on_cuda(int i) {
    static struct outcome all[DEVICE_SETTINGS];
    if (!all[i].weights) train(&all[i], i, cuda());
    return &all[i];
}

double distance(const real *a, const real *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

void assert_close_to(const char *name, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance * fabs(want))) fail_msg("%s: %.9g, but the CPU has %.9g", name, got, want);
}
