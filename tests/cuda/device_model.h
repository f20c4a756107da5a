/* device_model: small models trained on CUDA and on the CPU, to be held against each other. */
#pragma once
#include <stddef.h>

#include "model/trainer.h"

enum { DEVICE_SETTINGS = 2, DEVICE_STEPS = 5 };

/* Of a loss. Activations are bf16: 2^-9 of each is lost at every op, independently over tokens. */
extern const double LOSS_TOLERANCE;

/* The CUDA backend, open. */
const struct backend *cuda(void);

/* One of DEVICE_SETTINGS, then "key=value key=value". */
struct config device_config(int i, const char *more);

/* What a training leaves, on the host. */
struct outcome {
    double loss[DEVICE_STEPS];
    char trace[65];
    real *first, *weights, *averaged; /* (total) the initial weights first */
    size_t total;
};

void train(struct outcome *out, int i, const struct backend *ops);
/* All but the losses and the initial weights. */
void outcome_take(struct outcome *out, const struct trainer *trainer);
void outcome_free(struct outcome *out);

/* Trained when first asked for, and kept. */
const struct outcome *trained_on_cpu(int i);
const struct outcome *trained_on_cuda(int i);

/* |a - b| */
double distance(const real *a, const real *b, size_t count);

/* Fails the test unless got is within tolerance |want| of want. */
void assert_close_to(const char *name, double got, double want, double tolerance);
