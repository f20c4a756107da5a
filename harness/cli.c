/* cli: parsing of a command line against a verb's rows, and the way from words to the verb's function. */
#include "harness/cli.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cli_help.h"
#include "harness/units.h"

/* --- values of a parsed flag --- */

static int flag_count(const struct verb *verb) {
    int count = 0;
    while (verb->flags && verb->flags[count].name) count++;
    return count;
}

/* Index of a flag by the first `length` bytes of name; -1 when the verb has none. */
static int flag_index(const struct verb *verb, const char *name, size_t length) {
    for (int i = 0; i < flag_count(verb); i++)
        if (strlen(verb->flags[i].name) == length && memcmp(verb->flags[i].name, name, length) == 0) return i;
    return -1;
}

static int declared(const struct invocation *in, const char *flag) {
    int index = flag_index(in->verb, flag, strlen(flag));
    if (index < 0) {
        fprintf(stderr, "hinge: bug: %s asks for --%s, which it does not declare\n", in->verb->name, flag);
        abort();
    }
    return index;
}

const char *cli_text(const struct invocation *in, const char *flag) { return in->values[declared(in, flag)]; }

bool cli_switch(const struct invocation *in, const char *flag) { return in->given[declared(in, flag)]; }

bool cli_given(const struct invocation *in, const char *flag) { return in->given[declared(in, flag)]; }

int64_t cli_int(const struct invocation *in, const char *flag) {
    const char *text = cli_text(in, flag);
    return text ? strtoll(text, NULL, 10) : 0;
}

double cli_real(const struct invocation *in, const char *flag) {
    const char *text = cli_text(in, flag);
    return text ? strtod(text, NULL) : NAN;
}

int cli_repeated(const struct invocation *in, const char *flag, const char *values[CLI_REPEATS]) {
    int index = declared(in, flag), count = 0;
    for (int i = 0; i < in->repeats; i++)
        if (in->repeated[i].flag == index) values[count++] = in->repeated[i].value;
    return count;
}

/* --- parsing --- */

static status check_number(const struct verb *verb, const struct flag_row *flag, const char *value) {
    char *end;
    errno = 0;
    double number = flag->type == FLAG_INT ? (double)strtoll(value, &end, 10) : strtod(value, &end);
    const char *kind = flag->type == FLAG_INT ? "a whole number" : "a number";
    if (*value == 0 || *end || errno || !isfinite(number))
        return status_new(STATUS_USAGE, "%s: --%s takes %s, not '%s'", verb->name, flag->name, kind, value);
    bool bounded = flag->low != 0 || flag->high != 0;
    if (bounded && (number < flag->low || number > flag->high))
        return status_new(STATUS_USAGE, "%s: --%s is %s, allowed are %g to %g", verb->name, flag->name, value,
                          flag->low, flag->high);
    return NULL;
}

static status check_choice(const struct verb *verb, const struct flag_row *flag, const char *value) {
    size_t length = strlen(value);
    for (const char *choice = flag->value_name; *choice;) {
        size_t choice_length = strcspn(choice, "|");
        if (choice_length == length && memcmp(choice, value, length) == 0) return NULL;
        choice += choice_length + (choice[choice_length] == '|');
    }
    return status_new(STATUS_USAGE, "%s: --%s takes %s, not '%s'", verb->name, flag->name, flag->value_name, value);
}

static status add_repeated(struct invocation *in, int flag, const char *value) {
    if (in->repeats == CLI_REPEATS)
        return status_new(STATUS_USAGE, "%s: --%s is given more than %d times", in->verb->name,
                          in->verb->flags[flag].name, CLI_REPEATS);
    in->repeated[in->repeats].flag = flag;
    in->repeated[in->repeats++].value = value;
    return NULL;
}

static status take_value(struct invocation *in, int flag, const char *value) {
    const struct flag_row *row = &in->verb->flags[flag];
    if (row->type == FLAG_INT || row->type == FLAG_REAL) TRY(check_number(in->verb, row, value));
    if (row->type == FLAG_CHOICE) TRY(check_choice(in->verb, row, value));
    if (row->type == FLAG_REPEATED) TRY(add_repeated(in, flag, value));
    if (in->given[flag] && row->type != FLAG_REPEATED)
        return status_new(STATUS_USAGE, "%s: --%s is given twice", in->verb->name, row->name);
    in->given[flag] = true;
    in->values[flag] = value;
    return NULL;
}

