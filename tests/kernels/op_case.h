/* op_case: one row per op and shape; each row yields finite differences, the contract's promises and a timing.
 *
 * A case registers its tensors once; then forward reads inputs and writes outputs, and backward reads the outputs'
 * gradients and fills the inputs' gradients. test_ops.c checks every row against central differences (built with
 * double) and bench_ops.c times it against the machine's limits, so a new op needs one row and no new test code.
 * An op whose backward adds (+=) to a gradient registers that input with op_parameter, all others with op_input. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum { OP_CASE_TENSORS = 24 };

struct op_tensor {
    const char *name;
    size_t count;
    real *data, *gradient;
    bool accumulates; /* backward adds to gradient instead of writing it */
};

struct op_block; /* memory that goes with the run */

struct op_run {
    struct op_tensor inputs[OP_CASE_TENSORS], outputs[OP_CASE_TENSORS];
    int input_count, output_count;
    struct lane lane;
    double forward_flops, forward_bytes;   /* counted work of one forward call */
    double backward_flops, backward_bytes; /* 0 when the op has no backward */
    uint64_t seed;
    void *state; /* whatever the case keeps between setup and teardown */
    struct op_block *blocks;
};

struct op_case {
    const char *op;    /* the stem, such as "ssd" for ssd_forward and ssd_backward */
    const char *shape; /* for people: "B2 T150 H8 P8 N8 odd tail" */
    int bench;         /* 1: a shape of the published or small preset, timed; 0: small, checked */
    void (*setup)(struct op_run *run, const struct op_case *row);
    void (*forward)(struct op_run *run);
    void (*backward)(struct op_run *run); /* NULL: nothing to differentiate */
    size_t size[8];                       /* the case's own dimensions, read by setup */
    double tolerance;                     /* relative, for finite differences in float64; justified beside the row */
};

/* For setup: registered, allocated, filled with N(0, scale^2) for inputs; the driver frees them. */
real *op_input(struct op_run *run, const char *name, size_t count, double scale);
real *op_parameter(struct op_run *run, const char *name, size_t count, double scale);
real *op_output(struct op_run *run, const char *name, size_t count);
void *op_memory(struct op_run *run, size_t bytes); /* zeroed, freed with the run */

/* For the drivers: sets the row up; frees everything. */
void op_run_start(struct op_run *run, const struct op_case *row, uint64_t seed);
void op_run_end(struct op_run *run);

extern const struct op_case sequence_cases[]; /* attention, Mamba: tests/kernels/sequence_cases.c */
extern const size_t sequence_case_count;
extern const struct op_case pointwise_cases[]; /* activations: tests/kernels/pointwise_cases.c */
extern const size_t pointwise_case_count;
extern const struct op_case weight_cases[]; /* tests/kernels/weight_cases.c */
extern const size_t weight_case_count;
