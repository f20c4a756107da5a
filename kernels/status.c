/* status: a failure and its message on the heap; see status.h. */
#include "kernels/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_SIZE = 1024 };

struct status {
    enum status_kind kind;
    char text[TEXT_SIZE];
};

/* Used when there is no memory left for a message: never freed. */
static struct status out_of_memory = {STATUS_SYSTEM, "out of memory"};

static status new_formatted(enum status_kind kind, const char *format, va_list args) {
    status s = malloc(sizeof *s);
    if (!s) return &out_of_memory;
    s->kind = kind;
    vsnprintf(s->text, sizeof s->text, format, args);
    return s;
}

status status_new(enum status_kind kind, const char *format, ...) {
    va_list args;
    va_start(args, format);
    status s = new_formatted(kind, format, args);
    va_end(args);
    return s;
}

status status_errno(const char *format, ...) {
    int saved = errno;
    va_list args;
    va_start(args, format);
    status s = new_formatted(STATUS_SYSTEM, format, args);
    va_end(args);
    if (s == &out_of_memory) return s;
    size_t used = strlen(s->text);
    snprintf(s->text + used, sizeof s->text - used, ": %s", strerror(saved));
    return s;
}

status status_context(status s, const char *format, ...) {
    if (!s || s == &out_of_memory) return s;
    char text[TEXT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t used = strlen(text), room = sizeof text - used;
    if (snprintf(text + used, room, ": %s", s->text) >= (int)room) text[sizeof text - 1] = '\0'; /* cut, on purpose */
    memcpy(s->text, text, sizeof text);
    return s;
}

const char *status_text(const struct status *s) { return s ? s->text : "success"; }

enum status_kind status_kind(const struct status *s) { return s->kind; }

void status_free(status s) {
    if (s != &out_of_memory) free(s);
}
