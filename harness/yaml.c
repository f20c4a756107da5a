/* yaml: libfyaml's document turned into a plain tree with places; see yaml.h. */
#include "harness/yaml.h"

#include <dirent.h>
#include <jansson.h>
#include <libfyaml.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

status yaml_error(struct yaml_place place, const char *format, ...) {
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return status_new(STATUS_USAGE, "%s:%d:%d: %s", place.file, place.line, place.column, text);
}

const char *yaml_kind_name(enum yaml_kind kind) {
    return kind == YAML_TEXT ? "a single value" : kind == YAML_LIST ? "a list" : "a mapping";
}

struct yaml_node *yaml_get(const struct yaml_node *map, const char *key) {
    for (int i = 0; i < map->count; i++)
        if (map->children[i].key && strcmp(map->children[i].key, key) == 0) return &map->children[i];
    return NULL;
}

void yaml_free(struct yaml_node *root) {
    for (int i = 0; i < root->count; i++) yaml_free(&root->children[i]);
    free(root->children);
    free(root->key);
    free(root->text);
    *root = (struct yaml_node){0};
}

static char *copy_text(const char *text, bool *good) {
    char *copy = text ? strdup(text) : NULL;
    *good = *good && (copy || !text);
    return copy;
}

status yaml_copy(struct yaml_node *to, const struct yaml_node *from) {
    bool good = true;
    *to = *from;
    to->key = copy_text(from->key, &good);
    to->text = copy_text(from->text, &good);
    to->children = calloc((size_t)from->count + 1, sizeof *to->children);
    to->count = 0;
    status s = good && to->children ? NULL : status_new(STATUS_SYSTEM, "%s: out of memory", from->place.file);
    for (int i = 0; i < from->count && !s; i++) s = yaml_copy(&to->children[to->count++], &from->children[i]);
    if (s) yaml_free(to);
    return s;
}

status yaml_append(struct yaml_node *map, struct yaml_node child) {
    struct yaml_node *grown = realloc(map->children, ((size_t)map->count + 1) * sizeof *grown);
    if (!grown) {
        yaml_free(&child);
        return status_new(STATUS_SYSTEM, "%s: out of memory", map->place.file);
    }
    map->children = grown;
    map->children[map->count++] = child;
    return NULL;
}

static struct yaml_place token_place(struct fy_token *token, struct yaml_place fallback) {
    const struct fy_mark *mark = token ? fy_token_start_mark(token) : NULL;
    return mark ? (struct yaml_place){fallback.file, mark->line + 1, mark->column + 1} : fallback;
}

/* The first token below a node: a block mapping has no token of its own. */
static struct yaml_place node_place(struct fy_node *node, struct yaml_place fallback) {
    void *position = NULL;
    if (fy_node_is_scalar(node)) return token_place(fy_node_get_scalar_token(node), fallback);
    if (fy_node_is_sequence(node)) {
        struct fy_node *first = fy_node_sequence_iterate(node, &position);
        return first ? node_place(first, fallback) : fallback;
    }
    struct fy_node_pair *pair = fy_node_mapping_iterate(node, &position);
    return pair && fy_node_pair_key(pair) ? node_place(fy_node_pair_key(pair), fallback) : fallback;
}

static status scalar_copy(struct yaml_place place, struct fy_node *node, char **out) {
    size_t length = 0;
    const char *text = fy_node_get_scalar(node, &length);
    if (text && memchr(text, 0, length)) return yaml_error(place, "a NUL character stands in a value");
    *out = strndup(text ? text : "", length);
    return *out ? NULL : status_new(STATUS_SYSTEM, "%s: out of memory", place.file);
}

static status convert(struct fy_node *from, struct yaml_place near, int depth, struct yaml_node *to);

static status convert_pair(struct fy_node_pair *pair, struct yaml_place near, int depth, struct yaml_node *map) {
    struct fy_node *key = fy_node_pair_key(pair), *value = fy_node_pair_value(pair);
    if (!key || !fy_node_is_scalar(key) || fy_node_is_alias(key)) return yaml_error(near, "a key must be plain text");
    struct yaml_place place = node_place(key, near);
    char *text;
    TRY(scalar_copy(place, key, &text));
    const struct yaml_node *before = yaml_get(map, text);
    if (before) {
        status s = yaml_error(place, "%s: given twice; the first stands on line %d", text, before->key_place.line);
        free(text);
        return s;
    }
    struct yaml_node *node = &map->children[map->count++];
    *node = (struct yaml_node){.key = text, .key_place = place, .place = place};
    return convert(value, place, depth, node);
}

static status convert_map(struct fy_node *from, struct yaml_place near, int depth, struct yaml_node *to) {
    int count = fy_node_mapping_item_count(from);
    to->kind = YAML_MAP;
    to->children = calloc((size_t)count + 1, sizeof *to->children);
    if (!to->children) return status_new(STATUS_SYSTEM, "%s: out of memory", near.file);
    void *position = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(from, &position));)
        TRY(convert_pair(pair, near, depth, to));
    return NULL;
}

static status convert_list(struct fy_node *from, struct yaml_place near, int depth, struct yaml_node *to) {
    int count = fy_node_sequence_item_count(from);
    to->kind = YAML_LIST;
    to->children = calloc((size_t)count + 1, sizeof *to->children);
    if (!to->children) return status_new(STATUS_SYSTEM, "%s: out of memory", near.file);
    void *position = NULL;
    for (struct fy_node *item; (item = fy_node_sequence_iterate(from, &position));)
        TRY(convert(item, near, depth, &to->children[to->count++]));
    return NULL;
}

