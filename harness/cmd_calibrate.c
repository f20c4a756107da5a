/* cmd_calibrate: an A/A test on stored runs of one variant (stats/relabel.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/simulated.h"
#include "harness/stats/relabel.h"
#include "harness/store.h"
#include "harness/verbs.h"

struct calibration {
    struct results results;
    const char *variant, *metric;
    double *values;
    size_t count;
    struct relabelling rates;
};

static status load(const struct invocation *in, struct calibration *c) {
    char name[NAME_CAPACITY];
    struct store *store;
    TRY(suite_name(in->arguments[0], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status s = store_load_results_at(store, name, cli_text(in, "scale"), RESULTS_FIGURES, &c->results);
    store_close(store);
    return s;
}

static status collect(struct calibration *c) {
    c->values = calloc((size_t)c->results.run_count + 1, sizeof *c->values);
    if (!c->values) return status_new(STATUS_SYSTEM, "out of memory for %d runs", c->results.run_count);
    bool known = false;
    for (int i = 0; i < c->results.run_count; i++) {
        double value;
        if (strcmp(c->results.variants[c->results.runs[i].variant].name, c->variant) != 0) continue;
        known = true;
        TRY(results_metric(&c->results, i, c->metric, &value));
        if (isfinite(value)) c->values[c->count++] = value;
    }
    if (!known) return status_new(STATUS_USAGE, "suite %s has no variant '%s'", c->results.suite, c->variant);
    if (c->count >= RELABEL_LEAST) return NULL;
    return status_new(STATUS_DATA, "variant %s has %zu finished runs with %s; an A/A test takes at least %d",
                      c->variant, c->count, c->metric, RELABEL_LEAST);
}

static void print_text(const struct calibration *c) {
    double alpha = c->results.design.alpha;
    printf("%s: A/A test of %s on %zu runs of %s; %zu relabellings into %zu pairs, alpha %g\n", c->results.suite,
           c->metric, c->count, c->variant, c->rates.count, c->rates.pairs, alpha);
    if (simulated_note(&c->results)) printf("%s\n", simulated_note(&c->results));
    print_caveats(&c->results);
    for (int test = 0; test < TEST_KINDS; test++)
        printf("%-12s  false positives %5.2f %%, promised at most %g %%, here within %.2f: %s\n",
               test_name((enum test_kind)test), 100 * c->rates.rate[test], 100 * alpha, 100 * c->rates.three_errors,
               relabel_verdict(&c->rates, (enum test_kind)test, alpha));
}

/* A key that ends in a test's name, in the spelling of keys. */
static void set_of_test(json_t *root, const char *what, enum test_kind test, json_t *value) {
    char name[64];
    snprintf(name, sizeof name, "%s_%s", what, test_name(test));
    for (char *at = name; *at; at++) *at = *at == '-' ? '_' : *at;
    json_object_set_new(root, name, value);
}

static status print_json(const struct calibration *c) {
    json_t *root = json_object();
    json_object_set_new(root, "suite", json_text(c->results.suite));
    json_object_set_new(root, "simulated", json_boolean(simulated_note(&c->results) != NULL));
    json_object_set_new(root, "variant", json_text(c->variant));
    json_object_set_new(root, "metric", json_text(c->metric));
    json_object_set_new(root, "runs", json_integer((json_int_t)c->count));
    json_object_set_new(root, "pairs", json_integer((json_int_t)c->rates.pairs));
    json_object_set_new(root, "relabellings", json_integer((json_int_t)c->rates.count));
    json_object_set_new(root, "alpha", json_number(c->results.design.alpha));
    for (int i = 0; i < TEST_KINDS; i++) {
        enum test_kind test = (enum test_kind)i;
        set_of_test(root, "false_positives", test, json_number(c->rates.rate[test]));
        set_of_test(root, "verdict", test, json_text(relabel_verdict(&c->rates, test, c->results.design.alpha)));
    }
    json_object_set_new(root, "three_standard_errors", json_number(c->rates.three_errors));
    json_object_set_new(root, "caveats", caveats_json(&c->results));
    return json_print(stdout, root);
}

static status calibrate(const struct invocation *in, struct calibration *c) {
    TRY(load(in, c));
    c->variant = cli_text(in, "variant") ? cli_text(in, "variant") : c->results.design.baseline;
    c->metric = cli_text(in, "metric") ? cli_text(in, "metric") : c->results.metric;
    TRY(collect(c));
    TRY(relabel(c->values, c->count, cli_given(in, "seeds") ? (size_t)cli_int(in, "seeds") : 0,
                (size_t)cli_int(in, "relabellings"), c->results.design.alpha, c->results.design.seed, NULL, &c->rates));
    note_peek(in, &c->results);
    if (cli_switch(in, "json")) return print_json(c);
    print_text(c);
    return NULL;
}

static status run(const struct invocation *in) {
    struct calibration c = {0};
    status s = calibrate(in, &c);
    free(c.values);
    results_free(&c.results);
    return s;
}

static const struct flag_row flags[] = {
    {.name = "variant", .type = FLAG_TEXT, .value_name = "NAME", .help = "whose runs; default: the baseline's"},
    {.name = "metric", .type = FLAG_TEXT, .value_name = "NAME", .help = "default: the suite's"},
    {.name = "seeds",
     .type = FLAG_INT,
     .value_name = "N",
     .low = 2,
     .high = RELABEL_MOST_PAIRS,
     .help = "pairs of a relabelling; default: half the runs, at most 12"},
    {.name = "relabellings",
     .type = FLAG_INT,
     .value_name = "N",
     .initial = "2000",
     .low = 100,
     .high = 1000000,
     .help = "how many"},
    FLAG_ROW_SCALE,
    FLAG_ROW_DB,
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge calibrate demo",
    "hinge calibrate demo --variant int8 --metric bpb.raw",
    NULL,
};

const struct verb verb_calibrate = {
    .name = "calibrate",
    .purpose = "A/A test: how often runs of one variant seem to differ",
    .arguments = "SUITE",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
