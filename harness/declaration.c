/* declaration: canonical texts of a suite's decisions, and what differs between two of them; see declaration.h. */
#include "harness/declaration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- head --------------------------------------------------------------------------------------------------------- */

static void print_real(FILE *out, const char *name, double value) {
    char text[32];
    fprintf(out, "%s: %s\n", name, shortest_real(value, text));
}

static void print_design(FILE *out, const struct suite *suite) {
    fprintf(out, "suite: %s\nscale: %s\nbaseline: %s\nmetric: %s\n", suite->name, *suite->scale ? suite->scale : "-",
            suite->design.baseline, suite->metric);
    print_real(out, "margin", suite->design.margin);
    fprintf(out, "test: %s\n", test_name(suite->design.test));
    print_real(out, "alpha", suite->design.alpha);
    fprintf(out, "correction: %s\ncommand line: %s\n", correction_name(suite->design.correction),
            *suite->settings ? suite->settings : "-");
    if (!suite->looks.count) return;
    fprintf(out, "looks: %s", spending_name(suite->looks.spending));
    for (int k = 0; k < suite->looks.count; k++) fprintf(out, " %zu", suite->looks.n[k]);
    fprintf(out, "\n");
}

static bool declared(const struct option_row *row, const struct config *config) {
    return row->stage != STAGE_NONE && (config->run_backend == BACKEND_SIMULATED || !option_of_source(row));
}

static void print_common(FILE *out, const struct suite *suite) {
    char value[512];
    fprintf(out, "options:\n");
    for (size_t i = 0; i < option_row_count; i++)
        if (declared(&option_rows[i], &suite->config))
            fprintf(out, "  %s: %s\n", option_rows[i].key, option_text(&option_rows[i], &suite->config, value));
}

static void print_head(FILE *out, const struct plan *plan, const struct dataset_list *datasets) {
    print_design(out, plan->suite);
    fprintf(out, "numerics: %d\nbackend: %s %s\n", NUMERICS_REVISION, plan->ops->name,
            sizeof(real) == 4 ? "float32" : "float64");
    for (int i = 0; i < datasets->count; i++)
        fprintf(out, "dataset: %s %s\n", datasets->rows[i].name, datasets->rows[i].sha256);
    print_common(out, plan->suite);
}

/* --- variants ----------------------------------------------------------------------------------------------------- */

static void print_variant(FILE *out, const struct suite *suite, const struct suite_variant *variant) {
    char value[512], common[512];
    fprintf(out, "variant: %s\n", variant->name);
    if (*variant->family) fprintf(out, "  family: %s\n", variant->family);
    for (size_t i = 0; i < option_row_count; i++) {
        const struct option_row *row = &option_rows[i];
        option_text(row, &variant->config, value);
        option_text(row, &suite->config, common);
        if (declared(row, &variant->config) && strcmp(value, common) != 0) fprintf(out, "  %s: %s\n", row->key, value);
    }
}

/* --- texts -------------------------------------------------------------------------------------------------------- */

static char *finish(FILE *out, char **text) {
    if (fclose(out) == 0) return *text;
    free(*text);
    return NULL;
}

char *declaration_head(const struct plan *plan, const struct dataset_list *datasets) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    print_head(out, plan, datasets);
    return finish(out, &text);
}

char *declaration_variant(const struct suite *suite, int variant) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    print_variant(out, suite, &suite->variants[variant]);
    return finish(out, &text);
}

char *plan_declaration(const struct plan *plan, const struct dataset_list *datasets) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    print_head(out, plan, datasets);
    fprintf(out, "seeds:");
    for (int i = 0; i < plan->suite->seed_count; i++) fprintf(out, " %lld", (long long)plan->suite->seeds[i]);
    fprintf(out, "\n");
    for (int i = 0; i < plan->suite->variant_count; i++) print_variant(out, plan->suite, &plan->suite->variants[i]);
    return finish(out, &text);
}

/* --- families ----------------------------------------------------------------------------------------------------- */

void declaration_family(const char *block, char *out, size_t size) {
    static const char key[] = "\n  family: ";
    const char *line = strstr(block, key);
    *out = 0;
    if (line) snprintf(out, size, "%.*s", (int)strcspn(line + strlen(key), "\n"), line + strlen(key));
}

/* --- differences -------------------------------------------------------------------------------------------------- */

struct line {
    const char *key, *value;
    int key_length, value_length;
};

/* "  key: value" -> its parts; false at the end of the text. */
static bool next_line(const char **text, struct line *line) {
    if (!**text) return false;
    const char *start = *text + strspn(*text, " "), *end = strchrnul(start, '\n');
    const char *colon = memchr(start, ':', (size_t)(end - start));
    if (!colon) colon = end;
    const char *value = colon < end ? colon + 1 + (colon[1] == ' ') : end;
    *line = (struct line){start, value, (int)(colon - start), (int)(end - value)};
    *text = *end ? end + 1 : end;
    return true;
}

/* The value of a key in a text. */
static bool find_line(const char *text, const struct line *wanted, struct line *found) {
    while (next_line(&text, found))
        if (found->key_length == wanted->key_length &&
            strncmp(found->key, wanted->key, (size_t)wanted->key_length) == 0)
            return true;
    return false;
}

static bool same_value(const struct line *a, const struct line *b) {
    return a->value_length == b->value_length && strncmp(a->value, b->value, (size_t)a->value_length) == 0;
}

void declaration_difference(const char *before, const char *after, char *out, size_t size) {
    struct line old, new;
    *out = 0;
    for (const char *rest = before; next_line(&rest, &old);) {
        bool found = find_line(after, &old, &new);
        if (found && same_value(&old, &new)) continue;
        if (found)
            snprintf(out, size, "%.*s was %.*s and is %.*s", old.key_length, old.key, old.value_length, old.value,
                     new.value_length, new.value);
        else
            snprintf(out, size, "%.*s was %.*s and is no longer set", old.key_length, old.key, old.value_length,
                     old.value);
        return;
    }
    for (const char *rest = after; next_line(&rest, &new);) {
        if (find_line(before, &new, &old)) continue;
        snprintf(out, size, "%.*s is %.*s and was not set", new.key_length, new.key, new.value_length, new.value);
        return;
    }
}
