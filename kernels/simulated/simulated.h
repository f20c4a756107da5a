/* simulated: no mathematics of models: draws the figures of a run from a declared distribution, to test the harness by
 * the thousand.
 *
 *   bpb(variant, seed) = bpb + effect + node(seed) + seed_sd (sqrt(correlation) z(seed) + sqrt(1 - correlation)
 * e(variant, seed))
 *
 * z, e and node are independent normals from Philox streams keyed by the seed and by a text that names the variant. So
 * each variant has the standard deviation seed_sd over its seeds, two variants correlate by `correlation`, their
 * difference has the standard deviation seed_sd sqrt(2 (1 - correlation)), and nothing depends on what was drawn
 * before. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct simulated_world {
    double bpb, effect, seed_sd, correlation;
    double node_sd; /* of a node's own shift, in BPB; all runs of a seed share a node */
    int64_t nodes;
    double failure_rate;
};

double simulated_bpb(const struct simulated_world *world, uint64_t seed, const char *variant);
bool simulated_fails(const struct simulated_world *world, uint64_t seed, const char *variant);
int64_t simulated_node(const struct simulated_world *world, uint64_t seed); /* 0 .. nodes-1 */

/* A standard normal of the run, of its own for each name, as for the spread of its seconds. */
double simulated_spread(uint64_t seed, const char *variant, const char *name);
