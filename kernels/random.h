/* random: counter-based Philox 4x32-10 streams (Salmon et al. 2011), keyed by (seed, name of the consumer).
 *
 * A draw depends only on its key and its index, never on what was drawn before, so adding a consumer changes no
 * other stream, a resumed run needs no saved state, and every backend draws the same numbers. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct random_stream {
    uint32_t key[2];
};

/* consumer: a stable name such as "init blocks.0.mlp.fc" or "data.order". */
struct random_stream random_stream(uint64_t seed, const char *consumer);

/* One Philox block: four 32-bit words for a 128-bit counter (c0 lowest). */
void random_block(struct random_stream s, const uint32_t counter[4], uint32_t out[4]);

uint64_t random_bits(struct random_stream s, uint64_t index);                  /* 64 uniform bits */
double random_uniform(struct random_stream s, uint64_t index);                 /* in [0, 1), 53 bits */
double random_normal(struct random_stream s, uint64_t index);                  /* N(0, 1), Box-Muller */
uint64_t random_below(struct random_stream s, uint64_t index, uint64_t bound); /* in [0, bound), bias < bound/2^64 */

/* A permutation of 0..n-1 (Fisher-Yates); equal for equal streams. */
void random_permutation(struct random_stream s, uint32_t *order, size_t n);
