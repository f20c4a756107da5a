/* plan: runs, stages and their keys; see plan.h. */
#include "harness/plan.h"

#include <math.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/simulated.h"
#include "harness/store.h"
#include "model/files.h"

/* In the order of enum run_part. */
static const struct part_row {
    const char *name;
    enum stage_kind kind;
    int parent; /* part; -1: none */
} parts[PART_COUNT] = {
    {"train", STAGE_TRAIN, -1},
    {"evaluate raw", STAGE_EVALUATE, PART_TRAIN},
    {"average", STAGE_AVERAGE, PART_TRAIN},
    {"evaluate averaged", STAGE_EVALUATE, PART_AVERAGE},
    {"quantise", STAGE_QUANTISE, PART_AVERAGE},
    {"evaluate artifact", STAGE_EVALUATE, PART_QUANTISE},
};

static const char *const states[STAGE_STATES] = {"pending", "running", "done", "failed", "interrupted"};

const char *run_part_name(enum run_part part) { return parts[part].name; }
enum stage_kind run_part_kind(enum run_part part) { return parts[part].kind; }
const char *stage_state_name(enum stage_state state) { return states[state]; }

bool stage_state_find(const char *name, enum stage_state *state) {
    for (int i = 0; i < STAGE_STATES; i++) {
        if (strcmp(states[i], name) != 0) continue;
        *state = (enum stage_state)i;
        return true;
    }
    return false;
}

/* --- datasets ----------------------------------------------------------------------------------------------------- */

const struct dataset *datasets_find(const struct dataset_list *list, const char *name) {
    for (int i = 0; i < list->count; i++)
        if (strcmp(list->rows[i].name, name) == 0) return &list->rows[i];
    return NULL;
}

status datasets_open(struct dataset_list *list, const struct suite *suite, const char *root) {
    *list = (struct dataset_list){.rows = calloc((size_t)suite->variant_count + 1, sizeof *list->rows)};
    if (!list->rows) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < suite->variant_count; i++) {
        const char *name = suite->variants[i].config.data_name;
        if (datasets_find(list, name)) continue;
        status s = NULL;
        if (suite_simulated(suite))
            simulated_dataset(&list->rows[list->count], suite, name);
        else
            s = dataset_open(&list->rows[list->count], root, name);
        if (s) {
            datasets_close(list);
            return s;
        }
        list->count++;
    }
    return NULL;
}

void datasets_close(struct dataset_list *list) {
    for (int i = 0; i < list->count; i++) dataset_close(&list->rows[i]);
    free(list->rows);
    *list = (struct dataset_list){0};
}

/* --- keys --------------------------------------------------------------------------------------------------------- */

static void add_line(struct digest *digest, const char *name, const char *value) {
    digest_add(digest, name, strlen(name));
    digest_add(digest, "=", 1);
    digest_add(digest, value, strlen(value));
    digest_add(digest, "\n", 1);
}

/* The options that first matter at this stage: those of earlier stages are in the parent's key. data.name is left out:
 * the dataset's hash stands for it. */
static void add_options(struct digest *digest, const struct config *config, enum stage_kind kind) {
    char value[512];
    bool simulated = config->run_backend == BACKEND_SIMULATED;
    for (size_t i = 0; i < option_row_count; i++)
        if (option_rows[i].stage == kind && strcmp(option_rows[i].key, "data.name") != 0 &&
            (simulated || !option_of_source(&option_rows[i])))
            add_line(digest, option_rows[i].key, option_text(&option_rows[i], config, value));
}

struct key_parts {
    const struct config *config;
    const char *dataset, *backend, *parent;
    int64_t seed;
};

static void stage_key(enum stage_kind kind, const struct key_parts *k, char key[65]) {
    char number[32];
    struct digest *digest = digest_new();
    add_line(digest, "stage", stage_name(kind));
    snprintf(number, sizeof number, "%d", NUMERICS_REVISION);
    add_line(digest, "numerics", number);
    add_line(digest, "backend", k->backend);
    add_line(digest, "precision", sizeof(real) == 4 ? "float32" : "float64");
    add_line(digest, "dataset", k->dataset);
    snprintf(number, sizeof number, "%lld", (long long)k->seed);
    add_line(digest, "seed", number);
    add_line(digest, "parent", k->parent);
    add_options(digest, k->config, kind);
    digest_finish(digest, key);
}

