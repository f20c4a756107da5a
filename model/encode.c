/* encode: splitting by hash, and encoding in fixed parcels on all cores; see encode.h. */
#include "model/encode.h"

#include <stdlib.h>
#include <string.h>

#include "model/data.h"
#include "model/files.h"

/* --- splitting --------------------------------------------------------------------------------------------------- */

/* 52 bits of a hash as a number in [0, 1). */
static double chance_at(const char sha256[65], size_t place) {
    char digits[14] = {0};
    memcpy(digits, sha256 + place, 13);
    return (double)strtoull(digits, NULL, 16) * 0x1p-52;
}

static status split_allocate(struct document_split *split, size_t count) {
    *split = (struct document_split){.side = malloc(count), .chance = malloc(count * sizeof(double))};
    if (split->side && split->chance) return NULL;
    document_split_free(split);
    return status_new(STATUS_SYSTEM, "no memory left for the splits of %zu documents", count);
}

status documents_split(const struct documents *documents, double held_out, struct document_split *out) {
    TRY(split_allocate(out, documents->count));
    for (size_t i = 0; i < documents->count; i++) {
        const struct document *d = &documents->items[i];
        char sha256[65];
        bytes_sha256(d->text, d->length, sha256);
        out->side[i] = chance_at(sha256, 0) < held_out ? SPLIT_VALIDATION : SPLIT_TRAIN;
        out->chance[i] = chance_at(sha256, 32);
        out->count[out->side[i]]++;
        out->bytes[out->side[i]] += d->length;
    }
    if (out->count[SPLIT_TRAIN] && out->count[SPLIT_VALIDATION]) return NULL;
    status s = status_new(STATUS_DATA,
                          "of %zu documents %zu are for training and %zu held out, and both must have some: give more "
                          "documents (in a file each begins at an unindented line after a blank one, in a folder each "
                          "file is one), or hold out another share with --held-out",
                          documents->count, out->count[SPLIT_TRAIN], out->count[SPLIT_VALIDATION]);
    document_split_free(out);
    return s;
}

void document_split_free(struct document_split *split) {
    free(split->side);
    free(split->chance);
    *split = (struct document_split){0};
}

status documents_sample(const struct documents *documents, const struct document_split *split, size_t bytes,
                        struct tokenizer_corpus *corpus, size_t *corpus_bytes) {
    const char **texts = malloc(documents->count * sizeof *texts);
    if (!texts) return status_new(STATUS_SYSTEM, "no memory left for a sample of %zu documents", documents->count);
    *corpus = (struct tokenizer_corpus){.documents = texts};
    *corpus_bytes = 0;
    double share = (double)bytes / (double)split->bytes[SPLIT_TRAIN];
    for (size_t i = 0; i < documents->count; i++) {
        if (split->side[i] != SPLIT_TRAIN || split->chance[i] >= share) continue;
        texts[corpus->count++] = documents->items[i].text;
        *corpus_bytes += documents->items[i].length;
    }
    return NULL;
}

/* --- encoding ---------------------------------------------------------------------------------------------------- */

enum { PARCEL_DOCUMENTS = 256, ROUND_PARCELS = 64 };

/* Consecutive documents that one thread encodes. */
struct parcel {
    size_t first, end;
    int32_t *ids[SPLITS];
    size_t count[SPLITS], capacity[SPLITS];
    status failure;
};

struct encoder {
    const struct documents *documents;
    const struct document_split *split;
    const struct tokenizer *tokenizer;
    struct dataset tables; /* only its token tables */
};

static status push_bos(struct parcel *p, int side) {
    if (p->count[side] == p->capacity[side]) {
        size_t capacity = 2 * p->capacity[side] + 1024;
        int32_t *grown = realloc(p->ids[side], capacity * sizeof *grown);
        if (!grown) return status_new(STATUS_SYSTEM, "no memory left for %zu tokens", capacity);
        p->ids[side] = grown;
        p->capacity[side] = capacity;
    }
    p->ids[side][p->count[side]++] = BOS_ID;
    return NULL;
}

