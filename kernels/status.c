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

size_t control_bytes(const char *text) {
    const unsigned char *c = (const unsigned char *)text;
    if (*c && (*c < 0x20 || *c == 0x7F)) return 1;
    if (*c == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0) return 2; /* C1 */
    if (*c != 0xE2) return 0;
    if (c[1] == 0x80 && c[2] >= 0xAA && c[2] <= 0xAE) return 3;  /* embedding and overriding */
    return c[1] == 0x81 && c[2] >= 0xA6 && c[2] <= 0xA9 ? 3 : 0; /* isolating */
}

bool has_control(const char *text) {
    for (; *text; text++)
        if (control_bytes(text)) return true;
    return false;
}

static void show_control(char *text) {
    for (size_t bytes; text && *text; text += bytes ? bytes : 1)
        if ((bytes = control_bytes(text))) memset(text, '?', bytes);
}

static status new_with_text(enum status_kind kind, char *text) {
    show_control(text);
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

const char *status_advice(int system_error) {
    switch (system_error) {
    case ENOSPC:
        return "; make room and repeat";
    case EDQUOT:
        return "; make room, or have the quota raised, and repeat";
    case EFBIG:
        return "; raise the limit on the size of files (ulimit -f) and repeat";
    default:
        return "";
    }
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
    char *advised = text && asprintf(&what, "%s%s", text, status_advice(saved)) >= 0 ? what : NULL;
    free(text);
    return new_with_text(STATUS_SYSTEM, advised);
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
    show_control(text);
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
