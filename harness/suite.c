/* suite: YAML to variants, seeds and a design, every value checked where it stands; see suite.h. */
#include "harness/suite.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"
#include "harness/suite_families.h"
#include "harness/suite_looks.h"
#include "harness/suite_tree.h"

/* Seed of resampling inside a test, when a permutation test is sampled: fixed, so that a table can be made again. */
enum { RESAMPLING_SEED = 20240520 };

struct loader {
    const struct suite_request *request;
    struct suite *suite;
    const struct yaml_node *root, *scale; /* scale: NULL without --scale */
    struct yaml_node preset, scale_preset;
};

/* --- words ------------------------------------------------------------------------------------------------------ */

static const char *const suite_keys[] = {"name",     "question", "preset",  "set",   "seeds",
                                         "baseline", "metric",   "margin",  "test",  "variants",
                                         "matrix",   "scales",   "include", "looks", "families"};
static const char *const scale_keys[] = {"preset", "set", "seeds", "margin"};
static const char *const test_keys[] = {"kind", "alpha", "correction"};

static status check_keys(const struct yaml_node *map, const char *const *keys, size_t count) {
    char allowed[1024];
    for (int i = 0; i < map->count; i++) {
        bool known = false;
        for (size_t k = 0; k < count; k++) known |= strcmp(map->children[i].key, keys[k]) == 0;
        if (!known)
            return yaml_error(map->children[i].key_place, "%s: unknown key; %s", map->children[i].key,
                              allowed_words(map->children[i].key, keys, count, allowed));
    }
    return NULL;
}

static status expect(const struct yaml_node *node, enum yaml_kind kind) {
    if (node->kind == kind) return NULL;
    return yaml_error(node->place, "%s: expected %s, found %s", node->key ? node->key : "item", yaml_kind_name(kind),
                      yaml_kind_name(node->kind));
}

/* Text of a key into a buffer of fixed size: printable, and not longer than fits. */
static status take_text(const struct yaml_node *node, const char *text, struct yaml_place place, char *out,
                        size_t size) {
    const char *key = node->key ? node->key : "item";
    if (!*text) return yaml_error(place, "%s: needs a value", *key ? key : "a name");
    if (strlen(text) >= size) return yaml_error(place, "%s: longer than %zu bytes", key, size - 1);
    if (has_control(text)) return yaml_error(place, "%s: holds a control character", key);
    memcpy(out, text, strlen(text) + 1);
    return NULL;
}

static status take_real(const struct yaml_node *node, double low, double high, double *out) {
    TRY(expect(node, YAML_TEXT));
    char *end;
    double value = strtod(node->text, &end);
    if (end == node->text || *end || !isfinite(value))
        return yaml_error(node->place, "%s: \"%s\" is not a number", node->key, node->text);
    if (value < low || value > high)
        return yaml_error(node->place, "%s: %s is out of bounds; allowed: %g to %g", node->key, node->text, low, high);
    *out = value;
    return NULL;
}

/* --- options ----------------------------------------------------------------------------------------------------- */

/* A list becomes "2,3"; a value stays as it is. */
static status option_value(const struct yaml_node *node, char out[1024]) {
    if (node->kind == YAML_MAP)
        return yaml_error(node->place, "%s: options are written flat, as in \"recurrence.layers: [2, 3]\"", node->key);
    if (node->kind == YAML_TEXT) return take_text(node, node->text, node->place, out, 1024);
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < node->count; i++) {
        TRY(expect(&node->children[i], YAML_TEXT));
        used += (size_t)snprintf(out + used, 1024 - used, "%s%s", i ? "," : "", node->children[i].text);
        if (used >= 1024) return yaml_error(node->place, "%s: too many values", node->key);
    }
    return NULL;
}

static status set_option(const struct yaml_node *node, struct config *config) {
    char value[1024];
    TRY(option_value(node, value));
    struct yaml_place place = option_find(node->key) ? node->place : node->key_place;
    return status_context(config_set(config, node->key, value), "%s:%d:%d", place.file, place.line, place.column);
}

/* A strategy is a set of options, which the other keys of the same mapping refine wherever they stand. */
static status apply_layer(const struct yaml_node *map, struct config *config) {
    if (!map) return NULL;
    const struct yaml_node *strategy = yaml_get(map, "quant.strategy");
    if (strategy) TRY(set_option(strategy, config));
    for (int i = 0; i < map->count; i++)
        if (&map->children[i] != strategy) TRY(set_option(&map->children[i], config));
    return NULL;
}

