/* documents: reading, cleaning and cutting of text; see documents.h. */
#include "model/documents.h"

#include <errno.h>
#include <fts.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "model/files.h"

static const char gcide_path[] = "/usr/share/dictd/gcide.dict.dz";
static const size_t gcide_bytes = 39952321;
const char gcide_sha256[65] = "802beb667e1fb666203e750f1faea60d5c202ac5430c2083c4180494609f10a7";

struct text {
    char *bytes; /* one NUL behind the end */
    size_t size;
};

static status no_memory(const char *path) { return status_new(STATUS_SYSTEM, "%s: no memory left for its text", path); }

/* --- reading ----------------------------------------------------------------------------------------------------- */

static status read_stream(gzFile file, const char *path, struct text *text) {
    size_t capacity = 1 << 16;
    text->bytes = malloc(capacity);
    while (text->bytes) {
        int got = gzread(file, text->bytes + text->size,
                         (unsigned)(capacity - text->size - 1 > 1 << 24 ? 1 << 24 : capacity - text->size - 1));
        if (got < 0) {
            int code;
            return status_new(STATUS_DATA, "%s: damaged after %zu bytes of text: %s", path, text->size,
                              gzerror(file, &code));
        }
        if (got == 0) {
            text->bytes[text->size] = '\0';
            return NULL;
        }
        text->size += (size_t)got;
        if (text->size + 1 < capacity) continue;
        capacity *= 2;
        char *grown = realloc(text->bytes, capacity);
        if (!grown) break;
        text->bytes = grown;
    }
    return no_memory(path);
}

/* The text of a plain or gzip file; freed by the caller, also after a failure. */
static status read_text(const char *path, struct text *text) {
    *text = (struct text){0};
    gzFile file = gzopen(path, "rb");
    if (!file) return status_errno("%s: cannot be read", path);
    errno = 0;
    status s = read_stream(file, path, text);
    int closed = gzclose(file);
    if (!s && closed == Z_BUF_ERROR)
        s = status_new(STATUS_DATA, "%s: the gzip file ends too early, after %zu bytes of text", path, text->size);
    if (!s && closed != Z_OK) s = status_new(STATUS_DATA, "%s: could not be read to its end", path);
    return s;
}

/* --- cleaning ---------------------------------------------------------------------------------------------------- */

/* Length of the valid UTF-8 sequence at p (RFC 3629: no overlong forms, surrogates, or code points over 10FFFF), or 0.
 */
static size_t sequence_length(const unsigned char *p, size_t left) {
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (length > left) return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0;
    if (p[0] == 0xed && p[1] > 0x9f) return 0;
    if (p[0] == 0xf0 && p[1] < 0x90) return 0;
    if (p[0] == 0xf4 && p[1] > 0x8f) return 0;
    return length;
}

static bool is_space_mark(const unsigned char *p, size_t length) { return length == 3 && !memcmp(p, "\u2581", 3); }

/* Bytes at p that have to be replaced by one U+FFFD; 0 when *length bytes may stay. */
static size_t bytes_to_replace(const unsigned char *p, size_t left, size_t *length) {
    *length = sequence_length(p, left);
    if (*length == 0) return 1;
    return is_space_mark(p, *length) ? 3 : 0;
}

static size_t count_replaced(const struct text *text, size_t *places) {
    size_t replaced = 0;
    *places = 0;
    for (size_t i = 0, length; i < text->size;) {
        size_t bad = bytes_to_replace((const unsigned char *)text->bytes + i, text->size - i, &length);
        *places += bad > 0;
        replaced += bad;
        i += bad ? bad : length;
    }
    return replaced;
}

static size_t replace_into(char *out, const struct text *text) {
    size_t size = 0;
    for (size_t i = 0, length; i < text->size;) {
        size_t bad = bytes_to_replace((const unsigned char *)text->bytes + i, text->size - i, &length);
        memcpy(out + size, bad ? "\uFFFD" : text->bytes + i, bad ? 3 : length);
        size += bad ? 3 : length;
        i += bad ? bad : length;
    }
    out[size] = '\0';
    return size;
}

/* Puts valid UTF-8 in the place of the text and adds what was replaced. */
static status clean(struct text *text, const char *path, size_t *replaced) {
    const char *nul = memchr(text->bytes, '\0', text->size);
    if (nul)
        return status_new(STATUS_DATA, "%s: byte %zu is NUL, which no text has; give UTF-8 text", path,
                          (size_t)(nul - text->bytes));
    size_t places, bad = count_replaced(text, &places);
    if (bad == 0) return NULL;
    char *out = malloc(text->size - bad + 3 * places + 1);
    if (!out) return no_memory(path);
    size_t size = replace_into(out, text);
    free(text->bytes);
    *text = (struct text){out, size};
    *replaced += bad;
    return NULL;
}

/* --- cutting ----------------------------------------------------------------------------------------------------- */

