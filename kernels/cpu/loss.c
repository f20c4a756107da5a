/* loss: cross-entropy of soft-capped logits.
 *
 *   s = cap tanh(logits/cap)/temperature;  nll = log sum exp s - s[target]
 *   backward (temperature 1)  ds_i/dlogits_i = 1 - tanh^2;  dnll/ds = softmax(s) - onehot(target)
 *
 * logits (R,V), one row at a time. tanh is monotonic, so the row's largest s comes from its largest logit: the
 * exponents are at most 0 without a first pass over tanh. */
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

static real largest(const real *x, size_t count) {
    real most = x[0];
#pragma omp simd reduction(max : most)
    for (size_t i = 0; i < count; i++) most = x[i] > most ? x[i] : most;
    return most;
}

static double capped(real logit, double cap, double temperature) {
    return cap * tanh((double)logit / cap) / temperature;
}

/* sum of exp(scale tanh(row/cap) - shift): at least 1, its largest term, up to rounding */
static real sum_of_exponentials(const real *row, size_t vocab, real inverse_cap, real scale, real shift) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < vocab; i++) sum += real_exp(scale * real_tanh(row[i] * inverse_cap) - shift);
    return sum;
}

void cpu_cross_entropy_forward(struct lane *lane, double *nll, real *log_sum, const real *logits,
                               const int32_t *targets, size_t rows, size_t vocab, double cap, double temperature) {
    (void)lane;
    const real inverse_cap = (real)(1 / cap), scale = (real)(cap / temperature);
    for (size_t r = 0; r < rows; r++) {
        const real *row = logits + r * vocab;
        double top = capped(largest(row, vocab), cap, temperature);
        double sum = (double)sum_of_exponentials(row, vocab, inverse_cap, scale, (real)top);
        double total = (double)(real)top + log(sum);
        log_sum[r] = (real)total;
        nll[r] = total - capped(row[targets[r]], cap, temperature);
    }
}

void cpu_cross_entropy_backward(struct lane *lane, real *dlogits, const real *logits, const real *log_sum,
                                const int32_t *targets, double scale, size_t rows, size_t vocab, double cap) {
    (void)lane;
    const real inverse_cap = (real)(1 / cap), height = (real)cap, factor = (real)scale;
    for (size_t r = 0; r < rows; r++) {
        const real *row = logits + r * vocab, shift = log_sum[r];
        real *out = dlogits + r * vocab, at_target = real_tanh(row[targets[r]] * inverse_cap);
#pragma omp simd
        for (size_t i = 0; i < vocab; i++) {
            real t = real_tanh(row[i] * inverse_cap);
            out[i] = factor * real_exp(height * t - shift) * (1 - t * t);
        }
        out[targets[r]] -= factor * (1 - at_target * at_target);
    }
}

void cpu_softcap(struct lane *lane, real *y, const real *logits, size_t count, double cap) {
    (void)lane;
    const real inverse_cap = (real)(1 / cap), height = (real)cap;
#pragma omp simd
    for (size_t i = 0; i < count; i++) y[i] = height * real_tanh(logits[i] * inverse_cap);
}