static status apply_setting(const char *setting, struct config *config) {
    char key[128];
    const char *equals = strchr(setting, '=');
    if (!equals || equals == setting || (size_t)(equals - setting) >= sizeof key)
        return status_new(STATUS_USAGE, "--set %s: write key=value, as in --set train.steps=100", setting);
    snprintf(key, sizeof key, "%.*s", (int)(equals - setting), setting);
    return status_context(config_set(config, key, equals + 1), "--set %s", setting);
}

static bool sets_strategy(const char *setting) { return strncmp(setting, "quant.strategy=", 15) == 0; }

static status apply_settings(const struct suite_request *request, struct config *config) {
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < request->setting_count; i++)
            if (sets_strategy(request->settings[i]) == (pass == 0)) TRY(apply_setting(request->settings[i], config));
    return NULL;
}

static void append_option(char *out, size_t size, const char *key, const struct config *config) {
    char value[512];
    const struct option_row *row = option_find(key);
    size_t used = strlen(out);
    if (row && used < size)
        snprintf(out + used, size - used, "%s%s=%s", used ? " " : "", key, option_text(row, config, value));
}

/* --- presets ------------------------------------------------------------------------------------------------------ */

status preset_load(const char *path, struct config *config) {
    struct yaml_node root;
    struct suite_files files = {0};
    status s = suite_tree_preset(path, &files, &root);
    config_defaults(config);
    if (!s) s = apply_layer(&root, config);
    if (!s) s = status_context(config_check(config), "%s", path);
    yaml_free(&root);
    suite_files_free(&files);
    return s;
}

/* Reads the preset that a mapping names, if it names one; its name goes behind those before it. */
static status load_preset(struct loader *l, const struct yaml_node *map, struct yaml_node *preset) {
    const struct yaml_node *node = yaml_get(map, "preset");
    char name[64], file[80], what[80], path[4096];
    if (!node) return NULL;
    TRY(expect(node, YAML_TEXT));
    TRY(take_text(node, node->text, node->place, name, sizeof name));
    if (strchr(name, '/')) return yaml_error(node->place, "preset: a name, not a path");
    snprintf(file, sizeof file, "presets/%s", name);
    snprintf(what, sizeof what, "preset %s", name);
    TRY(suite_file_find(node, what, l->suite->path, file, path));
    TRY(suite_tree_preset(path, &l->suite->files, preset));
    size_t used = strlen(l->suite->preset);
    snprintf(l->suite->preset + used, sizeof l->suite->preset - used, "%s%s", used ? " + " : "", name);
    return NULL;
}

static status option_map(const struct yaml_node *map, const struct yaml_node **out) {
    *out = map ? yaml_get(map, "set") : NULL;
    return *out ? expect(*out, YAML_MAP) : NULL;
}

/* --- the parts of a suite ----------------------------------------------------------------------------------------- */

static status required(struct loader *l, const char *key, enum yaml_kind kind, const struct yaml_node **out) {
    *out = yaml_get(l->root, key);
    if (!*out) return status_new(STATUS_USAGE, "%s: %s: missing; a suite needs it", l->suite->path, key);
    return expect(*out, kind);
}

static status find_scale(struct loader *l) {
    const struct yaml_node *scales = yaml_get(l->root, "scales");
    const char *wanted = l->request->scale ? l->request->scale : "", *names[64];
    if (scales) TRY(expect(scales, YAML_MAP));
    int count = scales ? scales->count : 0;
    if (count > 64) return yaml_error(scales->place, "scales: more than 64");
    l->suite->scales = calloc((size_t)count + 1, sizeof *l->suite->scales);
    if (!l->suite->scales) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < count; i++) {
        const struct yaml_node *scale = &scales->children[i];
        names[i] = scale->key;
        TRY(take_text(scale, scale->key, scale->key_place, l->suite->scales[l->suite->scale_count++],
                      sizeof *l->suite->scales));
        TRY(expect(scale, YAML_MAP));
        TRY(check_keys(scale, scale_keys, sizeof scale_keys / sizeof *scale_keys));
        if (strcmp(scale->key, wanted) == 0) l->scale = scale;
    }
    if (!*wanted || l->scale) {
        snprintf(l->suite->scale, sizeof l->suite->scale, "%s", wanted);
        return NULL;
    }
    char allowed[1024];
    return status_new(STATUS_USAGE, "%s: scales: the suite has no scale \"%s\"; %s", l->suite->path, wanted,
                      count ? allowed_words(wanted, names, (size_t)count, allowed) : "it declares none");
}

static status read_texts(struct loader *l) {
    const struct yaml_node *node;
    struct suite *s = l->suite;
    TRY(required(l, "name", YAML_TEXT, &node));
    TRY(take_text(node, node->text, node->place, s->name, sizeof s->name));
    node = yaml_get(l->root, "question");
    if (!node) return NULL;
    TRY(expect(node, YAML_TEXT));
    return take_text(node, node->text, node->place, s->question, sizeof s->question);
}

