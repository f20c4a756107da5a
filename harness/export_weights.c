/* export_weights: finds or draws a run's weights and writes them in float32; see export_weights.h. */
#include "harness/export_weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/weights.h"
#include "model/files.h"
#include "model/safetensors.h"

struct export {
    struct store *store;
    struct results results; /* of the run alone */
    struct config config;
    struct parameters parameters;
    real *weights;
    float *values; /* (total) */
    char label[2 * NAME_CAPACITY + 64];
};

static const struct result_run *run_of(const struct export *x) { return &x->results.runs[0]; }

static void release(struct export *x) {
    free(x->weights);
    free(x->values);
    parameters_destroy(&x->parameters);
    results_free(&x->results);
}

/* --- the weights ---------------------------------------------------------------------------------------------- */

static status load_trained(const struct export *x) {
    char path[4096];
    const struct result_run *run = run_of(x);
    if (!*run->weights_sha256)
        return status_new(STATUS_USAGE, "run %" PRId64 " is not trained yet; --step 0 exports its initial weights",
                          run->id);
    TRY(store_file(x->store, run->train_key, "weights.safetensors", false, path));
    return weights_load(path, &x->parameters, run->train_key, run->weights_sha256, x->weights);
}

static status check_step(const struct export *x, int64_t step) {
    int64_t last = x->config.train_steps;
    if (*run_of(x)->weights_sha256) last = run_of(x)->steps;
    if (step <= 0 || step == last) return NULL;
    return status_new(STATUS_USAGE,
                      "--step %" PRId64 ": of run %" PRId64 " only step 0 and the last, %" PRId64 ", can be exported",
                      step, run_of(x)->id, last);
}

static status fetch(struct export *x, int64_t step) {
    const struct result_run *run = run_of(x);
    TRY(check_step(x, step));
    TRY(parameters_create(&x->parameters, &x->config));
    x->weights = weights_allocate(&x->parameters);
    if (!x->weights) return status_new(STATUS_SYSTEM, "no memory for %zu parameters", x->parameters.elements);
    snprintf(x->label, sizeof x->label, "%s %s seed %" PRId64 " step %" PRId64, x->results.suite,
             x->results.variants[run->variant].name, run->seed, step == 0 ? 0 : run->steps);
    if (step == 0) return parameters_initialise(&x->parameters, x->weights, (uint64_t)run->seed);
    return load_trained(x);
}

/* --- the file ------------------------------------------------------------------------------------------------- */

static void describe(const struct export *x, const struct tensor *tensor, struct stored_tensor *stored) {
    float *values = x->values + tensor->offset;
    for (size_t i = 0; i < tensor->count; i++) values[i] = (float)x->weights[tensor->offset + i];
    *stored = (struct stored_tensor){.type = TYPE_F32,
                                     .dims = tensor->dims,
                                     .shape = {tensor->shape[0], tensor->dims == 1 ? 0 : tensor->shape[1]},
                                     .count = tensor->count,
                                     .data = values};
    snprintf(stored->name, sizeof stored->name, "param.%s", tensor->name);
}

static int add_metadata(const struct export *x, char (*texts)[512], struct metadata_entry *entries) {
    int count = 0;
    entries[count++] = (struct metadata_entry){"case", x->label};
    for (size_t i = 0; i < option_row_count; i++)
        entries[count++] =
            (struct metadata_entry){option_rows[i].key, option_text(&option_rows[i], &x->config, texts[i])};
    return count;
}

static status write_file(struct export *x, const char *path) {
    const struct parameters *p = &x->parameters;
    struct stored_tensor *stored = calloc((size_t)p->count, sizeof *stored);
    struct metadata_entry *entries = calloc(option_row_count + 1, sizeof *entries);
    char(*texts)[512] = calloc(option_row_count, sizeof *texts);
    unsigned char *bytes = NULL;
    size_t size = 0;
    status s = NULL;
    x->values = malloc(p->total * sizeof *x->values);
    if (!stored || !entries || !texts || !x->values) s = status_new(STATUS_SYSTEM, "%s: out of memory", path);
    for (int i = 0; !s && i < p->count; i++) describe(x, &p->tensors[i], &stored[i]);
    if (!s) s = safetensors_build(stored, p->count, entries, add_metadata(x, texts, entries), &bytes, &size);
    if (!s) s = file_write_atomic(path, bytes, size);
    free(bytes);
    free(texts);
    free(entries);
    free(stored);
    return s;
}

status export_weights(struct store *store, int64_t run, int64_t step, const char *path) {
    struct export x = {.store = store};
    TRY(store_load_run(store, run, &x.results));
    status s = store_run_config(store, run, &x.config);
    if (!s) s = fetch(&x, step);
    if (!s) s = write_file(&x, path);
    release(&x);
    return s;
}
