/* options: the rows of options.def as a table, text to values and back, and the checks between options. */
#include "model/options.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INITIAL_INT(value) #value
#define INITIAL_REAL(value) #value
#define INITIAL_FLAG(value) INITIAL_FLAG_##value
#define INITIAL_FLAG_0 "off"
#define INITIAL_FLAG_1 "on"

const struct option_row option_rows[] = {
#define OPTION(type, field, key, initial, low, high, stage, help, source)                                          \
    {key,  OPTION_##type, offsetof(struct config, field), INITIAL_##type(initial), low, high, NULL, STAGE_##stage, \
     help, source},
#define CHOICE(field, key, initial, choices, stage, help, source) \
    {key, OPTION_CHOICE, offsetof(struct config, field), initial, 0, 0, choices, STAGE_##stage, help, source},
#define TEXT(field, key, initial, stage, help, source) \
    {key, OPTION_TEXT, offsetof(struct config, field), initial, 0, 0, NULL, STAGE_##stage, help, source},
#define LIST(field, key, initial, low, high, stage, help, source) \
    {key, OPTION_LIST, offsetof(struct config, field), initial, low, high, NULL, STAGE_##stage, help, source},
#include "model/options.def"
#undef OPTION
#undef CHOICE
#undef TEXT
#undef LIST
};
const size_t option_row_count = sizeof option_rows / sizeof *option_rows;

/* Each row sets every option that tells strategies apart, so that the order of strategies set before leaves no trace.
 */
#define PLAIN                                                                                        \
    "quant.bits_mamba=0 quant.bits_attention=0 quant.bits_mlp=0 quant.group=0 quant.group_rows=all " \
    "quant.clip=max quant.scale_floor=none quant.protect=none quant.embedding=fp16 quant.calibration=self "
#define DSQ PLAIN "quant.method=gptq quant.bits=6 quant.protect=control"
const struct strategy_row strategy_rows[] = {
    {"fp16", "no quantisation: the reference for the gap", PLAIN "quant.method=none quant.bits=6"},
    {"int8-rowwise", "8 bits, one scale a row: the baseline of openai/parameter-golf",
     PLAIN "quant.method=rowwise quant.bits=8"},
    {"int6-rowwise", "6 bits, one scale a row, with a search for the clip",
     PLAIN "quant.method=rowwise quant.bits=6 quant.clip=search"},
    {"int6-gptq", "6 bits by GPTQ with the full Hessian, calibrated on the model's own samples",
     PLAIN "quant.method=gptq quant.bits=6"},
    {"int6-gptq-floored", "int6-gptq with the published floor under every scale",
     PLAIN "quant.method=gptq quant.bits=6 quant.scale_floor=published"},
    {"dsq-a", "int6-gptq with the control tensors in fp16", DSQ},
    {"dsq-b", "dsq-a with 5 bits for the MLPs", DSQ " quant.bits_mlp=5"},
    {"dsq-c", "dsq-b with a scale for every 64 columns of in_proj's B and C rows",
     DSQ " quant.bits_mlp=5 quant.group=64 quant.group_rows=bc"},
    {"ternary", "five trits a byte, for models trained with model.linear = ternary",
     PLAIN "quant.method=ternary quant.bits=6"},
};
const size_t strategy_row_count = sizeof strategy_rows / sizeof *strategy_rows;

const char *stage_name(enum stage_kind kind) {
    static const char *const names[STAGE_KINDS] = {"none", "train", "average", "quantise", "evaluate"};
    return names[kind];
}

/* --- finding a row ---------------------------------------------------------------------------------------------- */

const struct option_row *option_find(const char *key) {
    for (size_t i = 0; i < option_row_count; i++)
        if (strcmp(option_rows[i].key, key) == 0) return &option_rows[i];
    return NULL;
}

bool option_of_source(const struct option_row *row) {
    return strncmp(row->key, "run.", 4) == 0 || strncmp(row->key, "simulated.", 10) == 0;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

size_t edit_distance(const char *a, const char *b) {
    enum { LONGEST = 128 };
    size_t rows = strnlen(a, LONGEST), cols = strnlen(b, LONGEST);
    size_t table[3][LONGEST + 1]; /* the last three rows of the matrix, by i mod 3 */
    for (size_t j = 0; j <= cols; j++) table[0][j] = j;
    for (size_t i = 1; i <= rows; i++) {
        size_t *now = table[i % 3], *before = table[(i + 2) % 3], *earlier = table[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= cols; j++) {
            now[j] = least(least(before[j], now[j - 1]) + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], earlier[j - 2] + 1);
        }
    }
    return table[rows % 3][cols];
}

/* A key without its group ("steps") is compared with the part behind the dot too. */
static size_t key_distance(const char *asked, const char *key) {
    size_t whole = edit_distance(asked, key);
    return strchr(asked, '.') ? whole : least(whole, edit_distance(asked, strchr(key, '.') + 1) + 1);
}

const char *option_nearest(const char *key) {
    const char *nearest = NULL;
    size_t best = strlen(key) / 3 + 2;
    for (size_t i = 0; i < option_row_count; i++) {
        size_t distance = key_distance(key, option_rows[i].key);
        if (distance < best) best = distance, nearest = option_rows[i].key;
    }
    return nearest;
}

/* --- text to value ---------------------------------------------------------------------------------------------- */

/* The start of a text that came from outside, fit for a message of one line. */
static const char *quoted(const char *text, char out[64]) {
    size_t length = strnlen(text, 60);
    for (size_t i = 0; i < length; i++) out[i] = (unsigned char)text[i] < ' ' ? '?' : text[i];
    out[length] = '\0';
    return out;
}

static status refused(const struct option_row *row, const char *value, const char *expected) {
    char text[64];
    return status_new(STATUS_USAGE, "%s = \"%s\": expected %s", row->key, quoted(value, text), expected);
}

static status out_of_bounds(const struct option_row *row, const char *value, const char *kind) {
    char expected[128];
    snprintf(expected, sizeof expected, "%s from %.15g to %.15g", kind, row->low, row->high);
    return refused(row, value, expected);
}

static bool parse_int(const char *text, const char **end, int64_t *value) {
    char *stop;
    errno = 0;
    *value = strtoll(text, &stop, 10);
    *end = stop;
    return stop != text && errno == 0;
}

static bool within(const struct option_row *row, double value) { return value >= row->low && value <= row->high; }

static status set_int(const struct option_row *row, const char *text, int64_t *field) {
    const char *end;
    int64_t value;
    if (!parse_int(text, &end, &value) || *end || !within(row, (double)value))
        return out_of_bounds(row, text, "an integer");
    *field = value;
    return NULL;
}

static status set_real(const struct option_row *row, const char *text, double *field) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !within(row, value)) return out_of_bounds(row, text, "a number");
    *field = value;
    return NULL;
}

static status set_flag(const struct option_row *row, const char *text, bool *field) {
    static const char *const words[][2] = {{"off", "on"}, {"false", "true"}, {"no", "yes"}, {"0", "1"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int value = 0; value < 2; value++)
            if (strcmp(text, words[i][value]) == 0) {
                *field = value;
                return NULL;
            }
    return refused(row, text, "on or off");
}

static status set_choice(const struct option_row *row, const char *text, int *field) {
    size_t length = strlen(text);
    int index = 0;
    for (const char *choice = row->choices; choice; index++) {
        const char *bar = strchr(choice, '|');
        size_t size = bar ? (size_t)(bar - choice) : strlen(choice);
        if (size == length && memcmp(choice, text, size) == 0) {
            *field = index;
            return NULL;
        }
        choice = bar ? bar + 1 : NULL;
    }
    char expected[256];
    snprintf(expected, sizeof expected, "one of %s", row->choices);
    return refused(row, text, expected);
}

static status set_text(const struct option_row *row, const char *text, char *field) {
    if (strlen(text) >= TEXT_CAPACITY) return refused(row, text, "at most 127 bytes");
    if (has_control(text)) return refused(row, text, "text without control characters");
    strncpy(field, text, TEXT_CAPACITY); /* the rest becomes zeros: equal configs are equal bytes */
    return NULL;
}

static int compare_ints(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sorted, because the order of layers means nothing and must not change a key. */
static status set_list(const struct option_row *row, const char *text, struct int_list *field) {
    struct int_list list = {0};
    const char *at = text + strspn(text, " ");
    while (*at) {
        int64_t value;
        const char *end;
        if (list.count == LIST_CAPACITY) return refused(row, text, "at most 64 integers");
        if (!parse_int(at, &end, &value) || !within(row, (double)value))
            return out_of_bounds(row, text, "integers with commas between, each");
        list.values[list.count++] = value;
        end += strspn(end, " ");
        if (*end && (*end != ',' || !end[1 + strspn(end + 1, " ")]))
            return out_of_bounds(row, text, "integers with commas between, each");
        at = *end ? end + 1 : end;
    }
    qsort(list.values, (size_t)list.count, sizeof *list.values, compare_ints);
    *field = list;
    return NULL;
}

static status set_row(struct config *config, const struct option_row *row, const char *value) {
    void *field = (char *)config + row->offset;
    switch (row->type) {
    case OPTION_INT:
        return set_int(row, value, field);
    case OPTION_REAL:
        return set_real(row, value, field);
    case OPTION_FLAG:
        return set_flag(row, value, field);
    case OPTION_CHOICE:
        return set_choice(row, value, field);
    case OPTION_TEXT:
        return set_text(row, value, field);
    case OPTION_LIST:
        return set_list(row, value, field);
    }
    return NULL;
}

static status unknown_key(const char *key) {
    const char *nearest = option_nearest(key);
    char text[64];
    quoted(key, text);
    if (nearest) return status_new(STATUS_USAGE, "unknown option \"%s\"; the nearest one is %s", text, nearest);
    return status_new(STATUS_USAGE, "unknown option \"%s\"; hinge list --options names them all", text);
}

static status unknown_strategy(const char *name) {
    char known[256] = "";
    for (size_t i = 0; i < strategy_row_count; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? "|" : "", strategy_rows[i].name);
    }
    char text[64];
    return status_new(STATUS_USAGE, "quant.strategy = \"%s\": expected one of %s", quoted(name, text), known);
}

/* Through a copy, so that a refused setting changes nothing. */
static status apply_strategy(struct config *config, const char *name) {
    const struct strategy_row *row = strategy_rows, *end = strategy_rows + strategy_row_count;
    while (row < end && strcmp(row->name, name) != 0) row++;
    if (row == end) return unknown_strategy(name);
    struct config changed = *config;
    char settings[512], *rest;
    snprintf(settings, sizeof settings, "%s", row->settings);
    for (char *word = strtok_r(settings, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        TRY(config_set(&changed, word, equals + 1));
    }
    *config = changed;
    return NULL;
}

status config_set(struct config *config, const char *key, const char *value) {
    const struct option_row *row = option_find(key);
    if (!row) return unknown_key(key);
    if (strcmp(key, "quant.strategy") == 0) TRY(apply_strategy(config, value));
    return set_row(config, row, value);
}

void config_defaults(struct config *config) {
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < option_row_count; i++) {
        status s = set_row(config, &option_rows[i], option_rows[i].initial);
        assert(!s); /* else options.def contradicts itself */
        status_free(s);
    }
}

/* --- value to text ---------------------------------------------------------------------------------------------- */

const char *shortest_real(double value, char out[32]) {
    if (fabs(value) >= 1e-4 && fabs(value) < 1e15)
        for (int decimals = 0; decimals <= 8; decimals++) {
            snprintf(out, 32, "%.*f", decimals, value);
            if (strtod(out, NULL) == value) return out;
        }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
    return out;
}

static void choice_text(const struct option_row *row, int index, char out[512]) {
    const char *choice = row->choices;
    while (index-- > 0) choice = strchr(choice, '|') + 1;
    snprintf(out, 512, "%.*s", (int)strcspn(choice, "|"), choice);
}

static void list_text(const struct int_list *list, char out[512]) {
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < list->count && used < 512; i++)
        used += (size_t)snprintf(out + used, 512 - used, "%s%lld", i ? "," : "", (long long)list->values[i]);
}

const char *option_text(const struct option_row *row, const struct config *config, char out[512]) {
    const void *field = (const char *)config + row->offset;
    switch (row->type) {
    case OPTION_INT:
        snprintf(out, 512, "%lld", (long long)*(const int64_t *)field);
        break;
    case OPTION_REAL:
        shortest_real(*(const double *)field, out);
        break;
    case OPTION_FLAG:
        snprintf(out, 512, "%s", *(const bool *)field ? "on" : "off");
        break;
    case OPTION_CHOICE:
        choice_text(row, *(const int *)field, out);
        break;
    case OPTION_TEXT:
        snprintf(out, 512, "%s", (const char *)field);
        break;
    case OPTION_LIST:
        list_text(field, out);
        break;
    }
    return out;
}
