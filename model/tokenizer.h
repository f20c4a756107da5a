/* tokenizer: SentencePiece BPE behind a C interface; the only header that tokenizer_sentencepiece.cc serves. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

struct tokenizer;

struct tokenizer_corpus {
    const char *const *documents; /* UTF-8, NUL-terminated */
    size_t count;
};

/* BPE with byte fallback, ids: unk 0, bos 1, eos 2; deterministic: one thread, a fixed sample of the corpus. */
status tokenizer_train(const struct tokenizer_corpus *corpus, int vocab_size, const char *model_path);
status tokenizer_load(struct tokenizer **out, const char *model_path);
void tokenizer_free(struct tokenizer *tokenizer);
size_t tokenizer_vocab_size(const struct tokenizer *tokenizer);

/* Appends the ids of a text to *ids (realloc'd; *count, *capacity kept by the caller). */
status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length, int32_t **ids,
                        size_t *count, size_t *capacity);
/* UTF-8 of the ids; caller frees. */
status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, char **text);

struct piece {
    const char *text; /* valid while the tokenizer lives */
    int control, unknown, unused, byte;
};
struct piece tokenizer_piece(const struct tokenizer *tokenizer, size_t id);
