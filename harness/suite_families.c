/* suite_families: families of comparisons; see suite_families.h. */
#include "harness/suite_families.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli.h"

static status check_name(const struct yaml_node *family) {
    if (strlen(family->key) >= FAMILY_CAPACITY)
        return yaml_error(family->key_place, "families: a name is longer than %d bytes", FAMILY_CAPACITY - 1);
    if (has_control(family->key)) return yaml_error(family->key_place, "families: a name holds a control character");
    if (!*family->key) return yaml_error(family->key_place, "families: a family needs a name");
    if (family->kind == YAML_LIST) return NULL;
    return yaml_error(family->place, "families: %s: expected a list of variants", family->key);
}

static status find_member(const struct yaml_node *item, const struct suite *suite, int *variant) {
    char allowed[1024];
    const char *name = item->kind == YAML_TEXT ? item->text : "";
    *variant = suite_variant_find(suite, name);
    if (*variant >= 0) return NULL;
    const char **names = calloc((size_t)suite->variant_count, sizeof *names);
    if (!names) return status_new(STATUS_SYSTEM, "out of memory");
    for (int i = 0; i < suite->variant_count; i++) names[i] = suite->variants[i].name;
    status unknown = yaml_error(item->place, "families: no variant is called \"%s\"; %s", name,
                                allowed_words(name, names, (size_t)suite->variant_count, allowed));
    free(names);
    return unknown;
}

static status add_member(const struct yaml_node *item, const char *family, struct suite *suite) {
    int variant;
    TRY(find_member(item, suite, &variant));
    struct suite_variant *v = &suite->variants[variant];
    if (strcmp(v->name, suite->design.baseline) == 0)
        return yaml_error(item->place, "families: %s is the baseline, which is in no family", v->name);
    if (*v->family) return yaml_error(item->place, "families: %s is in %s already", v->name, v->family);
    snprintf(v->family, sizeof v->family, "%s", family);
    return NULL;
}

static status check_complete(const struct yaml_node *families, const struct suite *suite) {
    for (int i = 0; i < suite->variant_count; i++) {
        const struct suite_variant *v = &suite->variants[i];
        if (!*v->family && strcmp(v->name, suite->design.baseline) != 0)
            return yaml_error(families->place, "families: %s is in none; every variant but the baseline must be in one",
                              v->name);
    }
    return NULL;
}

status suite_read_families(const struct yaml_node *families, struct suite *suite) {
    if (!families) return NULL;
    if (families->kind != YAML_MAP)
        return yaml_error(families->place, "families: expected names with lists of variants, as {size: [int4, int8]}");
    for (int f = 0; f < families->count; f++) {
        const struct yaml_node *family = &families->children[f];
        TRY(check_name(family));
        for (int i = 0; i < family->count; i++) TRY(add_member(&family->children[i], family->key, suite));
    }
    return check_complete(families, suite);
}

int suite_largest_family(const struct suite *suite) {
    int largest = 0;
    for (int i = 0; i < suite->variant_count; i++) {
        int size = 0;
        for (int k = 0; k < suite->variant_count; k++)
            size += strcmp(suite->variants[k].family, suite->variants[i].family) == 0 &&
                    strcmp(suite->variants[k].name, suite->design.baseline) != 0;
        if (strcmp(suite->variants[i].name, suite->design.baseline) != 0 && size > largest) largest = size;
    }
    return largest;
}