/* The array doubles at each power of two. */
static status push(void **items, size_t count, size_t item_size, const char *path) {
    if (count & (count - 1)) return NULL;
    void *grown = realloc(*items, (count ? 2 * count : 1) * item_size);
    if (!grown) return no_memory(path);
    *items = grown;
    return NULL;
}

static status add_document(struct documents *d, const char *start, const char *end, const char *path) {
    TRY(push((void **)&d->items, d->count, sizeof *d->items, path));
    d->items[d->count++] = (struct document){start, (size_t)(end - start)};
    return NULL;
}

static bool is_blank(const char *line, const char *end) {
    for (; line < end; line++)
        if (!strchr(" \t\r\n", *line)) return false;
    return true;
}

/* The byte behind a document belongs to a blank line or is the end: it becomes the terminating NUL. */
static status cut(struct documents *d, const struct text *text, const char *path) {
    char *start = NULL, *end = NULL, *stop = text->bytes + text->size;
    bool after_blank = true;
    for (char *line = text->bytes, *next; line < stop; line = next) {
        char *newline = memchr(line, '\n', (size_t)(stop - line));
        next = newline ? newline + 1 : stop;
        if (is_blank(line, next)) {
            after_blank = true;
            continue;
        }
        if (!start || (after_blank && *line != ' ' && *line != '\t')) {
            if (start) TRY(add_document(d, start, end, path));
            if (end) *end = '\0';
            start = line;
        }
        end = next;
        after_blank = false;
    }
    if (!start) return NULL;
    *end = '\0';
    return add_document(d, start, end, path);
}

/* --- sources ----------------------------------------------------------------------------------------------------- */

/* Reads and cleans one file; its memory is owned by d from then on. */
static status take_file(struct documents *d, const char *path, struct digest *digest, struct text *text) {
    status s = read_text(path, text);
    if (!s) {
        d->source_bytes += text->size;
        digest_add(digest, text->bytes, text->size);
        s = clean(text, path, &d->replaced_bytes);
    }
    if (!s) s = push((void **)&d->owned, d->owned_count, sizeof *d->owned, path);
    if (s)
        free(text->bytes);
    else
        d->owned[d->owned_count++] = text->bytes;
    return s;
}

static status read_one(struct documents *d, const char *path, struct digest *digest) {
    struct text text;
    TRY(take_file(d, path, digest, &text));
    return cut(d, &text, path);
}

static int by_name(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

static status read_entry(struct documents *d, const FTSENT *entry, struct digest *digest) {
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS) {
        errno = entry->fts_errno;
        return status_errno("%s: cannot be read", entry->fts_path);
    }
    if (entry->fts_info != FTS_F || entry->fts_statp->st_size == 0) return NULL;
    struct text text;
    TRY(take_file(d, entry->fts_path, digest, &text));
    digest_add(digest, "", 1); /* no text holds NUL: the hash tells where files end */
    return text.size ? add_document(d, text.bytes, text.bytes + text.size, entry->fts_path) : NULL;
}

static status read_folder(struct documents *d, const char *path, struct digest *digest) {
    FTS *tree = fts_open((char *[]){(char *)path, NULL}, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    if (!tree) return status_errno("%s: cannot be read", path);
    status s = NULL;
    for (FTSENT *entry; !s && (entry = fts_read(tree));) s = read_entry(d, entry, digest);
    fts_close(tree);
    return s;
}

status documents_read(struct documents *out, const char *path) {
    *out = (struct documents){0};
    struct stat info;
    if (stat(path, &info) != 0) return status_errno("%s: cannot be read", path);
    struct digest *digest = digest_new();
    status s = S_ISDIR(info.st_mode) ? read_folder(out, path, digest) : read_one(out, path, digest);
    digest_finish(digest, out->source_sha256);
    if (!s && out->count == 0) s = status_new(STATUS_DATA, "%s: holds no text", path);
    if (s) documents_free(out);
    return s;
}

status documents_read_gcide(struct documents *out) {
    *out = (struct documents){0};
    if (access(gcide_path, F_OK) != 0)
        return status_new(STATUS_SYSTEM, "%s: missing; install Debian's package dict-gcide, or give a text of your own",
                          gcide_path);
    TRY(documents_read(out, gcide_path));
    if (out->source_bytes == gcide_bytes && !strcmp(out->source_sha256, gcide_sha256)) return NULL;
    status s = status_new(STATUS_DATA,
                          "%s: %zu bytes of text with SHA-256 %s, expected %zu bytes with %s: another version of "
                          "dict-gcide; to use it as it is, name it as the text",
                          gcide_path, out->source_bytes, out->source_sha256, gcide_bytes, gcide_sha256);
    documents_free(out);
    return s;
}

void documents_free(struct documents *documents) {
    for (size_t i = 0; i < documents->owned_count; i++) free(documents->owned[i]);
    free(documents->owned);
    free(documents->items);
    *documents = (struct documents){0};
}
