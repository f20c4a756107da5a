/* fuzz_suite: declared suites, with the presets and the included files of this project, and the plans of their runs. */
#include "harness/plan.h"
#include "harness/simulated.h"
#include "tests/fault/fuzz.h"

enum { MOST_RUNS = 2048 }; /* of a plan that is made: what is beyond costs time, and finds nothing else */

/* As if nothing was to be trained, so that no text is needed. */
static void plan_runs(struct suite *suite) {
    struct dataset_list datasets;
    struct plan plan;
    suite->config.run_backend = BACKEND_SIMULATED;
    for (int v = 0; v < suite->variant_count; v++) suite->variants[v].config.run_backend = BACKEND_SIMULATED;
    status s = datasets_open(&datasets, suite, "no-data-is-needed");
    if (!s) {
        s = plan_create(&plan, suite, &datasets, backend_find("simulated"));
        if (!s) plan_free(&plan);
        datasets_close(&datasets);
    }
    status_free(s);
}

static void read_suite(const char *path) {
    struct suite suite = {0};
    const struct suite_request request = {.path = path};
    status s = suite_load(&suite, &request);
    if (!s && suite.variant_count <= MOST_RUNS / suite.seed_count) plan_runs(&suite);
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

/* libfyaml 0.7.12 itself leaks some memory for each quoted scalar with more than eight escapes, in files that are
 * right, too. What Hinge allocates for a suite is checked as ever. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libfyaml\n"; }

/* A matrix of a few lines makes up to a thousand variants, each a whole configuration; a run has six stages. */
const struct fuzz_target fuzz_target = {.spare = 48 << 20, .factor = 1024, .read = read_suite, .seeds = seeds};
