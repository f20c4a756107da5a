/* small_text: helpers of the data pipeline's tests; see small_text.h. */
#include "tests/unit/small_text.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"

static char folder[64];

int small_folder_make(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hinge-data-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    return remove(path);
}

int small_remove(const char *path) { return nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS); }

int small_folder_remove(void **state) {
    (void)state;
    return small_remove(folder);
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

static uint64_t word(FILE *out, struct random_stream random, uint64_t draw) {
    static const char *const syllables[] = {"lar", "go", "zy", "mo", "tic", "ent",
                                            "al",  "ri", "us", "ck", "ber", "\u00e9t"};
    fputs(random_below(random, draw++, 8) ? " " : ",\n   ", out);
    for (uint64_t left = 1 + random_below(random, draw++, 3); left > 0; left--)
        fputs(syllables[random_below(random, draw++, sizeof syllables / sizeof *syllables)], out);
    return draw;
}

char *small_text(int kind, int count) {
    struct random_stream random = random_stream((uint64_t)kind, "small text");
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    uint64_t draw = 0;
    for (int document = 0; document < count; document++) {
        fprintf(out, "entry%d", document);
        for (int i = 0; i < 40; i++) draw = word(out, random, draw);
        fputs(".\n\n", out);
    }
    fclose(out);
    return text;
}
