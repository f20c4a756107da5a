/* correction: p values adjusted for how many there are. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/stats/rows.h"

static void holm(double *p, size_t n) {
    double least = 0.0;
    for (size_t i = 0; i < n; i++) p[i] = least = fmax(least, fmin(1.0, p[i] * (double)(n - i)));
}

static void benjamini_hochberg(double *p, size_t n) {
    double most = 1.0;
    for (size_t i = n; i-- > 0;) p[i] = most = fmin(most, p[i] * (double)n / (double)(i + 1));
}

static void unchanged(double *p, size_t n) { (void)p, (void)n; }

const struct correction_row correction_rows[CORRECTION_KINDS] = {
    [CORRECT_HOLM] = {"holm", holm},
    [CORRECT_BH] = {"benjamini-hochberg", benjamini_hochberg},
    [CORRECT_NONE] = {"none", unchanged},
};

const char *correction_name(enum correction correction) { return correction_rows[correction].name; }

bool correction_find(const char *name, enum correction *correction) {
    for (int k = 0; k < CORRECTION_KINDS; k++)
        if (strcmp(correction_rows[k].name, name) == 0) return *correction = (enum correction)k, true;
    return false;
}

struct placed {
    double p;
    size_t place;
};

static int by_p(const void *a, const void *b) {
    const struct placed *x = a, *y = b;
    return (x->p > y->p) - (x->p < y->p);
}

void adjust_p(enum correction correction, const double *p, double *adjusted, size_t n) {
    struct placed *placed = malloc((n + 1) * sizeof *placed);
    double *sorted = malloc((n + 1) * sizeof *sorted);
    size_t family = 0;
    for (size_t i = 0; i < n; i++) adjusted[i] = NAN;
    if (placed && sorted) {
        for (size_t i = 0; i < n; i++)
            if (!isnan(p[i])) placed[family++] = (struct placed){p[i], i};
        qsort(placed, family, sizeof *placed, by_p);
        for (size_t i = 0; i < family; i++) sorted[i] = placed[i].p;
        correction_rows[correction].adjust(sorted, family);
        for (size_t i = 0; i < family; i++) adjusted[placed[i].place] = sorted[i];
    }
    free(sorted);
    free(placed);
}