/* ids: BOS and what follows it. */
static status check_bytes(const struct encoder *e, size_t document, const int32_t *ids, size_t count) {
    size_t bytes = 0;
    for (size_t i = 1; i < count; i++) bytes += token_byte_count(&e->tables, (uint16_t)ids[i], (uint16_t)ids[i - 1]);
    size_t length = e->documents->items[document].length;
    if (bytes == length) return NULL;
    return status_new(STATUS_DATA, "document %zu (\"%.40s\"): %zu bytes, but its tokens stand for %zu", document,
                      e->documents->items[document].text, length, bytes);
}

static status encode_document(const struct encoder *e, struct parcel *p, size_t document) {
    int side = e->split->side[document];
    size_t start = p->count[side];
    TRY(push_bos(p, side));
    const struct document *d = &e->documents->items[document];
    TRY(tokenizer_encode(e->tokenizer, d->text, d->length, &p->ids[side], &p->count[side], &p->capacity[side]));
    return check_bytes(e, document, p->ids[side] + start, p->count[side] - start);
}

static void encode_parcel(const struct encoder *e, struct parcel *p) {
    for (int side = 0; side < SPLITS; side++) p->count[side] = 0;
    for (size_t i = p->first; i < p->end && !p->failure; i++) p->failure = encode_document(e, p, i);
}

static status append(struct encoded_split *out, const int32_t *ids, size_t count) {
    if (out->count + count > out->capacity) {
        size_t capacity = 2 * (out->count + count);
        uint16_t *grown = realloc(out->tokens, capacity * sizeof *grown);
        if (!grown) return status_new(STATUS_SYSTEM, "no memory left for %zu tokens", capacity);
        out->tokens = grown;
        out->capacity = capacity;
    }
    for (size_t i = 0; i < count; i++) out->tokens[out->count++] = (uint16_t)ids[i];
    return NULL;
}

/* The parcels' tokens in their order; the first failure wins, the others are dropped. */
static status gather(struct parcel *parcels, struct encoded_split out[SPLITS]) {
    status first = NULL;
    for (int i = 0; i < ROUND_PARCELS; i++) {
        status s = parcels[i].failure;
        parcels[i].failure = NULL;
        for (int side = 0; side < SPLITS && !s && !first; side++)
            s = append(&out[side], parcels[i].ids[side], parcels[i].count[side]);
        if (first)
            status_free(s);
        else
            first = s;
    }
    return first;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static status encode_round(const struct encoder *e, size_t first, struct parcel *parcels,
                           struct encoded_split out[SPLITS]) {
    size_t count = e->documents->count;
    for (size_t i = 0; i < ROUND_PARCELS; i++) {
        parcels[i].first = least(first + i * PARCEL_DOCUMENTS, count);
        parcels[i].end = least(first + (i + 1) * PARCEL_DOCUMENTS, count);
    }
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < ROUND_PARCELS; i++) encode_parcel(e, &parcels[i]);
    return gather(parcels, out);
}

status documents_encode(const struct documents *documents, const struct document_split *split,
                        const struct tokenizer *tokenizer, struct encoded_split out[SPLITS],
                        void (*progress)(void *context, const char *what, double fraction), void *context) {
    struct encoder encoder = {.documents = documents, .split = split, .tokenizer = tokenizer};
    struct parcel parcels[ROUND_PARCELS] = {0};
    memset(out, 0, SPLITS * sizeof *out);
    status s = dataset_token_tables(&encoder.tables, tokenizer);
    for (size_t first = 0; !s && first < documents->count; first += ROUND_PARCELS * PARCEL_DOCUMENTS) {
        if (progress) progress(context, "encoding", (double)first / (double)documents->count);
        s = encode_round(&encoder, first, parcels, out);
    }
    for (int i = 0; i < ROUND_PARCELS; i++)
        for (int side = 0; side < SPLITS; side++) free(parcels[i].ids[side]);
    dataset_close(&encoder.tables);
    return s;
}
