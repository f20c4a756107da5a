/* suite_looks: seeds in batches and the looks between them; see suite_looks.h. */
#include "harness/suite_looks.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SEEDS = 1000 };

struct batches {
    long first, step, most;
};

static status read_count(const struct yaml_node *seeds, const char *key, long least, long *out) {
    const struct yaml_node *node = yaml_get(seeds, key);
    if (!node) return yaml_error(seeds->place, "seeds: %s is missing; batches are {first: 3, step: 2, most: 11}", key);
    char *end = node->text;
    if (node->kind == YAML_TEXT) *out = strtol(node->text, &end, 10);
    if (node->kind != YAML_TEXT || end == node->text || *end || *out < least || *out > MOST_SEEDS)
        return yaml_error(node->place, "seeds: %s must be a whole number from %ld to %d", key, least, MOST_SEEDS);
    return NULL;
}

static status check_batch_keys(const struct yaml_node *seeds) {
    static const char *const keys[] = {"first", "step", "most"};
    for (int i = 0; i < seeds->count; i++) {
        bool known = false;
        for (int k = 0; k < 3; k++) known |= strcmp(seeds->children[i].key, keys[k]) == 0;
        if (!known)
            return yaml_error(seeds->children[i].key_place, "seeds: unknown key %s; allowed: first, step, most",
                              seeds->children[i].key);
    }
    return NULL;
}

/* The last look is at the last seed, also when the steps do not meet it. */
static status place_looks(const struct yaml_node *seeds, const struct batches *b, struct looks *looks) {
    for (long n = b->first;; n += b->step) {
        if (looks->count == MOST_LOOKS)
            return yaml_error(seeds->place, "seeds: more than %d looks; take larger steps", MOST_LOOKS);
        looks->n[looks->count++] = (size_t)(n < b->most ? n : b->most);
        if (n >= b->most) return NULL;
    }
}

status suite_read_batches(const struct yaml_node *seeds, struct suite *suite) {
    struct batches b;
    TRY(check_batch_keys(seeds));
    TRY(read_count(seeds, "first", 2, &b.first));
    TRY(read_count(seeds, "step", 1, &b.step));
    TRY(read_count(seeds, "most", b.first, &b.most));
    TRY(place_looks(seeds, &b, &suite->looks));
    suite->seeds = calloc((size_t)b.most, sizeof *suite->seeds);
    if (!suite->seeds) return status_new(STATUS_SYSTEM, "out of memory");
    for (suite->seed_count = 0; suite->seed_count < b.most; suite->seed_count++)
        suite->seeds[suite->seed_count] = suite->seed_count + 1;
    return NULL;
}

status suite_read_spending(const char *path, const struct yaml_node *looks, struct suite *suite) {
    if (!looks && !suite->looks.count) return NULL;
    if (!looks)
        return status_new(STATUS_USAGE, "%s: looks: missing; seeds in batches need obrien-fleming or pocock", path);
    const struct yaml_node *name = looks->kind == YAML_MAP && looks->count == 1 ? yaml_get(looks, "spending") : looks;
    if (!name || name->kind != YAML_TEXT || !spending_find(name->text, &suite->looks.spending))
        return yaml_error(looks->place, "looks: the spending function is obrien-fleming or pocock");
    if (suite->looks.count && suite->design.test != TEST_PAIRED_T)
        return yaml_error(looks->place, "looks: their boundaries are those of paired-t; the test is %s",
                          test_name(suite->design.test));
    if (suite->looks.count) return NULL;
    return yaml_error(looks->place, "looks: need seeds in batches, as seeds: {first: 3, step: 2, most: 11}");
}
