/* cmd_calibrate: an A/A test on stored runs of one variant: labels that mean nothing, and how often they seem to.
 *
 * Each relabelling draws 2m of the variant's runs without replacement and pairs them at random, as if m seeds had been
 * run under two variants. Nothing differs, so a test at alpha may reject in a share alpha of relabellings. The rate is
 * that of these runs: with few of them it is coarse, and where it lies above alpha the test's assumptions (values that
 * can be exchanged; for t, differences about normal) are doubtful for this metric. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/verbs.h"
#include "kernels/random.h"

/* Up to so many pairs all signings are enumerated, in each relabelling. */
enum { LEAST_RUNS = 4, MOST_PAIRS = 12 };

struct calibration {
    struct results results;
    const char *variant, *metric;
    double *values;
    size_t count, pairs, relabellings;
    double rate_t, rate_flip; /* shares of relabellings with p < alpha */
    double least_flip;        /* least p of the sign-flip test at this many pairs */
};

static status load(const struct invocation *in, struct calibration *c) {
    char name[NAME_CAPACITY];
    struct store *store;
    TRY(suite_name(in->arguments[0], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status s = store_load_results_at(store, name, cli_text(in, "scale"), RESULTS_FIGURES, &c->results);
    store_close(store);
    if (!s) note_peek(in, &c->results);
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
    if (c->count >= LEAST_RUNS) return NULL;
    return status_new(STATUS_DATA, "variant %s has %zu finished runs with %s; an A/A test takes at least %d",
                      c->variant, c->count, c->metric, LEAST_RUNS);
}

static void choose_pairs(const struct invocation *in, struct calibration *c) {
    size_t most = c->count / 2 < MOST_PAIRS ? c->count / 2 : MOST_PAIRS;
    size_t wanted = cli_given(in, "seeds") ? (size_t)cli_int(in, "seeds") : most;
    c->pairs = wanted < most ? wanted : most;
    c->relabellings = (size_t)cli_int(in, "relabellings");
}

static status relabel(struct calibration *c) {
    size_t rejected_t = 0, rejected_flip = 0;
    const struct design *design = &c->results.design;
    uint32_t *order = calloc(c->count, sizeof *order);
    if (!order) return status_new(STATUS_SYSTEM, "out of memory for %zu runs", c->count);
    for (size_t k = 0; k < c->relabellings; k++) {
        double differences[MOST_PAIRS];
        random_permutation(random_stream(design->seed + k, "calibrate"), order, c->count);
        for (size_t i = 0; i < c->pairs; i++) differences[i] = c->values[order[2 * i]] - c->values[order[2 * i + 1]];
        rejected_t += p_paired_t(differences, c->pairs) < design->alpha;
        rejected_flip += p_sign_flip(differences, c->pairs, design->seed) < design->alpha;
    }
    free(order);
    c->rate_t = (double)rejected_t / (double)c->relabellings;
    c->rate_flip = (double)rejected_flip / (double)c->relabellings;
    c->least_flip = attainable_p(TEST_SIGN_FLIP, c->pairs);
    return NULL;
}

static double three_errors(const struct calibration *c) {
    double alpha = c->results.design.alpha;
    return 3 * sqrt(alpha * (1 - alpha) / (double)c->relabellings);
}

static const char *opinion(const struct calibration *c, double rate) {
    return rate <= c->results.design.alpha + three_errors(c) ? "as promised"
                                                             : "above alpha: doubt its assumptions here";
}

static void print_text(const struct calibration *c) {
    double alpha = c->results.design.alpha;
    printf("%s: A/A test of %s on %zu runs of %s; %zu relabellings into %zu pairs, alpha %g\n", c->results.suite,
           c->metric, c->count, c->variant, c->relabellings, c->pairs, alpha);
    if (simulated_note(&c->results)) printf("%s\n", simulated_note(&c->results));
    print_caveats(&c->results);
    printf("paired-t   false positives %5.2f %%, promised at most %g %%: %s\n", 100 * c->rate_t, 100 * alpha,
           opinion(c, c->rate_t));
    printf("sign-flip  false positives %5.2f %%, promised at most %g %%: %s\n", 100 * c->rate_flip, 100 * alpha,
           c->least_flip >= alpha ? "it cannot reject with so few pairs" : opinion(c, c->rate_flip));
}

static status print_json(const struct calibration *c) {
    json_t *root = json_object();
    json_object_set_new(root, "suite", json_text(c->results.suite));
    json_object_set_new(root, "simulated", json_boolean(simulated_note(&c->results) != NULL));
    json_object_set_new(root, "variant", json_text(c->variant));
    json_object_set_new(root, "metric", json_text(c->metric));
    json_object_set_new(root, "runs", json_integer((json_int_t)c->count));
    json_object_set_new(root, "pairs", json_integer((json_int_t)c->pairs));
    json_object_set_new(root, "relabellings", json_integer((json_int_t)c->relabellings));
    json_object_set_new(root, "alpha", json_number(c->results.design.alpha));
    json_object_set_new(root, "false_positives_paired_t", json_number(c->rate_t));
    json_object_set_new(root, "false_positives_sign_flip", json_number(c->rate_flip));
    json_object_set_new(root, "three_standard_errors", json_number(three_errors(c)));
    json_object_set_new(root, "caveats", caveats_json(&c->results));
    return json_print(stdout, root);
}

static status calibrate(const struct invocation *in, struct calibration *c) {
    TRY(load(in, c));
    c->variant = cli_text(in, "variant") ? cli_text(in, "variant") : c->results.design.baseline;
    c->metric = cli_text(in, "metric") ? cli_text(in, "metric") : c->results.metric;
    TRY(collect(c));
    choose_pairs(in, c);
    TRY(relabel(c));
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
     .high = MOST_PAIRS,
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