static status convert(struct fy_node *from, struct yaml_place near, int depth, struct yaml_node *to) {
    to->place = from ? node_place(from, near) : near;
    if (depth >= YAML_DEPTH) return yaml_error(to->place, "nested more than %d deep", YAML_DEPTH);
    if (!from) return (to->text = strdup("")) ? NULL : status_new(STATUS_SYSTEM, "%s: out of memory", near.file);
    if (fy_node_is_alias(from) || fy_node_get_anchor(from))
        return yaml_error(to->place, "anchors and aliases are not understood; write the value out");
    if (fy_node_is_scalar(from)) return scalar_copy(to->place, from, &to->text);
    if (fy_node_is_sequence(from)) return convert_list(from, near, depth + 1, to);
    return convert_map(from, near, depth + 1, to);
}

/* The parser's own first complaint, as one line. */
static status syntax_error(const char *path, struct fy_diag *diag) {
    void *position = NULL;
    struct fy_diag_error *error = fy_diag_errors_iterate(diag, &position);
    if (!error) return status_new(STATUS_USAGE, "%s: not readable as YAML", path);
    return yaml_error(
        (struct yaml_place){path, error->line > 0 ? error->line : 1, error->column > 0 ? error->column : 1},
        "not valid YAML: %s", error->msg);
}

static status parse(const char *path, const char *text, size_t size, struct fy_diag *diag, struct yaml_node *root) {
    struct fy_parse_cfg settings = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_ALLOW_DUPLICATE_KEYS,
                                    .diag = diag};
    struct fy_parser *parser = fy_parser_create(&settings);
    if (!parser) return status_new(STATUS_SYSTEM, "%s: out of memory", path);
    struct fy_document *document = NULL, *second = NULL;
    status s = NULL;
    if (fy_parser_set_string(parser, text, size) == 0) document = fy_parse_load_document(parser);
    if (document) second = fy_parse_load_document(parser);
    if (!document && !fy_diag_got_error(diag))
        s = status_new(STATUS_USAGE, "%s: no YAML text in it; is it empty, or not UTF-8?", path);
    else if (fy_diag_got_error(diag))
        s = syntax_error(path, diag);
    else if (second)
        s = status_new(STATUS_USAGE, "%s: holds several YAML documents; one is expected", path);
    else
        s = convert(fy_document_root(document), (struct yaml_place){path, 1, 1}, 0, root);
    if (second) fy_parse_document_destroy(parser, second);
    if (document) fy_parse_document_destroy(parser, document);
    fy_parser_destroy(parser);
    return s;
}

static status read_bounded(const char *path, unsigned char **text, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) return status_errno("%s", path);
    *text = malloc(YAML_BYTES + 1);
    *size = *text ? fread(*text, 1, YAML_BYTES + 1, file) : 0;
    bool failed = ferror(file);
    fclose(file);
    if (!*text) return status_new(STATUS_SYSTEM, "%s: out of memory", path);
    if (!failed && *size <= YAML_BYTES) return NULL;
    free(*text);
    return failed ? status_errno("%s", path)
                  : status_new(STATUS_USAGE, "%s: larger than %d bytes, which is no suite", path, YAML_BYTES);
}

/* libfyaml never ends on some directives that are not UTF-8; whether a line is, jansson knows. */
static status check_characters(const char *path, const char *text, size_t size) {
    const char *end = text + size;
    for (int line = 1; text < end; line++) {
        const char *next = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((next ? next : end) - text);
        json_t *valid = json_stringn(text, length);
        if (!valid || memchr(text, 0, length)) {
            json_decref(valid);
            return yaml_error((struct yaml_place){path, line, 1}, "not UTF-8 text; save the file in that encoding");
        }
        json_decref(valid);
        text += length + 1;
    }
    return NULL;
}

status yaml_read(struct yaml_node *root, const char *path) {
    *root = (struct yaml_node){0};
    unsigned char *text = NULL;
    size_t size = 0;
    TRY(read_bounded(path, &text, &size));
    struct fy_diag_cfg settings;
    fy_diag_cfg_default(&settings);
    struct fy_diag *diag = fy_diag_create(&settings);
    status s = diag ? check_characters(path, (char *)text, size) : status_new(STATUS_SYSTEM, "%s: out of memory", path);
    if (diag) fy_diag_set_collect_errors(diag, true);
    if (!s) s = parse(path, (char *)text, size, diag, root);
    if (diag) fy_diag_destroy(diag);
    free(text);
    if (s) yaml_free(root);
    return s;
}

/* --- folders of files --------------------------------------------------------------------------------------------- */

static int is_yaml(const struct dirent *entry) {
    size_t length = strlen(entry->d_name), ending = strlen(".yaml");
    return length > ending && strcmp(entry->d_name + length - ending, ".yaml") == 0;
}

size_t yaml_names(const char *folder, char ***names) {
    struct dirent **entries;
    int count = scandir(folder, &entries, is_yaml, alphasort);
    *names = count > 0 ? calloc((size_t)count, sizeof **names) : NULL;
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        char *name = strndup(entries[i]->d_name, strlen(entries[i]->d_name) - strlen(".yaml"));
        if (*names && name)
            (*names)[used++] = name;
        else
            free(name);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    return used;
}

void names_free(char **names, size_t count) {
    for (size_t i = 0; i < count; i++) free(names[i]);
    free(names);
}
