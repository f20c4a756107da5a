/* tokenizer_sentencepiece: what the C++ library offers to tokenizer.c, in C and without its exceptions.
 *
 * A function that can fail returns NULL or a malloc'd message, which the caller frees. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sentencepiece_model;

/* The message where the machine refused memory. */
#define SENTENCEPIECE_NO_MEMORY "no memory left"

/* A flag of the trainer, by the library's own name. */
struct sentencepiece_option {
    const char *name, *value;
};

enum sentencepiece_kind {
    SENTENCEPIECE_CONTROL = 1,
    SENTENCEPIECE_UNKNOWN = 2,
    SENTENCEPIECE_UNUSED = 4,
    SENTENCEPIECE_BYTE = 8
};

/* options: ended by a NULL name. model: the serialised model, malloc'd. */
char *sentencepiece_train(const struct sentencepiece_option *options, int vocab_size, const char *const *documents,
                          size_t count, char **model, size_t *size);
char *sentencepiece_load(struct sentencepiece_model **out, const void *data, size_t size);
void sentencepiece_free(struct sentencepiece_model *model);
size_t sentencepiece_size(const struct sentencepiece_model *model);
const char *sentencepiece_text(const struct sentencepiece_model *model, int id);
int sentencepiece_kinds(const struct sentencepiece_model *model, int id); /* the or of enum sentencepiece_kind */
/* Appends to *ids, which it reallocs. */
char *sentencepiece_encode(const struct sentencepiece_model *model, const char *text, size_t length, int32_t **ids,
                           size_t *count, size_t *capacity);
char *sentencepiece_decode(const struct sentencepiece_model *model, const int32_t *ids, size_t count, char **text);

#ifdef __cplusplus
}
#endif
