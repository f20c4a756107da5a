/* memory: the peaks of training, averaging, quantising and evaluating; see memory.h. */
#include "harness/memory.h"

#include <stdio.h>
#include <unistd.h>

#include "kernels/rates.h"
#include "model/artifact.h"
#include "model/evaluation.h"
#include "model/network.h"
#include "model/trainer.h"

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static void raise(size_t *bytes, size_t to) { *bytes = most(*bytes, to); }

/* Bytes of a backend's memory are the host's, or else the device's. */
static size_t on_host(const struct backend *ops, size_t bytes, struct memory_use *use) {
    if (!ops->device_memory) return bytes;
    raise(&use->device, bytes);
    return 0;
}

/* The order of the windows, and at the end the weights once more, as a file. */
static status of_training(const struct config *config, const struct backend *ops, const struct dataset *dataset,
                          size_t weights, struct memory_use *use) {
    size_t bytes, order = 0;
    TRY(trainer_memory(config, ops, &bytes));
    bytes = on_host(ops, bytes, use);
    if (config->data_order == DATA_SHUFFLED)
        order = dataset->train.count / (size_t)config->train_sequence * sizeof(uint32_t);
    raise(&use->stages[STAGE_TRAIN], bytes + order + weights);
    return NULL;
}

/* Weights and file side by side, then what rounds them, then what compresses the result. */
static status of_quantisation(const struct network *net, size_t weights, struct memory_use *use) {
    size_t rounding;
    struct quantized_model model;
    TRY(quantize_memory(net, &rounding));
    rounding = on_host(net->ops, rounding, use);
    TRY(quantized_model_allocate(&model, net));
    size_t packing = quantized_model_bytes(&model) + artifact_memory(&model);
    quantized_model_free(&model);
    raise(&use->stages[STAGE_QUANTISE], weights + most(weights, rounding));
    raise(&use->stages[STAGE_QUANTISE], packing);
    return NULL;
}

static status of_evaluation(const struct config *config, const struct backend *ops, const struct dataset *dataset,
                            size_t weights, struct memory_use *use) {
    size_t bytes;
    TRY(evaluation_memory(config, ops, dataset, &bytes));
    bytes = on_host(ops, bytes, use);
    raise(&use->stages[STAGE_EVALUATE], weights + most(weights, bytes));
    return NULL;
}

status memory_of_stages(const struct config *config, const struct backend *ops, const struct dataset *dataset,
                        struct memory_use *use) {
    struct network net;
    TRY(network_create(&net, config, ops, 1, (size_t)config->train_sequence));
    size_t weights = net.parameters.total * sizeof(real);
    status s = of_quantisation(&net, weights, use);
    network_destroy(&net);
    TRY(s);
    raise(&use->stages[STAGE_AVERAGE], 2 * weights);
    TRY(of_training(config, ops, dataset, weights, use));
    return of_evaluation(config, ops, dataset, weights, use);
}

size_t memory_of_process(const struct backend *ops) {
    static const double product_seconds = 0.01;
    unsigned long all, resident = 0;
    if (!ops->device_memory) measured_product_rate(ops, ops->lane_count(), product_seconds);
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fscanf(file, "%lu %lu", &all, &resident) != 2) resident = 0;
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t memory_peak(const struct memory_use *use) {
    size_t peak = 0;
    for (int kind = 0; kind < STAGE_KINDS; kind++) peak = most(peak, use->stages[kind]);
    return use->process + peak;
}
