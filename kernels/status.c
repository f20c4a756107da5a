/* status: a failure and its message on the heap; see status.h. */
#include "kernels/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct failure {
    enum status_kind kind;
    char *text;
};

/* Used when there is no memory left for a message: never changed, never freed. */
static struct failure out_of_memory = {STATUS_SYSTEM, "out of memory"};

static status new_with_text(enum status_kind kind, char *text) {
    status s = text ? malloc(sizeof *s) : NULL;
    if (!s) {
        free(text);
        return &out_of_memory;
    }
    *s = (struct failure){kind, text};
    return s;
}

/* NULL when there is no memory for it. */
static char *formatted(const char *format, va_list args) {
    char *text;
    return vasprintf(&text, format, args) < 0 ? NULL : text;
}

/* "first: second"; NULL when either is, or when there is no memory for it. */
static char *joined(const char *first, const char *second) {
    char *text;
    return !first || !second || asprintf(&text, "%s: %s", first, second) < 0 ? NULL : text;
}

status status_new(enum status_kind kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    status s = new_with_text(kind, formatted(format, args));
    va_end(args);
    return s;
}

status status_errno(const char *format, ...) {
    int saved = errno;
    va_list args;
    va_start(args, format);
    char *what = formatted(format, args);
    va_end(args);
    char *text = joined(what, strerror(saved));
    free(what);
    return new_with_text(STATUS_SYSTEM, text);
}

status status_context(status s, const char *format, ...) {
    if (!s || s == &out_of_memory) return s;
    va_list args;
    va_start(args, format);
    char *context = formatted(format, args);
    va_end(args);
    char *text = joined(context, s->text);
    free(context);
    if (!text) return s;
    free(s->text);
    s->text = text;
    return s;
}

const char *status_text(const struct failure *s) { return s ? s->text : "success"; }

enum status_kind status_kind(const struct failure *s) { return s->kind; }

void status_free(status s) {
    if (!s || s == &out_of_memory) return;
    free(s->text);
    free(s);
}
