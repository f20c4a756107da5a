/* quantised_toy: see quantised_toy.h. */
#include "tests/model/quantised_toy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char LARGE[] = "model.dim=48 model.layers=2 train.quantise_above=4000 train.sequence=32 "
                            "train.steps=6 train.warmdown=3 train.ema=0 train.swa=off recurrence.layers=0 "
                            "recurrence.start=0 quant.calibration_sequences=12";

const real *quantised_toy_weights(void) {
    static real *weights;
    if (weights) return weights;
    struct trainer *trainer;
    struct step_record record;
    struct config config = toy_config(LARGE);
    assert_good(trainer_create(&trainer, &config, toy_backend(2), toy_dataset(), 7));
    while (!trainer_finished(trainer)) assert_good(trainer_step(trainer, &record));
    size_t bytes = trainer_network(trainer)->parameters.total * sizeof(real);
    weights = malloc(bytes);
    memcpy(weights, trainer_weights(trainer), bytes);
    trainer_destroy(trainer);
    return weights;
}

struct network quantised_toy_network(const char *settings, const struct backend *ops) {
    char all[1024];
    struct network net;
    snprintf(all, sizeof all, "%s %s", LARGE, settings);
    struct config config = toy_config(all);
    assert_good(network_create(&net, &config, ops, 1, (size_t)config.train_sequence));
    return net;
}

void quantised_toy_make(struct quantised_toy *toy, const char *settings, const struct backend *ops) {
    toy->net = quantised_toy_network(settings, ops);
    assert_good(quantize_model(&toy->net, quantised_toy_weights(), toy_dataset(), 3, NULL, NULL, &toy->model));
}

void quantised_toy_free(struct quantised_toy *toy) {
    quantized_model_free(&toy->model);
    network_destroy(&toy->net);
}