/* The key of the scale, where it has one, or of the suite. */
static const struct yaml_node *scaled(const struct loader *l, const char *key) {
    const struct yaml_node *node = l->scale ? yaml_get(l->scale, key) : NULL;
    return node ? node : yaml_get(l->root, key);
}

static status read_seed(const struct yaml_node *item, int64_t *seed) {
    TRY(expect(item, YAML_TEXT));
    char *end;
    errno = 0;
    long long value = strtoll(item->text, &end, 10);
    if (end == item->text || *end || errno || value < 0)
        return yaml_error(item->place, "seeds: \"%s\" is no seed; a seed is a whole number from 0", item->text);
    *seed = value;
    return NULL;
}

static status read_seeds(struct loader *l) {
    struct suite *s = l->suite;
    const struct yaml_node *node = scaled(l, "seeds");
    if (!node) return status_new(STATUS_USAGE, "%s: seeds: missing; a suite needs at least two", s->path);
    if (node->kind == YAML_MAP) return suite_read_batches(node, s);
    TRY(expect(node, YAML_LIST));
    s->seeds = calloc((size_t)node->count + 1, sizeof *s->seeds);
    if (!s->seeds) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < node->count; i++) {
        TRY(read_seed(&node->children[i], &s->seeds[i]));
        for (int k = 0; k < i; k++)
            if (s->seeds[k] == s->seeds[i])
                return yaml_error(node->children[i].place, "seeds: %lld is given twice", (long long)s->seeds[i]);
        s->seed_count++;
    }
    if (s->seed_count >= 2) return NULL;
    return yaml_error(node->place, "seeds: the test %s needs at least two seeds, found %d", test_name(s->design.test),
                      s->seed_count);
}

static status read_test(struct loader *l) {
    struct design *d = &l->suite->design;
    const struct yaml_node *test = yaml_get(l->root, "test"), *node;
    *d = (struct design){.test = TEST_PAIRED_T, .correction = CORRECT_HOLM, .alpha = 0.05, .seed = RESAMPLING_SEED};
    if ((node = scaled(l, "margin"))) TRY(take_real(node, 0, 1e12, &d->margin));
    if (!test) return NULL;
    TRY(expect(test, YAML_MAP));
    TRY(check_keys(test, test_keys, sizeof test_keys / sizeof *test_keys));
    if ((node = yaml_get(test, "alpha"))) TRY(take_real(node, 1e-9, 0.5, &d->alpha));
    if ((node = yaml_get(test, "kind"))) {
        const char *names[TEST_KINDS];
        char allowed[1024];
        for (int i = 0; i < TEST_KINDS; i++) names[i] = test_name((enum test_kind)i);
        TRY(expect(node, YAML_TEXT));
        if (!test_find(node->text, &d->test))
            return yaml_error(node->place, "kind: unknown test \"%s\"; %s", node->text,
                              allowed_words(node->text, names, TEST_KINDS, allowed));
    }
    if ((node = yaml_get(test, "correction"))) {
        const char *names[] = {correction_name(CORRECT_HOLM), correction_name(CORRECT_BH),
                               correction_name(CORRECT_NONE)};
        char allowed[1024];
        TRY(expect(node, YAML_TEXT));
        if (!correction_find(node->text, &d->correction))
            return yaml_error(node->place, "correction: unknown correction \"%s\"; %s", node->text,
                              allowed_words(node->text, names, 3, allowed));
    }
    return NULL;
}

static status read_metric(struct loader *l) {
    const struct yaml_node *node;
    const char *names[32];
    char allowed[1024];
    TRY(required(l, "metric", YAML_TEXT, &node));
    TRY(take_text(node, node->text, node->place, l->suite->metric, sizeof l->suite->metric));
    for (size_t i = 0; i < metric_row_count; i++) {
        if (strcmp(metric_rows[i].name, node->text) == 0) return NULL;
        names[i] = metric_rows[i].name;
    }
    return yaml_error(node->place, "metric: unknown metric \"%s\"; %s", node->text,
                      allowed_words(node->text, names, metric_row_count, allowed));
}

