/* cli_help: the help texts, generated from the rows of the program, its verbs and their flags. */
#include "harness/cli_help.h"

#include <stdio.h>
#include <string.h>

#include "harness/terminal.h"
#include "harness/units.h"

enum { INDENT = 2, GAP = 2, WIDEST_TERM = 30, TERM_CAPACITY = 128, HELP_CAPACITY = 1024 };

static const char *separator(const char *text) { return *text ? " " : ""; }

static void heading(FILE *out, const char *text) {
    fprintf(out, "\n%s%s%s\n", terminal_style(out, STYLE_BOLD), text, terminal_style(out, STYLE_PLAIN));
}

/* "  term    what it means, in as many lines as it takes"; a term wider than its column has a line of its own. */
static void print_definition(FILE *out, const char *term, size_t term_columns, const char *meaning) {
    size_t left = INDENT + term_columns + GAP, columns = text_columns(term);
    fprintf(out, "%*s%s", INDENT, "", term);
    if (columns > term_columns)
        fprintf(out, "\n%*s", (int)left, "");
    else
        fprintf(out, "%*s", (int)(term_columns - columns + GAP), "");
    text_print(out, meaning, left, left);
}

/* Makes the column of terms wide enough for one more, but for those that have a line of their own. */
static void widen(size_t *term_columns, const char *term) {
    size_t columns = text_columns(term);
    if (columns > *term_columns && columns <= WIDEST_TERM) *term_columns = columns;
}

static void verb_term(const struct verb *verb, char term[TERM_CAPACITY]) {
    snprintf(term, TERM_CAPACITY, "%s%s%s", verb->name, separator(verb->arguments), verb->arguments);
}

void help_program(FILE *out, const struct program *program) {
    char term[TERM_CAPACITY];
    size_t widest = 0;
    fprintf(out, "%s %s: %s\n\nusage: %s VERB [ARGUMENTS] [FLAGS]\n", program->name, program->version, program->purpose,
            program->name);
    heading(out, "verbs");
    for (const struct verb *const *verb = program->verbs; *verb; verb++) {
        verb_term(*verb, term);
        widen(&widest, term);
    }
    for (const struct verb *const *verb = program->verbs; *verb; verb++) {
        verb_term(*verb, term);
        print_definition(out, term, widest, (*verb)->purpose);
    }
    fprintf(out, "\n%s", program->notes);
}

static void flag_term(const struct flag_row *flag, char term[TERM_CAPACITY]) {
    const char *value = flag->value_name ? flag->value_name : "";
    *term = 0;
    if (flag->letter) snprintf(term, TERM_CAPACITY, "-%c, ", flag->letter);
    text_append(term, TERM_CAPACITY, "--%s%s%s", flag->name, separator(value), value);
}

static void print_flags(FILE *out, const struct verb *verb) {
    char term[TERM_CAPACITY], meaning[HELP_CAPACITY];
    size_t widest = strlen("--help");
    heading(out, "flags");
    for (const struct flag_row *flag = verb->flags; flag && flag->name; flag++) {
        flag_term(flag, term);
        widen(&widest, term);
    }
    for (const struct flag_row *flag = verb->flags; flag && flag->name; flag++) {
        flag_term(flag, term);
        snprintf(meaning, sizeof meaning, "%s", flag->help);
        if (flag->initial) text_append(meaning, sizeof meaning, " (default %s)", flag->initial);
        print_definition(out, term, widest, meaning);
    }
    print_definition(out, "--help", widest, "print this");
}

void help_verb(FILE *out, const struct program *program, const struct verb *verb) {
    fprintf(out, "%s\n\nusage: %s %s%s%s [FLAGS]\n", verb->purpose, program->name, verb->name,
            separator(verb->arguments), verb->arguments);
    print_flags(out, verb);
    if (verb->notes) putc('\n', out), text_print(out, verb->notes, 0, 0);
    if (!verb->examples || !verb->examples[0]) return;
    heading(out, "examples");
    for (const char *const *example = verb->examples; *example; example++) fprintf(out, "  %s\n", *example);
}
