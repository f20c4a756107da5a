/* tokenizer: SentencePiece BPE. Encoding is lossless for valid UTF-8 without NUL and U+2581 (the library's own mark for
 * a space): decode(encode(text)) is the text, newlines, indentation and rare characters included. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"
#include "model/tokenizer_sentencepiece.h"

struct tokenizer;

struct tokenizer_corpus {
    const char *const *documents; /* UTF-8, NUL-terminated */
    size_t count;
};

/* BPE with byte fallback, ids: unk 0, bos 1, eos 2; deterministic: one thread, all of the corpus in its order. */
status tokenizer_train(const struct tokenizer_corpus *corpus, int vocab_size, const char *model_path);
/* The trainer's flags, as the manifest records them; ended by a NULL name. */
const struct sentencepiece_option *tokenizer_settings(void);
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
