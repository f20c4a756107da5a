/* bootstrap: BCa interval of a mean (Efron 1987), and evaluation noise from blocks of text; see stats.h, noise.h. */
#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdlib.h>

#include "harness/stats/noise.h"
#include "harness/stats/rows.h"
#include "kernels/random.h"

enum { ENUMERATED_UP_TO = 10, NOISE_RESAMPLES = 2000 };

/* A mean, and how many resamples have it. */
struct weighted {
    double mean, count;
};

struct distribution {
    struct weighted *means; /* (size), ascending when complete */
    size_t size;
    double total; /* resamples: n^n or those drawn, all equally likely */
};

static int by_mean(const void *a, const void *b) {
    double x = ((const struct weighted *)a)->mean, y = ((const struct weighted *)b)->mean;
    return (x > y) - (x < y);
}

/* Distinct resamples of n values: how often each is drawn decides, C(2n - 1, n) cases. */
static size_t case_count(size_t n) {
    double cases = 1.0;
    for (size_t i = 1; i <= n; i++) cases = cases * (double)(n - 1 + i) / (double)i;
    return (size_t)lround(cases);
}

/* The values from d on share what is left of n draws; sum and count are of the values before. */
static void enumerate(const double *d, size_t values, size_t left, size_t n, double sum, double count,
                      struct distribution *out) {
    if (values == 1) {
        out->means[out->size++] = (struct weighted){(sum + (double)left * *d) / (double)n, count};
        return;
    }
    double choices = 1.0; /* left choose drawn */
    for (size_t drawn = 0; drawn <= left; drawn++) {
        enumerate(d + 1, values - 1, left - drawn, n, sum + (double)drawn * *d, count * choices, out);
        choices = choices * (double)(left - drawn) / (double)(drawn + 1);
    }
}

/* Each of a drawn block's four words chooses a value; four sums do not wait for each other. */
static double drawn_mean(const double *d, size_t n, struct random_stream stream, size_t resample) {
    double sums[4] = {0};
    uint32_t words[4];
    uint64_t block = resample * ((n + 3) / 4);
    for (size_t i = 0; i < n; i += 4, block++) {
        random_block(stream, (const uint32_t[4]){(uint32_t)block, (uint32_t)(block >> 32), 0, 0}, words);
        for (size_t k = 0; k < 4 && i + k < n; k++) sums[k] += d[((uint64_t)words[k] * n) >> 32];
    }
    return (sums[0] + sums[1] + (sums[2] + sums[3])) / (double)n;
}

static bool resample(const double *d, size_t n, uint64_t seed, struct distribution *out) {
    bool all = n <= ENUMERATED_UP_TO;
    size_t capacity = all ? case_count(n) : n <= MANY_SEEDS ? 9999 : 1999;
    double total = all ? pow((double)n, (double)n) : (double)capacity;
    *out = (struct distribution){malloc(capacity * sizeof *out->means), 0, total};
    if (!out->means) return false;
    struct random_stream stream = random_stream(seed, "stats.bca");
    if (all)
        enumerate(d, n, n, n, 0.0, 1.0, out);
    else
        for (; out->size < capacity; out->size++)
            out->means[out->size] = (struct weighted){drawn_mean(d, n, stream, out->size), 1.0};
    qsort(out->means, out->size, sizeof *out->means, by_mean);
    return true;
}

/* Share of the resampled means below the mean, those equal but for rounding half. */
static double share_below_mean(const struct distribution *means, double mean, double rounding) {
    double below = 0.0;
    for (size_t i = 0; i < means->size; i++) {
        double distance = means->means[i].mean - mean;
        below += means->means[i].count * (fabs(distance) <= rounding ? 0.5 : distance < 0.0 ? 1.0 : 0.0);
    }
    return below / means->total;
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

/* Linear between neighbours of the resamples in a row, as NumPy's percentile. */
static double quantile_of(const struct distribution *means, double probability) {
    double place = probability * (means->total - 1.0), low = floor(place), before = 0.0;
    size_t i = 0;
    while (i + 1 < means->size && before + means->means[i].count <= low) before += means->means[i++].count;
    bool same = low + 1.0 < before + means->means[i].count || i + 1 == means->size;
    double here = means->means[i].mean, next = same ? here : means->means[i + 1].mean;
    return here + (place - low) * (next - here);
}

static double corrected(double z0, double a, double probability) {
    double z = z0 + gsl_cdf_ugaussian_Pinv(probability);
    return gsl_cdf_ugaussian_P(z0 + z / (1.0 - a * z));
}

void interval_bca(const double *d, size_t n, double alpha, uint64_t seed, double *low, double *high) {
    struct distribution means;
    double size = 0.0;
    *low = *high = NAN;
    if (n < 3 || !(sd_of(d, n) > 0.0) || !resample(d, n, seed, &means)) return;
    for (size_t i = 0; i < n; i++) size += fabs(d[i]);
    double share = share_below_mean(&means, mean_of(d, n), 1e-13 * size), a = acceleration(d, n);
    if (share > 0.0 && share < 1.0) {
        double z0 = gsl_cdf_ugaussian_Pinv(share);
        *low = quantile_of(&means, corrected(z0, a, alpha / 2.0));
        *high = quantile_of(&means, corrected(z0, a, 1.0 - alpha / 2.0));
    }
    free(means.means);
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
