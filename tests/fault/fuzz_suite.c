/* fuzz_suite: declared suites, with the presets and the included files of this project. */
#include "harness/suite.h"
#include "tests/fault/fuzz.h"

static void read_suite(const char *path) {
    struct suite suite = {0};
    const struct suite_request request = {.path = path};
    status s = suite_load(&suite, &request);
    if (!s) suite_free(&suite);
    status_free(s);
}

static void seeds(void) {
    fuzz_seed_file("demo", -1, "suites/demo.yaml");
    fuzz_seed_file("recurrence", -1, "suites/recurrence.yaml");
    fuzz_seed_file("bits", -1, "suites/quantization-bits.yaml");
    fuzz_seed_file("preset", -1, "suites/presets/tiny.yaml");
    fuzz_seed_file("corners", -1, "tests/fault/corpus/corners.yaml");
}

/* A matrix of a few lines makes up to a thousand variants, each a whole configuration. */
const struct fuzz_target fuzz_target = {.spare = 16 << 20, .factor = 1024, .read = read_suite, .seeds = seeds};
