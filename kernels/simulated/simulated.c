/* simulated: figures of runs as draws from Philox streams; see simulated.h. */
#include "kernels/simulated/simulated.h"

#include <math.h>
#include <stdio.h>

#include "kernels/random.h"

enum { OF_SEED, OF_NODE, FAILURES = 2 };

static struct random_stream stream_of(uint64_t seed, const char *variant, const char *name) {
    char consumer[256];
    snprintf(consumer, sizeof consumer, "simulated.%s %s", name, variant);
    return random_stream(seed, consumer);
}

int64_t simulated_node(const struct simulated_world *world, uint64_t seed) {
    return (int64_t)random_below(stream_of(seed, "", "seed"), OF_NODE, (uint64_t)world->nodes);
}

static double node_shift(const struct simulated_world *world, uint64_t seed) {
    if (world->node_sd == 0) return 0;
    return world->node_sd * random_normal(stream_of(0, "", "node"), (uint64_t)simulated_node(world, seed));
}

double simulated_bpb(const struct simulated_world *world, uint64_t seed, const char *variant) {
    double shared = random_normal(stream_of(seed, "", "seed"), OF_SEED);
    double own = random_normal(stream_of(seed, variant, "variant"), 0);
    double noise = sqrt(world->correlation) * shared + sqrt(1 - world->correlation) * own;
    return world->bpb + world->effect + node_shift(world, seed) + world->seed_sd * noise;
}

bool simulated_fails(const struct simulated_world *world, uint64_t seed, const char *variant) {
    return random_uniform(stream_of(seed, variant, "variant"), FAILURES) < world->failure_rate;
}

double simulated_spread(uint64_t seed, const char *variant, const char *name) {
    return random_normal(stream_of(seed, variant, name), 0);
}