/* --- runs and stages ---------------------------------------------------------------------------------------------- */

struct builder {
    struct plan *plan;
    const struct dataset_list *datasets;
    void *index; /* tree of stages by key */
};

static int by_key(const void *a, const void *b) {
    return strcmp(((const struct plan_stage *)a)->key, ((const struct plan_stage *)b)->key);
}

static void keep(void *stage) { (void)stage; }

static const char *parent_key(const struct plan *plan, const struct plan_run *run, enum run_part part) {
    return parts[part].parent < 0 ? "" : plan->stages[run->stages[parts[part].parent]].key;
}

/* Finds the stage of that key, or makes it from the candidate behind the last stage. */
static int intern_stage(struct builder *b, struct plan_stage *candidate) {
    struct plan_stage **found = tsearch(candidate, &b->index, by_key);
    if (!found) return -1;
    if (*found == candidate) b->plan->stage_count++;
    (*found)->uses++;
    return (int)(*found - b->plan->stages);
}

static status add_stage(struct builder *b, struct plan_run *run, enum run_part part) {
    const struct config *config = &b->plan->suite->variants[run->variant].config;
    struct plan_stage *stage = &b->plan->stages[b->plan->stage_count];
    struct key_parts k = {config, datasets_find(b->datasets, config->data_name)->sha256, b->plan->ops->name,
                          parent_key(b->plan, run, part), run->seed};
    *stage = (struct plan_stage){.kind = parts[part].kind,
                                 .part = part,
                                 .parent = parts[part].parent < 0 ? -1 : run->stages[parts[part].parent],
                                 .variant = run->variant,
                                 .seed = run->seed,
                                 .seconds = NAN,
                                 .work = NAN};
    stage_key(stage->kind, &k, stage->key);
    run->stages[part] = intern_stage(b, stage);
    return run->stages[part] < 0 ? status_new(STATUS_SYSTEM, "out of memory") : NULL;
}

static status add_run(struct builder *b, int variant, int64_t seed) {
    struct plan_run *run = &b->plan->runs[b->plan->run_count++];
    *run = (struct plan_run){.variant = variant, .seed = seed};
    struct digest *digest = digest_new();
    for (int part = 0; part < PART_COUNT; part++) {
        status s = add_stage(b, run, (enum run_part)part);
        if (s) {
            digest_finish(digest, run->key);
            return s;
        }
        digest_add(digest, b->plan->stages[run->stages[part]].key, 64);
    }
    digest_finish(digest, run->key);
    return NULL;
}

static status check_datasets(const struct suite *suite, const struct dataset_list *datasets) {
    if (suite_simulated(suite)) return NULL;
    for (int i = 0; i < suite->variant_count; i++) {
        const struct suite_variant *v = &suite->variants[i];
        const struct dataset *dataset = datasets_find(datasets, v->config.data_name);
        if (!dataset)
            return status_new(STATUS_USAGE, "%s:%d:%d: variant %s: dataset %s is not prepared", v->file, v->line,
                              v->column, v->name, v->config.data_name);
        if ((int64_t)dataset->vocab_size != v->config.model_vocab_size)
            return status_new(STATUS_USAGE,
                              "%s:%d:%d: variant %s: model.vocab_size is %lld, but the tokenizer of dataset %s has %zu "
                              "pieces; set model.vocab_size: %zu or prepare the text with --vocab %lld",
                              v->file, v->line, v->column, v->name, (long long)v->config.model_vocab_size,
                              dataset->name, dataset->vocab_size, dataset->vocab_size,
                              (long long)v->config.model_vocab_size);
    }
    return NULL;
}

static status fill(struct builder *b) {
    const struct suite *suite = b->plan->suite;
    for (int s = 0; s < suite->seed_count; s++)
        for (int v = 0; v < suite->variant_count; v++) TRY(add_run(b, v, suite->seeds[s]));
    return NULL;
}

