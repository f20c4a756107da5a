/* parts: where the parts of a suite lie that are done apart from its database, and how they get there and back.
 *
 *   FILE.parts/<16 hex>/I-of-N/hinge.db    FILE is the database, the hex digits stand for suite and scale
 *
 * Each has its own store of weights beside it, as every database has. */
#pragma once
#include "harness/merge.h"

enum { PARTS_MOST = 1000 };

struct parts {
    const struct plan *plan;
    bool mix_builds;
    char database[4096], folder[4096]; /* absolute */
};

/* The path as seen from anywhere. STATUS_SYSTEM when it is too long. */
status absolute_path(const char *path, char out[4096]);

status parts_find(struct parts *parts, const char *database, const struct plan *plan, bool mix_builds);

/* A file in the folder, and a part's database. */
status parts_file(const struct parts *parts, const char *name, char path[4096]);
status parts_database(const struct parts *parts, int part, int of, char path[4096]);

/* Folds into the database what the suite's parts have so far, of however many they were. The first thing that is
 * refused ends it. */
status parts_collect(const struct parts *parts, struct store *store);

/* Makes a part's database, or brings it up to what the suite's has of all parts: nothing is done twice, and looks find
 * all runs. */
status parts_prepare(const struct parts *parts, int part, int of);