static status unknown_flag(const struct verb *verb, const char *word, size_t length) {
    const char *names[CLI_FLAGS + 1] = {"help"};
    int count = 1;
    for (int i = 0; i < flag_count(verb); i++) names[count++] = verb->flags[i].name;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    const char *near = nearest_word(name, names, (size_t)count);
    if (near) return status_new(STATUS_USAGE, "%s has no flag --%s; nearest is --%s", verb->name, name, near);
    return status_new(STATUS_USAGE, "%s has no flag --%s; see hinge help %s", verb->name, name, verb->name);
}

/* One flag at words[*at]; moves *at to the last word that it used. */
static status take_flag(struct invocation *in, int flag, const char *inline_value, int count, char **words, int *at) {
    const struct flag_row *row = &in->verb->flags[flag];
    if (row->type == FLAG_SWITCH) {
        if (inline_value) return status_new(STATUS_USAGE, "%s: --%s takes no value", in->verb->name, row->name);
        in->given[flag] = true;
        return NULL;
    }
    if (inline_value) return take_value(in, flag, inline_value);
    if (*at + 1 >= count)
        return status_new(STATUS_USAGE, "%s: --%s needs a value: --%s %s", in->verb->name, row->name, row->name,
                          row->value_name);
    return take_value(in, flag, words[++*at]);
}

static status take_long(struct invocation *in, int count, char **words, int *at) {
    const char *name = words[*at] + 2;
    size_t length = strcspn(name, "=");
    int flag = flag_index(in->verb, name, length);
    if (flag < 0) return unknown_flag(in->verb, name, length);
    return take_flag(in, flag, name[length] ? name + length + 1 : NULL, count, words, at);
}

static status take_letter(struct invocation *in, int count, char **words, int *at) {
    const char *word = words[*at];
    for (int i = 0; i < flag_count(in->verb); i++)
        if (in->verb->flags[i].letter == word[1]) return take_flag(in, i, word[2] ? word + 2 : NULL, count, words, at);
    return status_new(STATUS_USAGE, "%s has no flag %s; see hinge help %s", in->verb->name, word, in->verb->name);
}

static status take_argument(struct invocation *in, const char *word) {
    int most = in->verb->most < CLI_ARGUMENTS ? in->verb->most : CLI_ARGUMENTS;
    if (in->count == most)
        return status_new(STATUS_USAGE, "%s: '%s' is one argument too many; usage: hinge %s%s%s", in->verb->name, word,
                          in->verb->name, *in->verb->arguments ? " " : "", in->verb->arguments);
    in->arguments[in->count++] = word;
    return NULL;
}

status cli_parse(const struct verb *verb, int count, char **words, struct invocation *in) {
    *in = (struct invocation){.verb = verb};
    for (int i = 0; i < flag_count(verb); i++) in->values[i] = verb->flags[i].initial;
    bool flags_ended = false;
    for (int at = 0; at < count; at++) {
        const char *word = words[at];
        if (flags_ended || word[0] != '-' || word[1] == 0)
            TRY(take_argument(in, word));
        else if (strcmp(word, "--") == 0)
            flags_ended = true;
        else if (word[1] == '-')
            TRY(take_long(in, count, words, &at));
        else
            TRY(take_letter(in, count, words, &at));
    }
    if (in->count < verb->least)
        return status_new(STATUS_USAGE, "%s needs %s; usage: hinge %s %s", verb->name, verb->arguments, verb->name,
                          verb->arguments);
    return NULL;
}

/* --- from words to a verb --- */

enum { VERB_NAMES = 64 };

/* How many words of `words` name the verb: 1, 2, or 0 when they do not. */
static int words_of_verb(const struct verb *verb, int count, char **words) {
    if (count > 0 && strcmp(verb->name, words[0]) == 0) return 1;
    const char *space = strchr(verb->name, ' ');
    if (!space || count < 2) return 0;
    size_t first = (size_t)(space - verb->name);
    bool same = strlen(words[0]) == first && memcmp(verb->name, words[0], first) == 0;
    return same && strcmp(space + 1, words[1]) == 0 ? 2 : 0;
}

