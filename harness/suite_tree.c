/* suite_tree: includes laid below the file that names them, and a matrix crossed into variants; see suite_tree.h. */
#include "harness/suite_tree.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli.h"

enum { MOST_AXES = 8, MOST_CROSSED = 1000 };

/* A file that is being read, and those that include it. */
struct chain {
    char real[PATH_MAX];
    const char *path;
    const struct chain *above;
};

static status expect_map(const struct yaml_node *node, const char *what) {
    if (node->kind == YAML_MAP) return NULL;
    return yaml_error(node->place, "%s: expected a mapping, found %s", what, yaml_kind_name(node->kind));
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static status keep_path(struct suite_files *files, const char *path, const char **kept) {
    char **grown = realloc(files->paths, (files->count + 1) * sizeof *grown), *copy = strdup(path);
    if (grown) files->paths = grown;
    if (!grown || !copy) {
        free(copy);
        return status_new(STATUS_SYSTEM, "out of memory");
    }
    *kept = files->paths[files->count++] = copy;
    return NULL;
}

void suite_files_free(struct suite_files *files) {
    for (size_t i = 0; i < files->count; i++) free(files->paths[i]);
    free(files->paths);
    *files = (struct suite_files){0};
}

/* --- include ------------------------------------------------------------------------------------------------------ */

/* Takes the entry out of the mapping that it stands in. */
static struct yaml_node take_out(struct yaml_node *map, struct yaml_node *entry) {
    struct yaml_node taken = *entry;
    int after = map->count - (int)(entry - map->children) - 1;
    memmove(entry, entry + 1, (size_t)after * sizeof *entry);
    map->count--;
    return taken;
}

/* Lays `over` on `base`: the order is that of base, then what is new. Takes `over` apart, in failure too. */
static status lay_over(struct yaml_node *base, struct yaml_node *over) {
    status s = NULL;
    for (int i = 0; i < over->count && !s; i++) {
        struct yaml_node *new = &over->children[i], *old = yaml_get(base, new->key);
        if (old && old->kind == YAML_MAP && new->kind == YAML_MAP) {
            s = lay_over(old, new);
            old->place = new->place;
            continue;
        }
        struct yaml_node moved = *new;
        *new = (struct yaml_node){0};
        if (!old) {
            s = yaml_append(base, moved);
            continue;
        }
        yaml_free(old);
        *old = moved;
    }
    yaml_free(over);
    return s;
}

/* A preset's keys are options, which have a dot; a suite's have none. */
static bool is_preset(const struct yaml_node *root) {
    for (int i = 0; i < root->count; i++)
        if (strcmp(root->children[i].key, "include") != 0) return strchr(root->children[i].key, '.') != NULL;
    return false;
}

/* {a.b: 1} -> {set: {a.b: 1}} */
static status wrap_preset(struct yaml_node *root) {
    struct yaml_node set = *root;
    *root = (struct yaml_node){.kind = YAML_MAP, .place = set.place};
    set.key = strdup("set");
    set.key_place = set.place;
    if (set.key) return yaml_append(root, set);
    yaml_free(&set);
    return status_new(STATUS_SYSTEM, "out of memory");
}

/* The files of the folder of a path. */
static size_t names_beside(const char *path, char ***names) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return yaml_names(folder, names);
}

static status unknown_file(const struct yaml_node *node, const char *what, const char *name, const char *beside,
                           const char *shared) {
    char allowed[1024], **names;
    const char *word = strrchr(name, '/');
    size_t count = names_beside(beside, &names);
    if (!count) {
        names_free(names, count);
        count = names_beside(shared, &names);
    }
    status s = yaml_error(node->place, "%s: there is no %s, nor %s; %s", what, beside, shared,
                          allowed_words(word ? word + 1 : name, (const char *const *)names, count, allowed));
    names_free(names, count);
    return s;
}

status suite_file_find(const struct yaml_node *node, const char *what, const char *file, const char *name,
                       char path[4096]) {
    char shared[4096];
    const char *slash = strrchr(file, '/');
    if (snprintf(path, 4096, "%.*s%s.yaml", slash ? (int)(slash - file + 1) : 0, file, name) >= 4096 ||
        snprintf(shared, sizeof shared, SUITES_FOLDER "/%s.yaml", name) >= 4096)
        return yaml_error(node->place, "%s: the path is too long", what);
    if (access(path, F_OK) == 0 || errno != ENOENT) return NULL;
    if (access(shared, F_OK) != 0) return unknown_file(node, what, name, path, shared);
    memcpy(path, shared, strlen(shared) + 1);
    return NULL;
}

