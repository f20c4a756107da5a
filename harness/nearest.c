/* nearest: which known word a misspelt one was probably meant to be. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "harness/cli.h"
#include "model/options.h"

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

const char *nearest_word(const char *word, const char *const *candidates, size_t count) {
    const char *best = NULL;
    size_t length = strlen(word), best_distance = length / 3 + 2;
    for (size_t i = 0; i < count; i++) {
        size_t d = edit_distance(word, candidates[i]);
        if (length >= 3 && strncasecmp(word, candidates[i], length) == 0) d = least(d, 1);
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}

const char *allowed_words(const char *word, const char *const *words, size_t count, char out[1024]) {
    size_t used = (size_t)snprintf(out, 1024, count ? "allowed: " : "there are none here");
    for (size_t i = 0; i < count && used < 900; i++)
        used += (size_t)snprintf(out + used, 1024 - used, "%s%s", i ? ", " : "", words[i]);
    const char *nearest = used < 900 ? nearest_word(word, words, count) : NULL;
    if (nearest) snprintf(out + used, 1024 - used, "; did you mean %s?", nearest);
    return out;
}
