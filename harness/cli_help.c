/* cli_help: the help texts, generated from the rows of the program, its verbs and their flags. */
#include "harness/cli_help.h"

#include <stdio.h>
#include <string.h>

#include "harness/table.h"
#include "harness/terminal.h"

static const struct table_column help_columns[] = {{"", ALIGN_LEFT, false}, {"", ALIGN_LEFT, false}};

static const char *separator(const char *text) { return *text ? " " : ""; }

static void heading(FILE *out, const char *text) {
    fprintf(out, "\n%s%s%s\n", terminal_style(out, STYLE_BOLD), text, terminal_style(out, STYLE_PLAIN));
}

void help_program(FILE *out, const struct program *program) {
    fprintf(out, "%s %s: %s\n\nusage: %s VERB [ARGUMENTS] [FLAGS]\n", program->name, program->version, program->purpose,
            program->name);
    heading(out, "verbs");
    struct table *table = table_new(help_columns, 2);
    for (const struct verb *const *verb = program->verbs; *verb; verb++) {
        table_cell(table, "%s%s%s", (*verb)->name, separator((*verb)->arguments), (*verb)->arguments);
        table_cell(table, "%s", (*verb)->purpose);
    }
    table_print(table, out, 2);
    table_free(table);
    fprintf(out, "\n%s", program->notes);
}

static void flag_cell(struct table *table, const struct flag_row *flag) {
    char letter[8] = "";
    if (flag->letter) snprintf(letter, sizeof letter, "-%c, ", flag->letter);
    const char *value = flag->value_name ? flag->value_name : "";
    table_cell(table, "%s--%s%s%s", letter, flag->name, separator(value), value);
}

static void flag_help_cell(struct table *table, const struct flag_row *flag) {
    if (flag->initial)
        table_cell(table, "%s (default %s)", flag->help, flag->initial);
    else
        table_cell(table, "%s", flag->help);
}

static void print_flags(FILE *out, const struct verb *verb) {
    struct table *table = table_new(help_columns, 2);
    for (const struct flag_row *flag = verb->flags; flag && flag->name; flag++) {
        flag_cell(table, flag);
        flag_help_cell(table, flag);
    }
    table_cell(table, "--help");
    table_cell(table, "print this");
    heading(out, "flags");
    table_print(table, out, 2);
    table_free(table);
}

void help_verb(FILE *out, const struct program *program, const struct verb *verb) {
    fprintf(out, "%s\n\nusage: %s %s%s%s [FLAGS]\n", verb->purpose, program->name, verb->name,
            separator(verb->arguments), verb->arguments);
    print_flags(out, verb);
    if (!verb->examples || !verb->examples[0]) return;
    heading(out, "examples");
    for (const char *const *example = verb->examples; *example; example++) fprintf(out, "  %s\n", *example);
}