/* NAME of `include: NAME` -> NAME.yaml. */
static status included_path(const struct yaml_node *node, char path[4096]) {
    if (node->kind != YAML_TEXT || !*node->text || *node->text == '/')
        return yaml_error(node->place, "include: a file's name without .yaml, relative to this one, or a list of them");
    return suite_file_find(node, "include", node->place.file, node->text, path);
}

static status check_cycle(const struct yaml_node *node, const struct chain *above, struct chain *link) {
    if (!realpath(link->path, link->real)) return status_errno("%s", link->path);
    for (const struct chain *file = above; file; file = file->above)
        if (strcmp(file->real, link->real) == 0)
            return yaml_error(node->place, "include: %s includes itself through this line", file->path);
    return NULL;
}

static status read_tree(const struct chain *link, struct suite_files *files, bool preset, struct yaml_node *root);

static status lay_included(const struct yaml_node *node, const struct chain *above, struct suite_files *files,
                           bool preset, struct yaml_node *base) {
    char path[4096];
    struct chain link = {.above = above};
    struct yaml_node below;
    TRY(included_path(node, path));
    TRY(keep_path(files, path, &link.path));
    TRY(check_cycle(node, above, &link));
    TRY(read_tree(&link, files, preset, &below));
    return lay_over(base, &below);
}

static status lay_all_included(const struct yaml_node *include, const struct chain *link, struct suite_files *files,
                               bool preset, struct yaml_node *base) {
    if (include->kind != YAML_LIST) return lay_included(include, link, files, preset, base);
    for (int i = 0; i < include->count; i++) TRY(lay_included(&include->children[i], link, files, preset, base));
    return NULL;
}

static status resolve_includes(const struct chain *link, struct suite_files *files, bool preset,
                               struct yaml_node *root) {
    struct yaml_node *entry = yaml_get(root, "include");
    if (!entry) return NULL;
    struct yaml_node include = take_out(root, entry), base = {.kind = YAML_MAP, .place = root->place};
    status s = lay_all_included(&include, link, files, preset, &base);
    if (!s) s = lay_over(&base, root);
    yaml_free(&include);
    yaml_free(root);
    *root = base;
    return s;
}

/* preset: whether options alone are wanted, or a suite, into whose `set` a preset's options go. */
static status read_tree(const struct chain *link, struct suite_files *files, bool preset, struct yaml_node *root) {
    TRY(yaml_read(root, link->path));
    status s = expect_map(root, "the file");
    bool flat = !s && is_preset(root);
    if (!s && preset && !flat && root->count && !yaml_get(root, "include"))
        s = yaml_error(root->place, "%s: unknown option; a preset holds options alone, as in \"model.dim: 64\"",
                       root->children[0].key);
    if (!s) s = resolve_includes(link, files, preset || flat, root);
    if (!s && flat && !preset) s = wrap_preset(root);
    if (s) yaml_free(root);
    return s;
}

static status read_from(const char *path, struct suite_files *files, bool preset, struct yaml_node *root) {
    struct chain link = {0};
    *root = (struct yaml_node){0};
    TRY(keep_path(files, path, &link.path));
    if (!realpath(path, link.real)) return status_errno("%s", path);
    return read_tree(&link, files, preset, root);
}

status suite_tree_preset(const char *path, struct suite_files *files, struct yaml_node *root) {
    return read_from(path, files, true, root);
}

/* --- matrix ------------------------------------------------------------------------------------------------------- */

/* "quant.bits", 4 -> "bits4"; "quant.method", gptq -> "gptq". */
static void value_name(const char *key, const char *value, char name[NAME_CAPACITY]) {
    const char *dot = strrchr(key, '.');
    char *end;
    strtod(value, &end);
    bool number = *value && !*end;
    snprintf(name, NAME_CAPACITY, "%s%s", number ? (dot ? dot + 1 : key) : "", value);
}

static status check_axis(const struct yaml_node *axis) {
    if (axis->kind == YAML_TEXT || !axis->count)
        return yaml_error(axis->key_place, "%s: an axis is a list of an option's values, or a mapping of named sets",
                          axis->key);
    for (int i = 0; i < axis->count; i++) {
        const struct yaml_node *point = &axis->children[i];
        if (axis->kind == YAML_MAP && !(point->kind == YAML_TEXT && !*point->text)) TRY(expect_map(point, point->key));
        if (axis->kind == YAML_LIST && point->kind != YAML_TEXT)
            return yaml_error(point->place, "%s: expected single values", axis->key);
        for (int before = 0; axis->kind == YAML_LIST && before < i; before++)
            if (strcmp(point->text, axis->children[before].text) == 0)
                return yaml_error(point->place, "%s: %s stands twice", axis->key, point->text);
    }
    return NULL;
}

