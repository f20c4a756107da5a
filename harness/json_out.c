/* json_out: jansson values with the conventions of --json. */
#include "harness/json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *json_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

json_t *json_text(const char *value) {
    if (!value || !*value) return json_null();
    json_t *text = json_string(value);
    if (text) return text;
    char *ascii = strdup(value);
    if (!ascii) return json_null();
    for (char *p = ascii; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    text = json_string(ascii);
    free(ascii);
    return text;
}

status json_print(FILE *stream, json_t *root) {
    if (!root) return status_new(STATUS_SYSTEM, "out of memory while building JSON");
    int failed = json_dumpf(root, stream, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(root);
    if (failed || fputc('\n', stream) == EOF) return status_errno("cannot write JSON");
    return NULL;
}
