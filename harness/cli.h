/* cli: the command line as rows. A verb is one row (name, purpose, arguments, flags, examples, function); parsing,
 * help, defaults and the message for a misspelt word all read that row, so that a flag is declared once.
 *
 * Accepted: `--flag value`, `--flag=value`, `-o value` where the row has a letter, `--` ends the flags; flags and
 * arguments in any order. Every verb takes --help. A verb's name may be two words ("data prepare"). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

enum flag_type {
    FLAG_SWITCH,   /* present or not */
    FLAG_TEXT,     /* any text */
    FLAG_INT,      /* a whole number in [low, high] */
    FLAG_REAL,     /* a finite number in [low, high] */
    FLAG_CHOICE,   /* one of value_name's words: "csv|json" */
    FLAG_REPEATED, /* text; may be given many times */
};

struct flag_row {
    const char *name;       /* "db" is written --db */
    char letter;            /* 'o' is written -o; 0: none */
    enum flag_type type;    /* a text flag without a default is optional: cli_text gives NULL */
    const char *value_name; /* "FILE"; NULL for a switch */
    const char *initial;    /* the default, as text; NULL: none */
    double low, high;       /* FLAG_INT, FLAG_REAL; both 0: no bounds */
    const char *help;
};

enum { CLI_ARGUMENTS = 1024, CLI_FLAGS = 24, CLI_REPEATS = 64 };

struct verb;

/* A parsed command line. Texts point into argv or into the rows. */
struct invocation {
    const struct verb *verb;
    int count; /* arguments that are no flags */
    const char *arguments[CLI_ARGUMENTS];
    const char *values[CLI_FLAGS]; /* by the verb's flag rows: given or default; NULL: neither */
    bool given[CLI_FLAGS];
    int repeats; /* of all FLAG_REPEATED flags, in the order given */
    struct {
        int flag;
        const char *value;
    } repeated[CLI_REPEATS];
};

struct verb {
    const char *name;             /* "plan", "data prepare" */
    const char *purpose;          /* one line, no full stop */
    const char *arguments;        /* "SUITE", "[SUITE]", "" */
    int least, most;              /* how many arguments */
    const struct flag_row *flags; /* ends with a row without a name; NULL: none */
    const char *notes;            /* sentences under the flags; NULL: none */
    const char *const *examples;  /* whole command lines; ends with NULL */
    status (*run)(const struct invocation *in);
    bool answers; /* its exit status is its answer: usage errors are STATUS_MISUSE, never mistaken for one */
};

struct program {
    const char *name, *version, *purpose;
    const struct verb *const *verbs; /* ends with NULL; the order of the help */
    const char *notes;               /* printed under the help; lines end in a newline */
};

/* Rows that several verbs share, for use inside a `struct flag_row[]`. */
#define FLAGS_END \
    { .name = NULL }
#define FLAG_ROW_DB                                                                           \
    {                                                                                         \
        .name = "db", .type = FLAG_TEXT, .value_name = "FILE", .initial = "results/hinge.db", \
        .help = "the results database"                                                        \
    }
#define FLAG_ROW_DATA                                                              \
    {                                                                              \
        .name = "data", .type = FLAG_TEXT, .value_name = "DIR", .initial = "data", \
        .help = "folder of the prepared texts"                                     \
    }
#define FLAG_ROW_JSON \
    { .name = "json", .type = FLAG_SWITCH, .help = "print JSON instead of text" }
#define FLAG_ROW_SET                                                                     \
    {                                                                                    \
        .name = "set", .type = FLAG_REPEATED, .value_name = "KEY=VALUE",                 \
        .help = "set an option for every variant (repeatable; see hinge list --options)" \
    }
#define FLAG_ROW_SCALE \
    { .name = "scale", .type = FLAG_TEXT, .value_name = "NAME", .help = "a size that the suite declares under scales:" }

/* Values of a parsed flag. Asking for a flag that the verb does not declare is a bug and aborts. */
const char *cli_text(const struct invocation *in, const char *flag); /* NULL: not given, no default */
bool cli_switch(const struct invocation *in, const char *flag);
bool cli_given(const struct invocation *in, const char *flag); /* on the command line itself */
int64_t cli_int(const struct invocation *in, const char *flag);
double cli_real(const struct invocation *in, const char *flag);
/* The values of a FLAG_REPEATED flag, in order; returns how many, at most CLI_REPEATS. */
int cli_repeated(const struct invocation *in, const char *flag, const char *values[CLI_REPEATS]);

/* Parses the words after the verb; `in` is filled from the row's defaults first. */
status cli_parse(const struct verb *verb, int count, char **words, struct invocation *in);

/* STATUS_USAGE becomes STATUS_MISUSE; anything else stays. */
status cli_misuse(status s);

/* The whole program: finds the verb, prints help or runs it. STATUS_USAGE names the nearest verb or flag. */
status cli_main(const struct program *program, int argc, char **argv);

/* What looks like `word`, by edit distance with transpositions; NULL when nothing is near. */
const char *nearest_word(const char *word, const char *const *candidates, size_t count);

/* "allowed: a, b, c; did you mean b?" */
const char *allowed_words(const char *word, const char *const *words, size_t count, char out[1024]);
