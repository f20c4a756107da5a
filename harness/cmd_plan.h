/* cmd_plan: a plan as text or JSON; `hinge run --dry-run` prints the same. */
#pragma once
#include "harness/device.h"
#include "harness/prepared.h"

/* Options that say which suite is meant and where its things are; rows of plan and run alike. */
#define FLAG_ROWS_OF_A_SUITE FLAG_ROW_SCALE, FLAG_ROW_SET, FLAG_ROW_JOBS, FLAG_ROW_DEVICE, FLAG_ROW_DB, FLAG_ROW_DATA

/* Rows of run and submit. */
#define FLAG_ROW_CHECKPOINT                                                                              \
    {                                                                                                    \
        .name = "checkpoint", .type = FLAG_REAL, .value_name = "SECONDS", .initial = "30", .low = 0.001, \
        .high = 86400, .help = "time between two checkpoints"                                            \
    }
#define FLAG_ROW_RETRY \
    { .name = "retry", .type = FLAG_SWITCH, .help = "try runs again that failed before" }
#define FLAG_ROW_MIX_BUILDS                                                     \
    {                                                                           \
        .name = "mix-builds", .type = FLAG_SWITCH,                              \
        .help = "go on although another build of hinge made some of the stages" \
    }
/* Of plan and run. */
#define FLAG_ROW_PART                                                                                                \
    {                                                                                                                \
        .name = "part", .type = FLAG_TEXT, .value_name = "I/N",                                                      \
        .help = "only the runs of the suite's trainings I, I+N, I+2N, ...: for a database of its own (--db), which " \
                "hinge merge folds into another. At a declared look a part ends unless its database has the runs "   \
                "of all parts: merge them all into one, that into each part's, and repeat; hinge submit does so"     \
    }
#define FLAG_ROW_JOBS                                                                                             \
    {                                                                                                             \
        .name = "jobs", .letter = 'j', .type = FLAG_INT, .value_name = "N", .low = 1, .high = 256,                \
        .help = "runs at a time, each with its share of the cores; unless given: one, and on GPUs one for each, " \
                "or several where the models are too small to fill it"                                            \
    }

void plan_print(const struct prepared *prepared, bool each_run); /* else a line for each variant */
status plan_print_json(const struct prepared *prepared);
