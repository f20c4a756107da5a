/* options: a run's configuration, and the rows that describe every option of it (options.def).
 *
 * struct config is plain data: copy it freely. A key is set from text through its row, which knows type and bounds;
 * config_check then holds the options against each other (heads that do not divide, layers that do not exist). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

enum { LIST_CAPACITY = 64, TEXT_CAPACITY = 128 };

struct int_list {
    int count;
    int64_t values[LIST_CAPACITY];
};

/* Stages in the order of the pipeline; an option belongs to the first stage whose result it changes. */
enum stage_kind { STAGE_NONE, STAGE_TRAIN, STAGE_AVERAGE, STAGE_QUANTISE, STAGE_EVALUATE, STAGE_KINDS };
const char *stage_name(enum stage_kind kind); /* "train", "average", "quantise", "evaluate" */

struct config {
#define FIELD_INT int64_t
#define FIELD_REAL double
#define FIELD_FLAG bool
#define OPTION(type, field, key, initial, low, high, stage, help, source) FIELD_##type field;
#define CHOICE(field, key, initial, choices, stage, help, source) int field; /* an enum config_<field> below */
#define TEXT(field, key, initial, stage, help, source) char field[TEXT_CAPACITY];
#define LIST(field, key, initial, low, high, stage, help, source) struct int_list field;
#include "model/options.def"
#undef OPTION
#undef CHOICE
#undef TEXT
#undef LIST
};

/* The values of the CHOICE fields, in the order of their rows (a unit test holds them against options.def). */
enum { BACKEND_CPU, BACKEND_SIMULATED, BACKEND_CUDA, BACKEND_AUTO };
enum { DATA_SEQUENTIAL, DATA_SHUFFLED };
enum { SKIPS_PUBLISHED, SKIPS_ALL, SKIPS_NONE };
enum { LINEAR_FLOAT, LINEAR_TERNARY };
enum { REPEAT_SHARED, REPEAT_UNTIED };
enum { DECAY_LINEAR, DECAY_COSINE };
enum { FLOOR_NONE, FLOOR_PUBLISHED };
enum { METHOD_NONE, METHOD_ROWWISE, METHOD_GPTQ, METHOD_TERNARY };
enum { GROUP_ALL, GROUP_BC };
enum { CLIP_MAX, CLIP_SEARCH };
enum { PROTECT_NONE, PROTECT_RECURRENCE_ROWS, PROTECT_CONTROL, PROTECT_BOTH }; /* a set of two bits */
enum { EMBEDDING_FP16, EMBEDDING_INT8 };
enum { CALIBRATION_SELF, CALIBRATION_TRAIN, CALIBRATION_NONE };
enum { EVAL_STANDARD, EVAL_SLIDING, EVAL_TTT };
enum { TTT_SGD, TTT_ADAMW };
enum { TAIL_DROP, TAIL_KEEP };

enum option_type { OPTION_INT, OPTION_REAL, OPTION_FLAG, OPTION_CHOICE, OPTION_TEXT, OPTION_LIST };

struct option_row {
    const char *key;
    enum option_type type;
    size_t offset;       /* of the field in struct config */
    const char *initial; /* the default, as text */
    double low, high;    /* INT, REAL, and each element of a LIST */
    const char *choices; /* CHOICE: "a|b|c" */
    enum stage_kind stage;
    const char *help, *source;
};

extern const struct option_row option_rows[];
extern const size_t option_row_count;

const struct option_row *option_find(const char *key); /* NULL when there is none */

/* The row says where figures come from (run.*, simulated.*): artifacts do not hold it, and only simulated runs have it
 * in their identity. */
bool option_of_source(const struct option_row *row);
const char *option_nearest(const char *key); /* by edit distance; NULL when nothing is near */

/* Damerau-Levenshtein: insertions, deletions, replacements and swaps of neighbours. For naming the nearest of anything.
 */
size_t edit_distance(const char *a, const char *b);

void config_defaults(struct config *config);

/* Sets one option from its text ("0.5", "on", "3,4", "published"). The message of a failure names the key, the value,
 * what is allowed, and for an unknown key the nearest one. Setting quant.strategy sets the options that it names. */
status config_set(struct config *config, const char *key, const char *value);

/* The shortest decimal text that reads back to the same value, without an exponent where that is as short. Returns out.
 */
const char *shortest_real(double value, char out[32]);

/* The option as canonical text: what config_set reads back to the same value. Returns out. */
const char *option_text(const struct option_row *row, const struct config *config, char out[512]);

/* Options against each other: divisibility, layers that exist, batch of whole windows. */
status config_check(const struct config *config);

/* A named quantisation strategy: settings in the order in which they apply. */
struct strategy_row {
    const char *name, *help;
    const char *settings; /* "quant.method=gptq quant.bits=6" */
};
extern const struct strategy_row strategy_rows[];
extern const size_t strategy_row_count;
