/* device_case: tensors of one op on the CUDA backend, to be held against the same op of the CPU backend.
 *
 * Inputs are drawn, rounded to what an act can hold, and given to both. Outputs of the device start as NaN, so what a
 * kernel does not write is seen. Everything is freed by case_end. */
#pragma once
#include <stdbool.h>

#include "kernels/kernels.h"

struct device_case {
    const struct backend *ops;
    struct lane lane; /* of the device */
    void *taken[64];
    int taken_count;
};

/* Opens the CUDA backend; the lane has so many bytes of scratch on the device (at least what the ops ask for). */
void case_begin(struct device_case *c, size_t scratch_bytes);
/* Fails the test with the device's message if any op failed; frees everything. */
void case_end(struct device_case *c);

/* Device memory, owned by the case. */
void *device_copy(struct device_case *c, const void *host, size_t bytes);
real *device_reals(struct device_case *c, const real *host, size_t count);
act *device_acts(struct device_case *c, const real *host, size_t count);
real *device_poisoned_reals(struct device_case *c, size_t count);
act *device_poisoned_acts(struct device_case *c, size_t count);

/* Host copies, malloc'ed, for the caller to free. */
real *host_reals(struct device_case *c, const real *device, size_t count);
real *host_acts(struct device_case *c, const act *device, size_t count);
void *host_bytes(struct device_case *c, const void *device, size_t bytes);

/* Normal numbers times scale, from the named stream; malloc'ed. random_acts are rounded to bf16. */
real *random_reals(const char *name, size_t count, real scale);
real *random_acts(const char *name, size_t count, real scale);

/* |got - want| / |want| (Frobenius) must be at most `tolerance`, and everything finite; the message names the tensor,
 * the error and the worst element. Frees `got`. */
void assert_close(const char *name, real *got, const real *want, size_t count, double tolerance);
/* Every bit the same. Frees `got`. */
void assert_same(const char *name, void *got, const void *want, size_t bytes);
