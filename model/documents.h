/* documents: text as it is found on disk, made valid UTF-8 and cut into documents. */
#pragma once
#include <stddef.h>

#include "kernels/status.h"

struct document {
    const char *text; /* NUL-terminated valid UTF-8, not empty, without U+2581 */
    size_t length;    /* bytes */
};

struct documents {
    struct document *items;
    size_t count;
    size_t source_bytes; /* of the text before any replacement */
    char source_sha256[65];
    /* Bytes that were no valid UTF-8 (each becomes one U+FFFD), and those of U+2581, which SentencePiece cannot tell
     * from a space (three become one U+FFFD). Nothing else is changed. */
    size_t replaced_bytes;
    char **owned; /* the memory behind the items */
    size_t owned_count;
};

/* A file (plain or gzip): a document starts at each line that follows a blank line and is not indented, and ends with
 * its last line that is not blank; the blank lines between documents are dropped. A folder: each regular file in it
 * and in the folders below (plain or gzip), in the order of their names, is one document as it stands. */
status documents_read(struct documents *out, const char *path);

/* The SHA-256 and size of the text of GCIDE 0.48 as Debian's dict-gcide has it. */
extern const char gcide_sha256[65];

/* GCIDE, checked against its size and hash: one document per dictionary entry. */
status documents_read_gcide(struct documents *out);

void documents_free(struct documents *documents);