static status read_variant(struct loader *l, const struct yaml_node *node, struct suite_variant *v) {
    TRY(take_text(node, node->key, node->key_place, v->name, sizeof v->name));
    if (!(node->kind == YAML_TEXT && !*node->text)) TRY(expect(node, YAML_MAP));
    v->file = node->key_place.file;
    v->line = node->key_place.line;
    v->column = node->key_place.column;
    v->config = l->suite->config;
    TRY(apply_layer(node, &v->config));
    for (int i = 0; i < node->count; i++)
        append_option(v->overrides, sizeof v->overrides, node->children[i].key, &v->config);
    TRY(apply_settings(l->request, &v->config));
    return status_context(config_check(&v->config), "%s:%d:%d: variant %s", v->file, v->line, v->column, v->name);
}

static status read_variants(struct loader *l) {
    struct suite *s = l->suite;
    const struct yaml_node *node;
    TRY(required(l, "variants", YAML_MAP, &node));
    if (!node->count) return yaml_error(node->place, "variants: empty; a suite needs at least a baseline");
    s->variants = calloc((size_t)node->count, sizeof *s->variants);
    if (!s->variants) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < node->count; i++) TRY(read_variant(l, &node->children[i], &s->variants[s->variant_count++]));
    return NULL;
}

static status read_baseline(struct loader *l) {
    struct suite *s = l->suite;
    const struct yaml_node *node;
    TRY(required(l, "baseline", YAML_TEXT, &node));
    int found = suite_variant_find(s, node->text);
    if (found >= 0) {
        s->design.baseline = s->variants[found].name;
        return NULL;
    }
    const char **names = calloc((size_t)s->variant_count, sizeof *names);
    char allowed[1024];
    if (!names) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < s->variant_count; i++) names[i] = s->variants[i].name;
    status result = yaml_error(node->place, "baseline: no variant is called \"%s\"; %s", node->text,
                               allowed_words(node->text, names, (size_t)s->variant_count, allowed));
    free(names);
    return result;
}

/* What all variants share: the layers in their order, without the command line, which comes after each variant. */
static status read_common(struct loader *l) {
    struct suite *s = l->suite;
    const struct yaml_node *set, *scale_set;
    TRY(load_preset(l, l->root, &l->preset));
    if (l->scale) TRY(load_preset(l, l->scale, &l->scale_preset));
    TRY(option_map(l->root, &set));
    TRY(option_map(l->scale, &scale_set));
    const struct yaml_node *layers[] = {&l->preset, set, &l->scale_preset, scale_set};
    config_defaults(&s->config);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) TRY(apply_layer(layers[i], &s->config));
    return NULL;
}

static bool sets(const struct suite_request *request, const char *key) {
    size_t length = strlen(key);
    for (int i = 0; i < request->setting_count; i++)
        if (strncmp(request->settings[i], key, length) == 0 && request->settings[i][length] == '=') return true;
    return false;
}

/* After the variants, so that these are built from the common options alone. Each option once, in the order of their
 * table: the same settings in another order are the same declaration. */
static status record_settings(struct loader *l) {
    struct suite *s = l->suite;
    TRY(apply_settings(l->request, &s->config));
    for (size_t i = 0; i < option_row_count; i++)
        if (sets(l->request, option_rows[i].key))
            append_option(s->settings, sizeof s->settings, option_rows[i].key, &s->config);
    return NULL;
}

static status load(struct loader *l) {
    TRY(check_keys(l->root, suite_keys, sizeof suite_keys / sizeof *suite_keys));
    TRY(find_scale(l));
    TRY(read_texts(l));
    TRY(read_test(l));
    TRY(read_metric(l));
    TRY(read_seeds(l));
    TRY(suite_read_spending(l->suite->path, yaml_get(l->root, "looks"), l->suite));
    TRY(read_common(l));
    TRY(read_variants(l));
    TRY(read_baseline(l));
    TRY(suite_read_families(yaml_get(l->root, "families"), l->suite));
    return record_settings(l);
}

status suite_load(struct suite *suite, const struct suite_request *request) {
    struct yaml_node root;
    *suite = (struct suite){0};
    if (snprintf(suite->path, sizeof suite->path, "%s", request->path) >= (int)sizeof suite->path)
        return status_new(STATUS_USAGE, "the suite's path is too long");
    status s = suite_tree_read(suite->path, &suite->files, &root);
    struct loader l = {.request = request, .suite = suite, .root = &root};
    if (!s) s = load(&l);
    yaml_free(&root);
    yaml_free(&l.preset);
    yaml_free(&l.scale_preset);
    if (s) suite_free(suite);
    return s;
}

void suite_free(struct suite *suite) {
    free(suite->variants);
    free(suite->seeds);
    free(suite->scales);
    suite_files_free(&suite->files);
    *suite = (struct suite){0};
}

int suite_variant_find(const struct suite *suite, const char *name) {
    for (int i = 0; i < suite->variant_count; i++)
        if (strcmp(suite->variants[i].name, name) == 0) return i;
    return -1;
}