static const struct verb *find_verb(const struct program *program, int count, char **words, int *used) {
    for (const struct verb *const *verb = program->verbs; *verb; verb++)
        if ((*used = words_of_verb(*verb, count, words))) return *verb;
    return NULL;
}

/* "prepare, add" for the group "data"; empty when word is no group. */
static void group_members(const struct program *program, const char *word, char *out, size_t size) {
    size_t length = strlen(word);
    *out = 0;
    for (const struct verb *const *verb = program->verbs; *verb; verb++) {
        const char *name = (*verb)->name;
        if (strncmp(name, word, length) != 0 || name[length] != ' ') continue;
        text_append(out, size, "%s%s", *out ? ", " : "", name + length + 1);
    }
}

static status unknown_verb(const struct program *program, int count, char **words) {
    char members[256], wanted[128];
    group_members(program, words[0], members, sizeof members);
    const char *second = *members && count > 1 && words[1][0] != '-' ? words[1] : "";
    snprintf(wanted, sizeof wanted, "%s%s%s", words[0], *second ? " " : "", second);
    if (*members && !*second) return status_new(STATUS_USAGE, "%s needs one of: %s", words[0], members);
    const char *names[VERB_NAMES] = {"help"};
    size_t known = 1;
    for (const struct verb *const *verb = program->verbs; *verb && known < VERB_NAMES; verb++)
        names[known++] = (*verb)->name;
    const char *near = nearest_word(wanted, names, known);
    if (near) return status_new(STATUS_USAGE, "there is no verb '%s'; nearest is '%s'", wanted, near);
    return status_new(STATUS_USAGE, "there is no verb '%s'; see %s --help", wanted, program->name);
}

static bool asks_for_help(int count, char **words) {
    for (int i = 0; i < count && strcmp(words[i], "--") != 0; i++)
        if (strcmp(words[i], "--help") == 0 || strcmp(words[i], "-h") == 0) return true;
    return false;
}

/* help [VERB...]: a group ("help data") prints the help of each of its verbs. */
static status help(const struct program *program, int count, char **words) {
    int used;
    if (count == 0 || words[0][0] == '-' || strcmp(words[0], "help") == 0) {
        help_program(stdout, program);
        return NULL;
    }
    const struct verb *verb = find_verb(program, count, words, &used);
    if (verb) {
        help_verb(stdout, program, verb);
        return NULL;
    }
    size_t length = strlen(words[0]);
    bool found = false;
    for (const struct verb *const *row = program->verbs; count == 1 && *row; row++) {
        if (strncmp((*row)->name, words[0], length) != 0 || (*row)->name[length] != ' ') continue;
        if (found) putchar('\n');
        help_verb(stdout, program, *row);
        found = true;
    }
    return found ? NULL : unknown_verb(program, count, words);
}

status cli_misuse(status s) {
    if (!s || status_kind(s) != STATUS_USAGE) return s;
    status misuse = status_new(STATUS_MISUSE, "%s", status_text(s));
    status_free(s);
    return misuse;
}

static status run_verb(const struct program *program, int count, char **words) {
    int used;
    const struct verb *verb = find_verb(program, count, words, &used);
    if (!verb && count == 2 && asks_for_help(count, words)) return help(program, 1, words);
    if (!verb) return unknown_verb(program, count, words);
    if (asks_for_help(count - used, words + used)) {
        help_verb(stdout, program, verb);
        return NULL;
    }
    struct invocation *in = malloc(sizeof *in);
    if (!in) return status_new(STATUS_SYSTEM, "out of memory");
    status failed = cli_parse(verb, count - used, words + used, in);
    if (verb->answers) failed = cli_misuse(failed);
    if (!failed) failed = verb->run(in);
    free(in);
    return failed;
}

status cli_main(const struct program *program, int argc, char **argv) {
    const char *first = argc > 1 ? argv[1] : "help";
    status result = NULL;
    if (strcmp(first, "--version") == 0)
        printf("%s %s\n", program->name, program->version);
    else if (strcmp(first, "help") == 0 || strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0)
        result = help(program, argc > 2 ? argc - 2 : 0, argv + 2);
    else
        result = run_verb(program, argc - 1, argv + 1);
    if (!result && (fflush(stdout) != 0 || ferror(stdout))) return status_errno("cannot write to standard output");
    return result;
}
