/* status: how every library function reports failure. NULL is success; anything else carries one line for the user.
 *
 * Libraries return it, only harness/main.c prints it and exits. The line names the file, key, line or figure at
 * fault, what was expected and what to do. Ownership: whoever receives a status passes it up or frees it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum status_kind {
    STATUS_REFUTED = 1,       /* gate alone: a required difference does not hold */
    STATUS_UNDECIDED = 2,     /* gate alone: it cannot be told */
    STATUS_USAGE = 2,         /* the command line or a suite asks for something impossible */
    STATUS_DATA = 3,          /* a file is damaged, of another version, or of another size */
    STATUS_SYSTEM = 4,        /* the machine refused: disk, memory, permission, missing program */
    STATUS_DIVERGED = 5,      /* the run's numbers stopped being finite */
    STATUS_DIFFERS = 6,       /* a check was made and did not hold (verify, reproduce) */
    STATUS_MISUSE = 64,       /* gate alone, where 2 is an answer: STATUS_USAGE (EX_USAGE of sysexits.h) */
    STATUS_INTERRUPTED = 130, /* Ctrl-C; everything done so far is resumable */
};

struct failure;
typedef struct failure *status;

__attribute__((format(printf, 2, 3))) status status_new(enum status_kind kind, const char *format, ...);

/* Puts "context: " before the message; returns s itself. Passing NULL returns NULL. */
__attribute__((format(printf, 2, 3))) status status_context(status s, const char *format, ...);

/* STATUS_SYSTEM with strerror(errno) and what to do about it behind the text. */
__attribute__((format(printf, 1, 2))) status status_errno(const char *format, ...);

/* "; what to do" where the system had no room for what was to be written, else "". */
const char *status_advice(int system_error);

const char *status_text(const struct failure *s);
enum status_kind status_kind(const struct failure *s); /* also the exit code */
void status_free(status s);

/* Bytes of the control character, or of the one that turns the direction of writing, that a UTF-8 text begins with; 0
 * when it begins with another. Names have none; in messages, which may quote a stranger's file, each is shown as ?. */
size_t control_bytes(const char *text);
/* Whether there is any in the text. */
bool has_control(const char *text);

/* Returns the failure of CALL to the caller, if there is one. */
#define TRY(call)                            \
    do {                                     \
        status try_status_ = (call);         \
        if (try_status_) return try_status_; \
    } while (0)
