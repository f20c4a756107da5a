/* files: whole files, written atomically, and their hashes. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/status.h"

/* Temporary file beside it, write, fsync, rename, fsync of the folder: a reader sees the old file or the new one. */
status file_write_atomic(const char *path, const void *data, size_t size);

/* The same in pieces, for what need not lie in memory at once. Until the commit nothing is seen under path. Commit and
 * abandon free the writer, also when they fail. */
struct file_writer;
status file_writer_open(struct file_writer **out, const char *path);
status file_writer_add(struct file_writer *writer, const void *data, size_t size);
status file_writer_commit(struct file_writer *writer);
void file_writer_abandon(struct file_writer *writer);

/* Puts what another path has under this one, by a further name for the same file where the file system can, else by a
 * copy: for files that are replaced, never changed. STATUS_SYSTEM with *missing (may not be NULL) set when there is
 * nothing to copy. */
status file_copy_atomic(const char *from, const char *path, bool *missing);

status file_read(const char *path, unsigned char **data, size_t *size); /* caller frees; one NUL behind the end */
status file_sha256(const char *path, char hex[65]);
void bytes_sha256(const void *data, size_t size, char hex[65]);
status make_directories(const char *path); /* as mkdir -p */

/* SHA-256 of pieces; opaque, one allocation. */
struct digest;
struct digest *digest_new(void);
void digest_add(struct digest *digest, const void *data, size_t size);
void digest_finish(struct digest *digest, char hex[65]); /* frees it */
