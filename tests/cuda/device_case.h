/* device_case: tensors of one op on the CUDA backend, to be held against the same op of the CPU backend in float64.
 *
 * The programs that use it, and the CPU's ops in them, have double for `real` (OP_TESTS in the Makefile). The kernels
 * have not: in the device's memory a real is a float and an act a bf16, and only the functions below look behind such a
 * pointer. Inputs are drawn, rounded to what the device's type can hold, and given to both, so that what differs is the
 * device's rounding. Outputs of the device start as NaN, so what a kernel does not write is seen. Everything is freed
 * by case_end. */
#pragma once
#include <stdbool.h>

#include "kernels/kernels.h"

_Static_assert(sizeof(real) == sizeof(double), "ops are held against float64: the Makefile's OP_TESTS are built so");

/* Bytes of a real of the device. */
enum { DEVICE_REAL = sizeof(float) };

/* What float's arithmetic costs of a result: sums in another order, and exp, tanh and 1/sqrt as a device has them. */
#define FLOAT_TOLERANCE 5e-6

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

/* Whether the device is tests/cuda_emulator. */
bool device_is_emulated(void);

/* Device memory, owned by the case. */
void *device_copy(struct device_case *c, const void *host, size_t bytes);
real *device_reals(struct device_case *c, const real *host, size_t count);
act *device_acts(struct device_case *c, const real *host, size_t count);
void *device_poisoned(struct device_case *c, size_t bytes);
real *device_poisoned_reals(struct device_case *c, size_t count);
act *device_poisoned_acts(struct device_case *c, size_t count);

/* Host copies, malloc'ed, for the caller to free. */
real *host_reals(struct device_case *c, const real *device, size_t count);
real *host_acts(struct device_case *c, const act *device, size_t count);
void *host_bytes(struct device_case *c, const void *device, size_t bytes);

/* Normal numbers times scale, from the named stream; malloc'ed. They are rounded: random_reals to float, random_acts to
 * bf16. */
real *random_reals(const char *name, size_t count, real scale);
real *random_acts(const char *name, size_t count, real scale);

/* |got - want| / |want| (Frobenius) must be at most `tolerance`, and everything finite; the message names the tensor,
 * the error and the worst element. Frees `got`. */
void assert_close(const char *name, real *got, const real *want, size_t count, double tolerance);
/* For what is rounded to an act once, at its end: each element of `got` is that of `want` but for this rounding and for
 * FLOAT_TOLERANCE, of the element and of want's root mean square, which the arithmetic before it costs. Frees `got`. */
void assert_rounded(const char *name, real *got, const real *want, size_t count);
/* Every bit the same. Frees `got`. */
void assert_same(const char *name, void *got, const void *want, size_t bytes);
