/* small_text: helpers of the data pipeline's tests; see small_text.h. */
#include "tests/unit/small_text.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"

static char folder[64];

int small_folder_make(void **state) {
    (void)state;
    strcpy(folder, "/tmp/hinge-data-XXXXXX");
    return mkdtemp(folder) == NULL;
}

int small_folder_remove(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

const char *small_path(const char *format, ...) {
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    int start = snprintf(path, sizeof paths[0], "%s/", folder);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path + start, sizeof paths[0] - (size_t)start, format, arguments);
    va_end(arguments);
    return path;
}

void small_write(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

int small_count_files(const char *path) {
    DIR *open = opendir(path);
    if (!open) return 0;
    int count = -2;
    while (readdir(open)) count++;
    closedir(open);
    return count;
}

void expect_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

void expect_failure(status s, ...) {
    assert_non_null(s);
    va_list words;
    va_start(words, s);
    for (const char *word; (word = va_arg(words, const char *));)
        if (!strstr(status_text(s), word)) fail_msg("no \"%s\" in: %s", word, status_text(s));
    va_end(words);
    status_free(s);
}

char *small_text(int kind, int count) {
    static const char *const syllables[] = {"lar", "go", "zy", "mo", "tic", "ent",
                                            "al",  "ri", "us", "ck", "ber", "\u00e9t"};
    enum { SYLLABLES = sizeof syllables / sizeof *syllables, WORDS = 40, DOCUMENT_BYTES = WORDS * 20 };
    struct random_stream random = random_stream((uint64_t)kind, "small text");
    char *text = malloc((size_t)count * DOCUMENT_BYTES + 1), *end = text;
    assert_non_null(text);
    uint64_t draw = 0;
    for (int document = 0; document < count; document++) {
        end += sprintf(end, "entry%d", document);
        for (int word = 0; word < WORDS; word++) {
            end += sprintf(end, "%s", random_below(random, draw++, 8) ? " " : ",\n   ");
            for (uint64_t left = 1 + random_below(random, draw++, 3); left > 0; left--)
                end += sprintf(end, "%s", syllables[random_below(random, draw++, SYLLABLES)]);
        }
        end += sprintf(end, ".\n\n");
    }
    *end = '\0';
    return text;
}
