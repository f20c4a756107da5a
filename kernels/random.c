/* random: Philox 4x32-10 and the distributions drawn from it; see random.h. */
#include "kernels/random.h"

#include <math.h>

/* FNV-1a over the name, mixed with the seed: two consumers share a stream only if both 64-bit hashes collide. */
struct random_stream random_stream(uint64_t seed, const char *consumer) {
    uint64_t hash = 14695981039346656037ull;
    for (const char *c = consumer; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211ull;
    uint64_t mixed = hash ^ (seed * 0x9E3779B97F4A7C15ull + 0x632BE59BD9B4E019ull);
    mixed ^= mixed >> 32;
    mixed *= 0xD6E8FEB86659FD93ull;
    mixed ^= mixed >> 32;
    return (struct random_stream){{(uint32_t)mixed, (uint32_t)(mixed >> 32)}};
}

void random_block(struct random_stream s, const uint32_t counter[4], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = s.key[0], k1 = s.key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

static void block_at(struct random_stream s, uint64_t index, uint32_t out[4]) {
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    random_block(s, counter, out);
}

uint64_t random_bits(struct random_stream s, uint64_t index) {
    uint32_t w[4];
    block_at(s, index, w);
    return (uint64_t)w[1] << 32 | w[0];
}

static double unit(uint32_t low, uint32_t high) { return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53; }

double random_uniform(struct random_stream s, uint64_t index) {
    uint32_t w[4];
    block_at(s, index, w);
    return unit(w[0], w[1]);
}

double random_normal(struct random_stream s, uint64_t index) {
    uint32_t w[4];
    block_at(s, index, w);
    double radius = sqrt(-2.0 * log1p(-unit(w[0], w[1])));
    return radius * cos(2.0 * 3.14159265358979323846 * unit(w[2], w[3]));
}

uint64_t random_below(struct random_stream s, uint64_t index, uint64_t bound) {
    return (uint64_t)(((unsigned __int128)random_bits(s, index) * bound) >> 64);
}

void random_permutation(struct random_stream s, uint32_t *order, size_t n) {
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        size_t j = random_below(s, i, i);
        uint32_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}
