/* quantised_toy: a briefly trained model, of which the larger linear weights become integers. */
#pragma once
#include "model/quantize/quantize.h"
#include "tests/model/toy.h"

struct quantised_toy {
    struct network net; /* of the trained model's config with the settings */
    struct quantized_model model;
};

/* Quantises the one trained model under "key=value ..." settings. */
void quantised_toy_make(struct quantised_toy *toy, const char *settings, const struct backend *ops);
void quantised_toy_free(struct quantised_toy *toy);

/* A network of the trained model's config and these settings; destroy it. */
struct network quantised_toy_network(const char *settings, const struct backend *ops);

/* The model's weights, trained at the first call; they live until the program ends. */
const real *quantised_toy_weights(void);
