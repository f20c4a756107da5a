/* provenance: what made a result: revision, compiler, flags, machine, libraries. Recorded with every stage. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/kernels.h"

enum { PROVENANCE_CAPACITY = 32 };

struct provenance_row {
    char name[32];   /* "revision", "program", "compiler", "flags", "precision", "numerics", "backend", "cpu", "cores",
                        "memory",   "system", "host",   "threads", "jobs",   "openblas", "sqlite", "liblzma", "gsl",
                        "libcrypto",   "sentencepiece",   "gpu", "cuda", ... */
    char value[480]; /* "unknown" or "none" rather than empty */
};

struct provenance {
    int count;
    struct provenance_row rows[PROVENANCE_CAPACITY];
};

/* Of results that this backend makes. Always succeeds; the order of the rows is fixed. */
void provenance_collect(struct provenance *provenance, const struct backend *ops);
__attribute__((format(printf, 3, 4))) void provenance_add(struct provenance *provenance, const char *name,
                                                          const char *format, ...);
const char *provenance_find(const struct provenance *provenance, const char *name); /* NULL when absent */

/* The first thing that differs and may change bits: the program, what it was built with, the libraries that it
 * calculates with and, where machine is set, the processor and the GPU; as "revision was a and is b". False when
 * nothing does. Rows that only one of the two has are passed over. */
bool provenance_differs(const struct provenance *before, const struct provenance *now, bool machine, char *what,
                        size_t size);

/* Of the build, for --version: "hinge REVISION, COMPILER". */
const char *provenance_revision(void);

/* Bytes of the source text that this program was built from: harness, kernels, model and the Makefile. */
size_t provenance_code_bytes(void);
