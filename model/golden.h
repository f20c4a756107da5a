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
     * for tensors of fewer than 1,000 elements, each of which is a sum over tokens that mostly cancels. For q_gain that
     * is measured: its rows pull both ways, and 1 to 2 % of their absolute sum is left. What is left errs by what the
     * rows do, 3 to 4 % each, so it is held by 8e-2 of the root of the rows' squares: in plain.safetensors 0.50 of the
     * gradient, of which the device misses 0.33. So does the CPU in float32 where it does no more than round what its
     * ops write, and the weights of its products, to bf16; rounding q, k and v alone costs 0.03. The rows are our own,
     * and right if the gradients of attn.q and attn.k are, which come from them too. */
    double loss_tolerance, tensor_tolerance, small_tensor_tolerance;
};

status golden_verify(const char *path, const struct backend *ops, struct golden_result *result);
void golden_result_free(struct golden_result *result);
