/* rows: the tables behind stats.h. A test or a correction is one row; all else finds it by its place. */
#pragma once
#include "harness/stats/stats.h"

struct test_data {
    const double *differences;
    size_t pairs;
    uint64_t seed;
};

struct test_row {
    const char *name;
    double (*p)(const struct test_data *data);
    double (*attainable)(size_t n); /* the least p at n pairs */
};
extern const struct test_row test_rows[TEST_KINDS];

struct correction_row {
    const char *name;
    void (*adjust)(double *sorted, size_t n); /* ascending p, adjusted in place */
};
extern const struct correction_row correction_rows[CORRECTION_KINDS];

double mean_of(const double *values, size_t n);
double sd_of(const double *values, size_t n); /* n - 1 below; NAN when n < 2 */
