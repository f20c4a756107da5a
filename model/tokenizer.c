/* tokenizer: SentencePiece BPE, its settings, and its failures as status; see tokenizer.h. */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "model/files.h"

struct tokenizer {
    struct sentencepiece_model *model;
};

/* Identity normalisation and kept spaces make encoding lossless. The one space put before each document ("dummy
 * prefix") is the leading U+2581 that counts no byte after a boundary token, so that the bytes of a document's tokens
 * add up to its own. Runs of spaces (indentation) are pieces of their own; no other piece has a space inside. */
static const struct sentencepiece_option settings[] = {
    {"model_type", "bpe"},
    {"byte_fallback", "true"},
    {"unk_id", "0"},
    {"bos_id", "1"},
    {"eos_id", "2"},
    {"pad_id", "-1"},
    {"normalization_rule_name", "identity"},
    {"add_dummy_prefix", "true"},
    {"remove_extra_whitespaces", "false"},
    {"allow_whitespace_only_pieces", "true"},
    {"character_coverage", "0.9995"},
    {"required_chars", "\u2581"}, /* byte-fallback would count three bytes for a space */
    {"max_sentence_length", "1073741824"},
    {"num_threads", "1"},
    {"minloglevel", "2"},
    {NULL, NULL},
};

const struct sentencepiece_option *tokenizer_settings(void) { return settings; }

/* The library's messages open with a source position and the failed condition in brackets: the user needs neither. */
static const char *plain(const char *message) {
    const char *bracket = strstr(message, "] ");
    return bracket && bracket[2] ? bracket + 2 : message;
}

static size_t corpus_bytes(const struct tokenizer_corpus *corpus) {
    size_t bytes = 0;
    for (size_t i = 0; i < corpus->count; i++) bytes += strlen(corpus->documents[i]);
    return bytes;
}

status tokenizer_train(const struct tokenizer_corpus *corpus, int vocab_size, const char *model_path) {
    char *model = NULL;
    size_t size = 0;
    char *message = sentencepiece_train(settings, vocab_size, corpus->documents, corpus->count, &model, &size);
    if (message) {
        status s = status_new(STATUS_DATA,
                              "no tokenizer of %d pieces can be made from %zu bytes of text; give more text or another "
                              "vocabulary size (SentencePiece: %s)",
                              vocab_size, corpus_bytes(corpus), plain(message));
        free(message);
        return s;
    }
    status s = file_write_atomic(model_path, model, size);
    free(model);
    return s;
}

status tokenizer_load(struct tokenizer **out, const char *model_path) {
    unsigned char *data;
    size_t size;
    TRY(file_read(model_path, &data, &size));
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    char *message = tokenizer ? sentencepiece_load(&tokenizer->model, data, size) : strdup(SENTENCEPIECE_NO_MEMORY);
    free(data);
    if (!message) {
        *out = tokenizer;
        return NULL;
    }
    status s = !message || strcmp(message, SENTENCEPIECE_NO_MEMORY) == 0
                   ? status_new(STATUS_SYSTEM, "%s: " SENTENCEPIECE_NO_MEMORY " to load it", model_path)
                   : status_new(STATUS_DATA, "%s: no SentencePiece model (%s)", model_path, plain(message));
    free(message);
    free(tokenizer);
    return s;
}

void tokenizer_free(struct tokenizer *tokenizer) {
    if (!tokenizer) return;
    sentencepiece_free(tokenizer->model);
    free(tokenizer);
}

size_t tokenizer_vocab_size(const struct tokenizer *tokenizer) { return sentencepiece_size(tokenizer->model); }

static status failed(char *message, const char *doing) {
    if (!message) return NULL;
    status s = status_new(STATUS_SYSTEM, "SentencePiece could not %s: %s", doing, plain(message));
    free(message);
    return s;
}

status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length, int32_t **ids,
                        size_t *count, size_t *capacity) {
    return failed(sentencepiece_encode(tokenizer->model, text, length, ids, count, capacity), "encode a text");
}

status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, char **text) {
    size_t pieces = tokenizer_vocab_size(tokenizer);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= pieces)
            return status_new(STATUS_DATA, "id %d at position %zu is none of the tokenizer's %zu pieces", ids[i], i,
                              pieces);
    return failed(sentencepiece_decode(tokenizer->model, ids, count, text), "decode ids");
}

struct piece tokenizer_piece(const struct tokenizer *tokenizer, size_t id) {
    int kinds = sentencepiece_kinds(tokenizer->model, (int)id);
    return (struct piece){.text = sentencepiece_text(tokenizer->model, (int)id),
                          .control = !!(kinds & SENTENCEPIECE_CONTROL),
                          .unknown = !!(kinds & SENTENCEPIECE_UNKNOWN),
                          .unused = !!(kinds & SENTENCEPIECE_UNUSED),
                          .byte = !!(kinds & SENTENCEPIECE_BYTE)};
}
