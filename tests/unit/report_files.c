/* report_files: the scratch folder of a test, and what lies in it; see report_files.h. */
#include "tests/unit/report_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness/process.h"

char scratch[64];

int make_scratch(void **state) {
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/hinge-report-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

int remove_scratch(void **state) {
    (void)state;
    const char *const argv[] = {"rm", "-rf", scratch, NULL};
    char *output;
    int code;
    status failure = program_output(argv, &output, &code);
    free(output);
    return failure || code;
}

const char *in_scratch(const char *name) {
    static char path[4][256];
    static int next;
    char *made = path[next++ % 4];
    snprintf(made, sizeof path[0], "%s/%s", scratch, name);
    return made;
}

bool exists(const char *path) { return access(path, F_OK) == 0; }

char *contents(const char *path) {
    const char *const argv[] = {"cat", path, NULL};
    char *output;
    int code;
    assert_null(program_output(argv, &output, &code));
    return output;
}

void assert_holds(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("'%s' is not in:\n%.3000s", part, text);
}
