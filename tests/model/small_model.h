/* small_model: a model of a few hundred parameters with random weights and tokens, for the tests of this folder. */
#pragma once
#include "model/network.h"

struct small_model {
    struct network net;
    struct workspace *ws;   /* with a tape */
    real *weights;          /* effective, with acts; every tensor random, so that no gradient is zero by design */
    real *gradients;        /* zeros */
    int32_t *ids, *targets; /* (sequences, time) random */
    double *nll;            /* (sequences, time) */
    real *logits;           /* (sequences, time, V) */
    size_t sequences, time;
};

/* settings: "key=value key=value", over 4 layers of width 16 with attention in layer 2. A failure fails the test. */
struct small_model *small_model_new(const char *settings, size_t sequences, size_t time);
void small_model_free(struct small_model *m);

/* The config alone. */
struct config small_config(const char *settings);

/* A request over the whole batch, with targets and no logits; makes the weights' acts. */
struct forward_request small_request(const struct small_model *m);

/* Forward with that request; the sum of nll. */
double small_loss(struct small_model *m);

/* Forward and backward with scale 1; gradients are cleared first. Of the weights, or of what the linear layers read. */
void small_gradients(struct small_model *m);
void small_gradients_of_acts(struct small_model *m);

/* |a - b| / |b| in the Euclidean norm. */
double relative_distance(const real *a, const real *b, size_t count);

/* Is this the float64 build? */
static inline bool wide(void) { return sizeof(real) == sizeof(double); }
