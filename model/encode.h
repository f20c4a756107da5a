/* encode: which split a document belongs to, and the splits as tokens. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "model/documents.h"
#include "model/manifest.h"
#include "model/tokenizer.h"

/* Decided by the SHA-256 of each document's text alone: equal documents land on the same side. */
struct document_split {
    uint8_t *side;  /* (count) SPLIT_TRAIN or SPLIT_VALIDATION */
    double *chance; /* (count) in [0, 1), independent of the side: for sampling */
    size_t count[SPLITS], bytes[SPLITS];
};

/* An error when a side is empty. */
status documents_split(const struct documents *documents, double held_out, struct document_split *out);
void document_split_free(struct document_split *split);

/* Train documents of about `bytes` bytes, in their order. The texts belong to documents; free corpus->documents. */
status documents_sample(const struct documents *documents, const struct document_split *split, size_t bytes,
                        struct tokenizer_corpus *corpus, size_t *corpus_bytes);

struct encoded_split {
    uint16_t *tokens; /* BOS and the ids of each document, end to end */
    size_t count, capacity;
};

/* Encodes on all cores; the result does not depend on their number. That the bytes of each document's tokens add up to
 * its length is checked. The caller frees the tokens, also after a failure. */
status documents_encode(const struct documents *documents, const struct document_split *split,
                        const struct tokenizer *tokenizer, struct encoded_split out[SPLITS],
                        void (*progress)(void *context, const char *what, double fraction), void *context);
