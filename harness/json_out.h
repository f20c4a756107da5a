/* json_out: values that every --json output writes the same way: NaN as null, keys in the order they were set. */
#pragma once
#include <jansson.h>
#include <stdio.h>

#include "kernels/status.h"

json_t *json_number(double value);    /* null when not finite */
json_t *json_text(const char *value); /* null for NULL and for ""; bytes that are no UTF-8 become '?' */

/* Prints the tree and a newline and drops the reference, also on failure. */
status json_print(FILE *stream, json_t *root);
