/* provenance: what made a result: revision, compiler, flags, machine, libraries. Recorded with every stage. */
#pragma once
#include <stddef.h>

enum { PROVENANCE_CAPACITY = 32 };

struct provenance_row {
    char name[32];   /* "revision", "compiler", "flags", "precision", "numerics", "backend", "cpu", "cores", "memory",
                        "system", "host",   "threads", "openblas", "sqlite", "liblzma", "gsl", "libcrypto",
                        "sentencepiece",   "gpu", ... */
    char value[480]; /* "unknown" or "none" rather than empty */
};

struct provenance {
    int count;
    struct provenance_row rows[PROVENANCE_CAPACITY];
};

/* Always succeeds; the order of the rows is fixed. */
void provenance_collect(struct provenance *provenance);
const char *provenance_find(const struct provenance *provenance, const char *name); /* NULL when absent */

/* Of the build, for --version: "hinge REVISION, COMPILER". */
const char *provenance_revision(void);
