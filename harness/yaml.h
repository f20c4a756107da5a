/* yaml: a YAML file as a plain tree in which every key and value knows its line and column.
 *
 * Read through libfyaml. Duplicate keys, anchors, aliases, tags of other types, several documents in one file, NUL
 * characters and nesting deeper than YAML_DEPTH are refused. */
#pragma once
#include <stddef.h>

#include "kernels/status.h"

enum { YAML_DEPTH = 8, YAML_BYTES = 1 << 20 };

enum yaml_kind { YAML_TEXT, YAML_LIST, YAML_MAP };

struct yaml_place {
    const char *file; /* the path that yaml_read was given; it must outlive the tree */
    int line, column; /* from 1 */
};

struct yaml_node {
    enum yaml_kind kind;
    char *key; /* in a mapping; NULL elsewhere */
    struct yaml_place key_place, place;
    char *text; /* of YAML_TEXT; "" for an empty value */
    int count;
    struct yaml_node *children; /* in the order of the file */
};

/* STATUS_USAGE "FILE:LINE:COLUMN: ...". The root of an empty file is refused. */
status yaml_read(struct yaml_node *root, const char *path);
void yaml_free(struct yaml_node *root);

/* A deep copy; and one as the last child of a mapping, which takes it over in success and in failure. */
status yaml_copy(struct yaml_node *to, const struct yaml_node *from);
status yaml_append(struct yaml_node *map, struct yaml_node child);

struct yaml_node *yaml_get(const struct yaml_node *map, const char *key); /* NULL when absent */
const char *yaml_kind_name(enum yaml_kind kind);                          /* "text", "a list", "a mapping" */

/* A STATUS_USAGE message that begins with the place. */
__attribute__((format(printf, 2, 3))) status yaml_error(struct yaml_place place, const char *format, ...);

/* Names of the *.yaml files of a folder, without the ending, sorted. Caller frees with names_free. A folder that cannot
 * be read has none. */
size_t yaml_names(const char *folder, char ***names);
void names_free(char **names, size_t count);
