/* cmd_common: suites by name, run numbers. */
#include "harness/cmd_common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/report/caveats.h"
#include "harness/store.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "harness/yaml.h"

void append_word(char *out, size_t size, const char *word) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./,:=+@%";
    if (*word && !word[strspn(word, plain)]) {
        text_append(out, size, "%s", word);
        return;
    }
    text_append(out, size, "'");
    for (; *word; word++) text_append(out, size, *word == '\'' ? "'\\''" : "%c", *word);
    text_append(out, size, "'");
}

static bool has_ending(const char *name, const char *ending) {
    size_t length = strlen(name), tail = strlen(ending);
    return length > tail && strcmp(name + length - tail, ending) == 0;
}

static bool is_path(const char *argument) { return strchr(argument, '/') || has_ending(argument, ".yaml"); }

static status unknown_suite(const char *argument) {
    char **names;
    size_t count = yaml_names(SUITES_FOLDER, &names);
    const char *near = nearest_word(argument, (const char *const *)names, count);
    status failed;
    if (!count)
        failed =
            status_new(STATUS_USAGE,
                       "there is no suite '%s': there are none in %s/ here; run hinge in the folder that has it, or "
                       "give the suite's file",
                       argument, SUITES_FOLDER);
    else if (near)
        failed =
            status_new(STATUS_USAGE, "there is no suite '%s' in %s/; nearest is '%s'", argument, SUITES_FOLDER, near);
    else
        failed =
            status_new(STATUS_USAGE, "there is no suite '%s' in %s/; hinge list names them", argument, SUITES_FOLDER);
    names_free(names, count);
    return failed;
}

status suite_find(const char *argument, char path[4096]) {
    char found[4096];
    int length = is_path(argument) ? snprintf(found, sizeof found, "%s", argument)
                                   : snprintf(found, sizeof found, SUITES_FOLDER "/%s.yaml", argument);
    if (length >= (int)sizeof found) return status_new(STATUS_USAGE, "the suite's path is longer than a path can be");
    if (access(found, R_OK) != 0) {
        if (!is_path(argument) && errno == ENOENT) return unknown_suite(argument);
        return errno == ENOENT ? status_new(STATUS_USAGE, "%s: there is no such file", found)
                               : status_errno("%s", found);
    }
    memcpy(path, found, (size_t)length + 1);
    return NULL;
}

status suite_name(const char *argument, char name[NAME_CAPACITY]) {
    if (!is_path(argument)) {
        snprintf(name, NAME_CAPACITY, "%s", argument);
        return NULL;
    }
    char path[4096];
    TRY(suite_find(argument, path));
    struct suite suite = {0};
    TRY(suite_load(&suite, &(struct suite_request){.path = path}));
    memcpy(name, suite.name, NAME_CAPACITY);
    suite_free(&suite);
    return NULL;
}

const char *suite_title(const char *name, const char *scale, char out[TITLE_CAPACITY]) {
    snprintf(out, TITLE_CAPACITY, "%s%s%s%s", name, *scale ? " (scale " : "", scale, *scale ? ")" : "");
    return out;
}

void print_question(const struct suite *suite) {
    char title[TITLE_CAPACITY];
    suite_title(suite->name, suite->scale, title);
    printf("%s%s%s: ", terminal_style(stdout, STYLE_BOLD), title, terminal_style(stdout, STYLE_PLAIN));
    text_print(stdout, suite->question, text_columns(title) + 2, 0);
    putchar('\n');
}

status load_suite(const struct invocation *in, struct suite *suite) {
    char path[4096];
    TRY(suite_find(in->arguments[0], path));
    const char *settings[CLI_REPEATS];
    int count = cli_repeated(in, "set", settings);
    const struct suite_request request = {
        .path = path, .scale = cli_text(in, "scale"), .settings = settings, .setting_count = count};
    return suite_load(suite, &request);
}

/* Who only asks how far a suite is learns how to do so without a look at its figures. */
static void tell_peek(const struct result_peek *peek) {
    fprintf(stderr,
            "hinge: noted as a peek: figures of %d of %d runs are shown before all have ended, which every table says "
            "from now on; hinge status without a suite shows none\n",
            peek->done, peek->declared);
}

void note_peek(const struct invocation *in, struct results *results) {
    int before = results->peek_count;
    status s = store_record_peek(cli_text(in, "db"), results, in->verb->name);
    if (!s && results->peek_count > before) tell_peek(&results->peeks[before]);
    if (!s) return;
    fprintf(stderr, "hinge: this peek could not be noted in the database: %s\n", status_text(s));
    status_free(s);
}

void print_caveats(const struct results *results) {
    struct text line = {0}, blown_up = {0};
    caveats_line(results, &line);
    caveats_blown_up(results, &blown_up);
    if (line.size) printf("Read with: %s.\n", text_of(&line));
    if (blown_up.size) text_print(stdout, text_of(&blown_up), 0, 0);
    text_free(&line);
    text_free(&blown_up);
}

static json_t *peeks_json(const struct results *results) {
    json_t *list = json_array();
    for (int i = 0; i < results->peek_count; i++) {
        const struct result_peek *peek = &results->peeks[i];
        json_t *out = json_object();
        json_object_set_new(out, "verb", json_text(peek->verb));
        json_object_set_new(out, "done", json_integer(peek->done));
        json_object_set_new(out, "declared", json_integer(peek->declared));
        json_object_set_new(out, "at", json_text(peek->at));
        json_array_append_new(list, out);
    }
    return list;
}

json_t *caveats_json(const struct results *results) {
    struct caveats c;
    json_t *out = json_object(), *refusals = json_array();
    caveats_count(results, &c);
    json_object_set_new(out, "late_seeds", json_integer(c.late_seeds));
    json_object_set_new(out, "late_variants", json_integer(c.late_variants));
    json_object_set_new(out, "failed", json_integer(c.failed));
    json_object_set_new(out, "blown_up", json_integer(c.blown_up));
    json_object_set_new(out, "deleted", json_integer(c.deleted));
    json_object_set_new(out, "peeks", peeks_json(results));
    for (int i = 0; i < results->refusal_count; i++) {
        json_t *refusal = json_object();
        json_object_set_new(refusal, "at", json_text(results->refusals[i].name));
        json_object_set_new(refusal, "difference", json_text(results->refusals[i].value));
        json_array_append_new(refusals, refusal);
    }
    json_object_set_new(out, "refused_changes", refusals);
    return out;
}

status run_number(const struct invocation *in, int64_t *run) { return run_number_of(in->arguments[0], run); }

status run_number_of(const char *text, int64_t *run) {
    char *end;
    errno = 0;
    *run = strtoll(text, &end, 10);
    if (*end || end == text || errno || *run < 1)
        return status_new(STATUS_USAGE, "RUN is a run's number, the first column of hinge status SUITE; not '%s'",
                          text);
    return NULL;
}
