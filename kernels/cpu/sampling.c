/* sampling: the tokens that a decoder reads next, and those drawn from its logits. */
#include <math.h>

#include "kernels/kernels.h"

void cpu_next_tokens(struct lane *lane, int32_t *length, int32_t *ids, int32_t *buckets, const int32_t *tokens,
                     size_t rows, size_t sequences, size_t bucket_count) {
    const int32_t *next = tokens + (size_t)*length % rows * sequences;
    (void)lane;
    for (size_t s = 0; s < sequences; s++) {
        if (bucket_count) buckets[s] = bigram_bucket(ids[s], next[s], bucket_count);
        ids[s] = next[s];
    }
    ++*length;
}

/* The token at which the cumulative probability passes `uniform`; logits become weights before the normalisation. */
static int32_t draw(real *logits, size_t vocab, double temperature, double uniform) {
    double highest = (double)logits[0], total = 0, sum = 0;
    for (size_t i = 1; i < vocab; i++) highest = fmax(highest, (double)logits[i]);
    for (size_t i = 0; i < vocab; i++) {
        logits[i] = (real)exp(((double)logits[i] - highest) / temperature);
        total += (double)logits[i];
    }
    for (size_t i = 0; i + 1 < vocab; i++) {
        sum += (double)logits[i];
        if (sum > uniform * total) return (int32_t)i;
    }
    return (int32_t)vocab - 1;
}

void cpu_draw_tokens(struct lane *lane, int32_t *tokens, real *logits, const double *uniforms, const int32_t *length,
                     size_t rows, size_t sequences, size_t vocab, double temperature) {
    const size_t first = (size_t)*length % rows * sequences;
    (void)lane;
    for (size_t s = 0; s < sequences; s++)
        tokens[first + s] = draw(logits + s * vocab, vocab, temperature, uniforms[first + s]);
}
