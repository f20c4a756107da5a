/* bootstrap: BCa interval of a mean (Efron 1987), and evaluation noise from blocks of text; see stats.h, noise.h. */
#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdlib.h>

#include "harness/stats/noise.h"
#include "harness/stats/rows.h"
#include "kernels/random.h"

enum { ENUMERATED_UP_TO = 6, RESAMPLES = 9999, NOISE_RESAMPLES = 2000 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t resample_count(size_t n) {
    size_t count = 1;
    for (size_t i = 0; i < n && n <= ENUMERATED_UP_TO; i++) count *= n;
    return n <= ENUMERATED_UP_TO ? count : RESAMPLES;
}

/* The digits of the resample's number, in base n, choose its values. */
static double enumerated_mean(const double *d, size_t n, size_t resample) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++, resample /= n) sum += d[resample % n];
    return sum / (double)n;
}

/* Each half of a drawn word chooses a value. */
static double drawn_mean(const double *d, size_t n, struct random_stream stream, size_t resample) {
    double sum = 0.0;
    uint64_t words = (n + 1) / 2, word = 0;
    for (size_t i = 0; i < n; i++) {
        word = i % 2 ? word >> 32 : random_bits(stream, resample * words + i / 2);
        sum += d[((word & UINT32_MAX) * n) >> 32];
    }
    return sum / (double)n;
}

static double resampled_mean(const double *d, size_t n, struct random_stream stream, size_t resample) {
    return n <= ENUMERATED_UP_TO ? enumerated_mean(d, n, resample) : drawn_mean(d, n, stream, resample);
}

/* Share of the resampled means below the mean, those equal but for rounding half. */
static double share_below_mean(const double *means, size_t count, double mean, double rounding) {
    double below = 0.0;
    for (size_t i = 0; i < count; i++) below += fabs(means[i] - mean) <= rounding ? 0.5 : means[i] < mean ? 1.0 : 0.0;
    return below / (double)count;
}

/* Skewness of the mean left one out, over 6. */
static double acceleration(const double *d, size_t n) {
    double mean = mean_of(d, n), squares = 0.0, cubes = 0.0;
    for (size_t i = 0; i < n; i++) {
        double u = d[i] - mean;
        squares += u * u;
        cubes += u * u * u;
    }
    return cubes / (6.0 * pow(squares, 1.5));
}

/* Linear between neighbours, as NumPy's percentile. */
static double quantile_of(const double *sorted, size_t count, double probability) {
    double place = probability * (double)(count - 1);
    size_t low = (size_t)place, high = low + 1 < count ? low + 1 : low;
    return sorted[low] + (place - (double)low) * (sorted[high] - sorted[low]);
}

static double corrected(double z0, double a, double probability) {
    double z = z0 + gsl_cdf_ugaussian_Pinv(probability);
    return gsl_cdf_ugaussian_P(z0 + z / (1.0 - a * z));
}

void interval_bca(const double *d, size_t n, double alpha, uint64_t seed, double *low, double *high) {
    *low = *high = NAN;
    if (n < 3 || !(sd_of(d, n) > 0.0)) return;
    size_t count = resample_count(n);
    double *means = malloc(count * sizeof *means), size = 0.0;
    if (!means) return;
    struct random_stream stream = random_stream(seed, "stats.bca");
    for (size_t i = 0; i < n; i++) size += fabs(d[i]);
    for (size_t i = 0; i < count; i++) means[i] = resampled_mean(d, n, stream, i);
    qsort(means, count, sizeof *means, by_value);
    double share = share_below_mean(means, count, mean_of(d, n), 1e-13 * size), a = acceleration(d, n);
    if (share > 0.0 && share < 1.0) {
        double z0 = gsl_cdf_ugaussian_Pinv(share);
        *low = quantile_of(means, count, corrected(z0, a, alpha / 2.0));
        *high = quantile_of(means, count, corrected(z0, a, 1.0 - alpha / 2.0));
    }
    free(means);
}

static double resampled_ratio(const double *top, const double *bottom, size_t clusters, struct random_stream stream,
                              size_t resample) {
    double over = 0.0, under = 0.0;
    for (size_t i = 0; i < clusters; i++) {
        size_t drawn = random_below(stream, resample * clusters + i, clusters);
        over += top[drawn];
        under += bottom[drawn];
    }
    return over / under;
}

double noise_of_ratio(const double *top, const double *bottom, size_t clusters, uint64_t seed) {
    if (clusters < 2) return NAN;
    double *ratios = malloc(NOISE_RESAMPLES * sizeof *ratios);
    if (!ratios) return NAN;
    struct random_stream stream = random_stream(seed, "stats.blocks");
    for (size_t i = 0; i < NOISE_RESAMPLES; i++) ratios[i] = resampled_ratio(top, bottom, clusters, stream, i);
    double sd = sd_of(ratios, NOISE_RESAMPLES);
    free(ratios);
    return sd;
}
