/* small_text: folders, files, checks of statuses and small texts for the tests of the data pipeline. */
#pragma once
#include <stddef.h>

#include "kernels/status.h"

/* cmocka's setup and teardown of a folder under /tmp for one test. */
int small_folder_make(void **state);
int small_folder_remove(void **state);
int small_remove(const char *path); /* a folder and all in it */
/* A path in that folder; valid until called eight times more. */
const char *small_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

void small_write(const char *path, const void *bytes, size_t size);
int small_count_files(const char *folder); /* with those whose names start with a dot */

void expect_good(status s);
/* s is a failure whose message has all the words; a NULL ends them. */
void expect_failure(status s, ...) __attribute__((sentinel));

/* `count` documents of made-up words, indented lines among them, set apart by blank lines; the same for equal `kind`.
 * The caller frees. */
char *small_text(int kind, int count);