static status add_option(struct yaml_node *variant, const struct yaml_node *option) {
    struct yaml_node copy;
    if (yaml_get(variant, option->key))
        return yaml_error(option->key_place, "%s: two axes of the matrix set it", option->key);
    TRY(yaml_copy(&copy, option));
    return yaml_append(variant, copy);
}

/* The options of one point of an axis go into a variant, its name behind the variant's. */
static status add_point(const struct yaml_node *axis, const struct yaml_node *point, struct yaml_node *variant,
                        char name[NAME_CAPACITY]) {
    char own[NAME_CAPACITY];
    if (axis->kind == YAML_LIST)
        value_name(axis->key, point->text, own);
    else
        snprintf(own, sizeof own, "%s", point->key);
    size_t used = strlen(name);
    if ((size_t)snprintf(name + used, NAME_CAPACITY - used, "%s%s", used ? "-" : "", own) >= NAME_CAPACITY - used)
        return yaml_error(point->place, "matrix: a variant's name becomes too long");
    if (axis->kind == YAML_LIST) {
        struct yaml_node option = *point;
        option.key = axis->key;
        option.key_place = axis->key_place;
        return add_option(variant, &option);
    }
    for (int i = 0; i < point->count; i++) TRY(add_option(variant, &point->children[i]));
    return NULL;
}

/* The crossed variant of an index, the last axis fastest. */
static status cross(const struct yaml_node *matrix, int index, struct yaml_node *variant, char name[NAME_CAPACITY]) {
    int points = 1;
    for (int a = 0; a < matrix->count; a++) points *= matrix->children[a].count;
    for (int a = 0; a < matrix->count; a++) {
        const struct yaml_node *axis = &matrix->children[a];
        points /= axis->count;
        TRY(add_point(axis, &axis->children[index / points % axis->count], variant, name));
    }
    variant->key = strdup(name);
    return variant->key ? NULL : status_new(STATUS_SYSTEM, "out of memory");
}

static status add_crossed(const struct yaml_node *matrix, int index, struct yaml_node *variants) {
    struct yaml_place place = matrix->key_place;
    struct yaml_node variant = {.kind = YAML_MAP, .key_place = place, .place = place};
    char name[NAME_CAPACITY] = "";
    status s = cross(matrix, index, &variant, name);
    const struct yaml_node *before = s ? NULL : yaml_get(variants, name);
    if (before)
        s = yaml_error(place, "%s: the matrix makes it, but it is given on line %d", name, before->key_place.line);
    if (!s) return yaml_append(variants, variant);
    yaml_free(&variant);
    return s;
}

/* The mapping of variants, made when it is missing: a matrix alone is a suite, too. */
static status find_variants(struct yaml_node *root, struct yaml_place place, struct yaml_node **variants) {
    if (!yaml_get(root, "variants")) {
        struct yaml_node made = {.kind = YAML_MAP, .key = strdup("variants"), .key_place = place, .place = place};
        if (!made.key) return status_new(STATUS_SYSTEM, "out of memory");
        TRY(yaml_append(root, made));
    }
    *variants = yaml_get(root, "variants");
    return expect_map(*variants, "variants");
}

static status cross_matrix(const struct yaml_node *matrix, struct yaml_node *root) {
    struct yaml_node *variants = NULL;
    int count = 1;
    TRY(expect_map(matrix, "matrix"));
    if (!matrix->count || matrix->count > MOST_AXES)
        return yaml_error(matrix->place, "matrix: %d axes; allowed: 1 to %d", matrix->count, MOST_AXES);
    for (int a = 0; a < matrix->count; a++) {
        TRY(check_axis(&matrix->children[a]));
        if (matrix->children[a].count > MOST_CROSSED / count)
            return yaml_error(matrix->place, "matrix: more than %d variants", MOST_CROSSED);
        count *= matrix->children[a].count;
    }
    TRY(find_variants(root, matrix->key_place, &variants));
    for (int i = 0; i < count; i++) TRY(add_crossed(matrix, i, variants));
    return NULL;
}

status suite_tree_read(const char *path, struct suite_files *files, struct yaml_node *root) {
    TRY(read_from(path, files, false, root));
    struct yaml_node *entry = yaml_get(root, "matrix");
    if (!entry) return NULL;
    struct yaml_node matrix = take_out(root, entry);
    status s = cross_matrix(&matrix, root);
    yaml_free(&matrix);
    return s;
}