status plan_create(struct plan *plan, const struct suite *suite, const struct dataset_list *datasets,
                   const struct backend *ops) {
    *plan = (struct plan){.suite = suite, .datasets = datasets, .ops = ops};
    TRY(simulated_check(suite));
    TRY(check_datasets(suite, datasets));
    size_t runs = (size_t)suite->variant_count * (size_t)suite->seed_count;
    plan->runs = calloc(runs + 1, sizeof *plan->runs);
    plan->stages = calloc(runs * PART_COUNT + 1, sizeof *plan->stages); /* stages never move: the tree points at them */
    struct builder b = {plan, datasets, NULL};
    status s = plan->runs && plan->stages ? fill(&b) : status_new(STATUS_SYSTEM, "out of memory");
    tdestroy(b.index, keep);
    if (s) plan_free(plan);
    return s;
}

/* --- parts -------------------------------------------------------------------------------------------------------- */

int plan_trainings(const struct plan *plan) {
    int count = 0;
    for (int i = 0; i < plan->stage_count; i++) count += plan->stages[i].parent < 0;
    return count;
}

/* A parent comes before its children. */
void plan_number_parts(const struct plan *plan, int of, int *parts_of) {
    int training = 0;
    for (int i = 0; i < plan->stage_count; i++) {
        int parent = plan->stages[i].parent;
        parts_of[i] = parent < 0 ? 1 + training++ % of : parts_of[parent];
    }
}

/* place: for each stage its part before, and its place in the part after; -1 when it is not in it. */
static void cut_stages(const struct plan *whole, struct plan *out, int *place) {
    for (int i = 0; i < whole->stage_count; i++) {
        const struct plan_stage *stage = &whole->stages[i];
        bool mine = place[i] == out->part;
        place[i] = mine ? out->stage_count : -1;
        if (!mine) continue;
        out->stages[out->stage_count] = *stage;
        if (stage->parent >= 0) out->stages[out->stage_count].parent = place[stage->parent];
        out->stage_count++;
    }
}

static void cut_runs(const struct plan *whole, struct plan *out, const int *place) {
    for (int i = 0; i < whole->run_count; i++) {
        if (place[whole->runs[i].stages[PART_TRAIN]] < 0) continue;
        struct plan_run *run = &out->runs[out->run_count++];
        *run = whole->runs[i];
        for (int part = 0; part < PART_COUNT; part++) run->stages[part] = place[run->stages[part]];
    }
}

status plan_part(const struct plan *whole, int part, int of, struct plan *out) {
    int trainings = plan_trainings(whole);
    if (part > trainings)
        return status_new(STATUS_USAGE,
                          "part %d of %d is empty: suite %s has %d trainings, and falls into so many parts at most",
                          part, of, whole->suite->name, trainings);
    *out = (struct plan){.suite = whole->suite,
                         .datasets = whole->datasets,
                         .ops = whole->ops,
                         .comm = whole->comm,
                         .part = part,
                         .parts = of,
                         .runs = calloc((size_t)whole->run_count + 1, sizeof *out->runs),
                         .stages = calloc((size_t)whole->stage_count + 1, sizeof *out->stages)};
    int *place = calloc((size_t)whole->stage_count + 1, sizeof *place);
    status s = out->runs && out->stages && place ? NULL : status_new(STATUS_SYSTEM, "out of memory");
    if (!s) plan_number_parts(whole, of, place);
    if (!s) cut_stages(whole, out, place);
    if (!s) cut_runs(whole, out, place);
    free(place);
    if (s) plan_free(out);
    return s;
}

void plan_free(struct plan *plan) {
    free(plan->runs);
    free(plan->stages);
    free(plan->rates);
    *plan = (struct plan){0};
}

status plan_refresh(struct plan *plan, struct store *store) {
    for (int i = 0; i < plan->stage_count; i++) {
        struct plan_stage *stage = &plan->stages[i];
        double seconds;
        bool known;
        TRY(store_stage_state(store, stage->key, &stage->state, &seconds, &known));
        if (known && stage->state == STAGE_DONE) stage->seconds = seconds;
    }
    return NULL;
}
