/* measure: what this machine reaches in each phase of a model of a given shape, by doing a little of each now. */
#pragma once
#include "kernels/kernels.h"
#include "model/options.h"

/* Counted operations a second over all lanes, as network_forward_flops and its like count them. */
struct phase_rates {
    double training;     /* forward and backward of windows, side by side on all lanes */
    double forward;      /* evaluation, and calibration's passes */
    double optimizer;    /* Newton-Schulz of the largest matrix */
    double decoding;     /* sampling token by token */
    double compressed;   /* bytes a second of the artifact's compression, on one core beside `jobs` - 1 others */
    double initialised;  /* initial weights drawn a second, on one core */
    double call_seconds; /* of a for_each over every lane that has nothing to do */
    size_t tokens;       /* of one lane's slice that was measured */
};

/* Windows are shortened, and slices made smaller, until a pass should take about a quarter of a second at
 * product_rate (FLOP/s); the whole takes a few of these. What is done sooner is repeated for a few hundredths of a
 * second, so that a tiny model takes a quarter of a second in all. */
status measure_phases(const struct config *config, const struct backend *ops, int jobs, double product_rate,
                      struct phase_rates *rates);
