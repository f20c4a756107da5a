/* device_case: see device_case.h. */
#include "tests/cuda/device_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/bfloat16.h"
#include "kernels/cuda/backend.h"
#include "kernels/random.h"

enum { SEED = 11 };

static void must(status s) {
    if (s) fail_msg("%s", status_text(s));
}

static void *owned(struct device_case *c, size_t bytes) {
    assert_true(c->taken_count < (int)(sizeof c->taken / sizeof *c->taken));
    void *memory;
    must(c->ops->memory_new(&memory, bytes, "a test"));
    return c->taken[c->taken_count++] = memory;
}

void case_begin(struct device_case *c, size_t scratch_bytes) {
    *c = (struct device_case){.ops = backend_find("cuda")};
    assert_non_null(c->ops);
    must(c->ops->open());
    c->lane = (struct lane){.scratch = owned(c, scratch_bytes), .scratch_bytes = scratch_bytes};
}

void case_end(struct device_case *c) {
    must(c->ops->finish(&c->lane));
    for (int i = 0; i < c->taken_count; i++) c->ops->memory_free(c->taken[i]);
}

/* Its cuBLASLt is the only one of version 0. */
bool device_is_emulated(void) { return strncmp(cuda_libraries(), "cuBLASLt 0.", 11) == 0; }

void *device_copy(struct device_case *c, const void *host, size_t bytes) {
    void *device = owned(c, bytes);
    c->ops->upload(&c->lane, device, host, bytes);
    return device;
}

real *device_reals(struct device_case *c, const real *host, size_t count) {
    float *rounded = malloc(count * sizeof *rounded + 1);
    for (size_t i = 0; i < count; i++) rounded[i] = (float)host[i];
    real *device = device_copy(c, rounded, count * sizeof *rounded);
    free(rounded);
    return device;
}

act *device_acts(struct device_case *c, const real *host, size_t count) {
    uint16_t *rounded = malloc(count * sizeof *rounded + 1);
    for (size_t i = 0; i < count; i++) rounded[i] = bfloat16_of((float)host[i]);
    act *device = device_copy(c, rounded, count * sizeof *rounded);
    free(rounded);
    return device;
}

void *device_poisoned(struct device_case *c, size_t bytes) {
    void *nan = malloc(bytes + 1);
    memset(nan, 0xff, bytes);
    void *device = device_copy(c, nan, bytes);
    free(nan);
    return device;
}

real *device_poisoned_reals(struct device_case *c, size_t count) { return device_poisoned(c, count * DEVICE_REAL); }

act *device_poisoned_acts(struct device_case *c, size_t count) { return device_poisoned(c, count * c->ops->act_bytes); }

void *host_bytes(struct device_case *c, const void *device, size_t bytes) {
    void *host = malloc(bytes + 1);
    c->ops->download(&c->lane, host, device, bytes);
    return host;
}

real *host_reals(struct device_case *c, const real *device, size_t count) {
    float *rounded = host_bytes(c, device, count * sizeof *rounded);
    real *host = malloc(count * sizeof *host + 1);
    for (size_t i = 0; i < count; i++) host[i] = rounded[i];
    free(rounded);
    return host;
}

real *host_acts(struct device_case *c, const act *device, size_t count) {
    uint16_t *rounded = host_bytes(c, device, count * sizeof *rounded);
    real *host = malloc(count * sizeof *host + 1);
    for (size_t i = 0; i < count; i++) host[i] = float_of_bfloat16(rounded[i]);
    free(rounded);
    return host;
}

real *random_reals(const char *name, size_t count, real scale) {
    struct random_stream stream = random_stream(SEED, name);
    real *x = malloc(count * sizeof *x + 1);
    for (size_t i = 0; i < count; i++) x[i] = (float)(scale * random_normal(stream, i));
    return x;
}

real *random_acts(const char *name, size_t count, real scale) {
    real *x = random_reals(name, count, scale);
    for (size_t i = 0; i < count; i++) x[i] = float_of_bfloat16(bfloat16_of((float)x[i]));
    return x;
}

void assert_close(const char *name, real *got, const real *want, size_t count, double tolerance) {
    double difference = 0, size = 0, most = -1;
    size_t worst = 0;
    for (size_t i = 0; i < count; i++) {
        double d = got[i] - want[i];
        difference += d * d;
        size += want[i] * want[i];
        if (!(fabs(d) <= most)) worst = i, most = fabs(d);
    }
    double error = sqrt(difference) / (size > 0 ? sqrt(size) : 1);
    if (!(error <= tolerance))
        fail_msg("%s: relative error %.3g, at most %.3g is good; worst at %zu of %zu: %.9g, but the CPU has %.9g", name,
                 error, tolerance, worst, count, got[worst], want[worst]);
    free(got);
}

/* What rounding x to bf16 errs by at most: half the distance between two of them there. */
static double half_step(double x) {
    int exponent;
    frexp(x, &exponent);
    return x == 0 ? 0 : ldexp(1, exponent - 9);
}

void assert_rounded(const char *name, real *got, const real *want, size_t count) {
    double size = 0, most = -1;
    size_t worst = 0;
    for (size_t i = 0; i < count; i++) {
        double beyond = fabs(got[i] - want[i]) - half_step(want[i]) - FLOAT_TOLERANCE * fabs(want[i]);
        size += want[i] * want[i];
        if (!(beyond <= most)) worst = i, most = beyond;
    }
    double allowed = FLOAT_TOLERANCE * (size > 0 ? sqrt(size / (double)count) : 1);
    if (count && !(most <= allowed))
        fail_msg("%s: an error %.3g beyond rounding's, at most %.3g is good; at %zu of %zu: %.9g, but the CPU has %.9g",
                 name, most, allowed, worst, count, got[worst], want[worst]);
    free(got);
}

void assert_same(const char *name, void *got, const void *want, size_t bytes) {
    if (memcmp(got, want, bytes) != 0) fail_msg("%s: the bits differ", name);
    free(got);
}
