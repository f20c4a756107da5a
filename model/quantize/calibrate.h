/* calibrate: H = sum of x x^T over the calibration inputs of each linear layer, divided by the sequences (GPTQ, arXiv
 * 2210.17323). Layers with the same input (q, k, v) share one H; every pass of a repeated layer enters the same H. */
#pragma once
#include "kernels/arena.h"
#include "model/quantize/quantize.h"

struct calibration {
    int *slot; /* (tensors) which H belongs to it; -1: none */
    int slot_count;
    size_t *slot_cols; /* (slots) H is (cols, cols), upper triangle */
    double **hessians; /* (slots) in the host's memory */
    struct arena arena, host;
    size_t sequences;
};

/* For the linear layers that this config stores as integers. weights: master weights, in the backend's memory. */
status calibrate(const struct network *net, const real *weights, const struct dataset *dataset, uint64_t seed,
                 quantize_progress progress, void *context, struct calibration *out);
void calibration_free(struct calibration *calibration);

/* Bytes of the backend's memory that calibrate takes at its peak, and those of the result, which stay until
 * calibration_free. */
status calibration_memory(const struct network *net, size_t *peak, size_t *kept);

/* NULL when there are no statistics for the tensor. */
const double *calibration_hessian(const struct calibration *calibration, int tensor);
