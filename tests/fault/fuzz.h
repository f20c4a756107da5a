/* fuzz: what the six fuzz targets share: each reads a file through the function that the program reads it with.
 *
 * A target fails on a crash, a leak, undefined behaviour, or when the bytes that it holds at once exceed
 * spare + factor * (size of the file). HINGE_FUZZ_SEEDS=FOLDER makes a target write its first inputs there and end. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

struct fuzz_target {
    size_t spare, factor; /* declared bound on memory held at once */
    void (*open)(void);   /* once, before the first input; or NULL */
    /* The bytes of the file for an input; NULL: the input itself. Otherwise malloc'ed; its size goes to *size. */
    unsigned char *(*prepare)(const uint8_t *data, size_t *size);
    void (*read)(const char *path);
    void (*seeds)(void); /* calls fuzz_seed for each */
};

extern const struct fuzz_target fuzz_target;

/* Writes one input of the corpus. flags: the byte before the file's content, for targets with prepare; -1: none. */
void fuzz_seed(const char *name, int flags, const void *data, size_t size);
void fuzz_seed_file(const char *name, int flags, const char *path);

const char *fuzz_scratch(void); /* a path to write to */

/* Ends the process with the status's text when s is a failure. */
void fuzz_need(status s);
