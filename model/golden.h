/* golden: holds the model against a safetensors file with parameters, inputs, logits, loss and all gradients. */
#pragma once
#include "model/network.h"

struct golden_row {
    char name[64]; /* "logits" or a tensor's name */
    double error;  /* relative L2 */
    double tolerance;
};

struct golden_result {
    double loss, expected_loss;
    int count; /* logits first, then every gradient */
    struct golden_row *rows;
    bool passed;
    /* Relative: 1e-5 and 1e-3 in float32, 1e-6 for both in float64. Where activations are bf16, 5e-3 and 8e-2; and 0.25
     * for tensors of fewer than 1,000 elements, each of which is a sum over tokens that mostly cancels. */
    double loss_tolerance, tensor_tolerance, small_tensor_tolerance;
};

status golden_verify(const char *path, const struct backend *ops, struct golden_result *result);
void golden_result_free(struct golden_result *result);
