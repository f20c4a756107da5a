/* prepare: text -> documents -> tokenizer, shards, manifest; and registration of existing shards; see data.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/data.h"
#include "model/documents.h"
#include "model/encode.h"
#include "model/files.h"
#include "model/manifest.h"
#include "model/shards.h"
#include "model/tokenizer.h"

enum { PATH = 4096 + MANIFEST_FILE_NAME };

/* Text of the train split, chosen by hash, that the tokenizer learns from: more changes little and takes longer. */
enum { TOKENIZER_SAMPLE_BYTES = 4000000 };

static const char tokenizer_file[] = "tokenizer.model", manifest_file[] = "manifest.json";

/* --- the folder, complete or not there ---------------------------------------------------------------------------- */

struct target {
    const char *root;
    char path[4096], temporary[4096]; /* ROOT/NAME, ROOT/.NAME.partial */
    int lock;                         /* on ROOT: one preparation at a time; -1: not held */
};

static status check_name(const char *name) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (*name && *name != '.' && *name != '-' && !name[strspn(name, letters)] && strlen(name) < TEXT_CAPACITY)
        return NULL;
    return status_new(STATUS_USAGE,
                      "name \"%s\": use 1 to %d letters, digits, '_', '-' or '.', first a letter or digit", name,
                      TEXT_CAPACITY - 1);
}

static status target_name(struct target *t, const char *root, const char *name) {
    *t = (struct target){.root = root, .lock = -1};
    TRY(check_name(name));
    int length = snprintf(t->temporary, sizeof t->temporary, "%s/.%s.partial", root, name);
    if (length < 0 || (size_t)length >= sizeof t->temporary)
        return status_new(STATUS_USAGE, "%s: path longer than %zu bytes", root, sizeof t->temporary);
    snprintf(t->path, sizeof t->path, "%s/%s", root, name);
    return NULL;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static void target_abandon(const struct target *t) { nftw(t->temporary, remove_entry, 8, FTW_DEPTH | FTW_PHYS); }

/* Waits for other preparations under the same root. The lock ends with the process, however that ends. */
static status target_lock(struct target *t) {
    TRY(make_directories(t->root));
    t->lock = open(t->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock < 0) return status_errno("%s: cannot be opened", t->root);
    int code;
    do code = flock(t->lock, LOCK_EX);
    while (code != 0 && errno == EINTR);
    return code == 0 ? NULL : status_errno("%s: cannot be locked", t->root);
}

static void target_unlock(struct target *t) {
    if (t->lock >= 0) close(t->lock);
    t->lock = -1;
}

/* Under the lock, so that what is there under the temporary name was left by a killed preparation. */
static status target_open(const struct target *t) {
    target_abandon(t);
    return mkdir(t->temporary, 0777) == 0 ? NULL : status_errno("%s: cannot be made", t->temporary);
}

static status target_commit(const struct target *t) {
    if (rename(t->temporary, t->path) != 0)
        return status_errno("%s: the finished folder cannot take its place", t->path);
    return fsync(t->lock) == 0 ? NULL : status_errno("%s: cannot be written to disk", t->root);
}

/* Measures the files in the temporary folder, writes the manifest and puts the folder in its place. */
static status target_finish(const struct target *t, struct manifest *m) {
    struct dataset dataset = {0};
    memcpy(dataset.directory, t->temporary, sizeof dataset.directory);
    status s = dataset_load(&dataset, m);
    dataset_close(&dataset);
    TRY(s);
    char path[PATH + sizeof manifest_file];
    snprintf(path, sizeof path, "%s/%s", t->temporary, manifest_file);
    TRY(manifest_write(m, path));
    return target_commit(t);
}

/* found: a complete dataset has this name already. */
static status find_existing(const struct target *t, struct manifest *m, bool *found) {
    char path[PATH + sizeof manifest_file];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", t->path, manifest_file);
    *found = stat(path, &info) == 0;
    if (*found) return manifest_read(m, path);
    if (stat(t->path, &info) == 0)
        return status_new(STATUS_DATA, "%s: exists but holds no %s; remove it or choose another name", t->path,
                          manifest_file);
    return NULL;
}

/* --- from text ---------------------------------------------------------------------------------------------------- */

static void report(const struct prepare_request *r, const char *what, double fraction) {
    if (r->progress) r->progress(r->context, what, fraction);
}

static status check_request(const struct prepare_request *r) {
    if (r->vocab_size < 2 || r->vocab_size > UINT16_MAX + 1)
        return status_new(STATUS_USAGE, "vocabulary of %d pieces: from 2 to 65536, the ids that 16 bits hold",
                          r->vocab_size);
    if (!(r->held_out > 0 && r->held_out < 1))
        return status_new(STATUS_USAGE, "held out share %g: above 0 and below 1", r->held_out);
    return NULL;
}

/* A dataset of that name is there: fine when it was made from the same text with the same settings. */
static status hold_request(const struct prepare_request *r, const struct target *t, const struct manifest *m,
                           const char *source_sha256) {
    if (!strcmp(m->source_sha256, source_sha256) && m->vocab_size == (size_t)r->vocab_size &&
        m->held_out == r->held_out)
        return NULL;
    return status_new(STATUS_DATA,
                      "%s: made from %s with %zu pieces and %g held out, not as asked for now; choose another name or "
                      "remove it",
                      t->path, m->source, m->vocab_size, m->held_out);
}

static status write_tokenizer(const struct prepare_request *r, const struct target *t,
                              const struct documents *documents, const struct document_split *split, struct manifest *m,
                              struct tokenizer **tokenizer) {
    char path[PATH + sizeof tokenizer_file];
    snprintf(path, sizeof path, "%s/%s", t->temporary, tokenizer_file);
    report(r, "training the tokenizer", 0);
    struct tokenizer_corpus corpus;
    TRY(documents_sample(documents, split, TOKENIZER_SAMPLE_BYTES, &corpus, &m->tokenizer_sample_bytes));
    status s = tokenizer_train(&corpus, r->vocab_size, path);
    free((void *)corpus.documents);
    TRY(s);
    memcpy(m->tokenizer.name, tokenizer_file, sizeof tokenizer_file);
    return tokenizer_load(tokenizer, path);
}

static status write_split(const struct target *t, struct manifest *m, int side, const struct encoded_split *encoded) {
    size_t shards;
    TRY(shards_write(t->temporary, m->name, split_file_names[side], encoded->tokens, encoded->count, SHARD_TOKENS,
                     &shards));
    for (size_t i = 0; i < shards; i++) {
        char name[MANIFEST_FILE_NAME];
        shard_name(name, sizeof name, m->name, split_file_names[side], i);
        TRY(manifest_add_shard(&m->splits[side], name));
    }
    return NULL;
}

static status write_shards(const struct prepare_request *r, const struct target *t, const struct documents *documents,
                           const struct document_split *split, const struct tokenizer *tokenizer, struct manifest *m) {
    struct encoded_split encoded[SPLITS];
    status s = documents_encode(documents, split, tokenizer, encoded, r->progress, r->context);
    for (int side = 0; side < SPLITS; side++) {
        if (!s) s = write_split(t, m, side, &encoded[side]);
        free(encoded[side].tokens);
    }
    return s;
}

static status prepare_split(const struct prepare_request *r, const struct target *t, const struct documents *documents,
                            const struct document_split *split, struct manifest *m) {
    struct tokenizer *tokenizer = NULL;
    status s = write_tokenizer(r, t, documents, split, m, &tokenizer);
    if (!s) s = write_shards(r, t, documents, split, tokenizer, m);
    tokenizer_free(tokenizer);
    if (!s) report(r, "writing", 1);
    return s ? s : target_finish(t, m);
}

static void describe_source(const struct prepare_request *r, const struct documents *documents, struct manifest *m) {
    snprintf(m->name, sizeof m->name, "%s", r->name);
    snprintf(m->source, sizeof m->source, "%s", r->text ? r->text : "GCIDE 0.48, Debian package dict-gcide");
    memcpy(m->source_sha256, documents->source_sha256, sizeof m->source_sha256);
    m->source_bytes = documents->source_bytes;
    m->replaced_bytes = documents->replaced_bytes;
    m->held_out = r->held_out;
}

static status prepare_documents(const struct prepare_request *r, const struct target *t,
                                const struct documents *documents) {
    struct document_split split;
    TRY(documents_split(documents, r->held_out, &split));
    struct manifest m = {0};
    describe_source(r, documents, &m);
    status s = target_open(t);
    if (!s) s = prepare_split(r, t, documents, &split, &m);
    if (s) target_abandon(t);
    manifest_free(&m);
    document_split_free(&split);
    return s;
}

static status read_documents(const struct prepare_request *r, struct documents *documents) {
    report(r, "reading the text", 0);
    return r->text ? documents_read(documents, r->text) : documents_read_gcide(documents);
}

/* GCIDE's hash is known; any other text is read and hashed. */
static status check_existing(const struct prepare_request *r, const struct target *t, const struct manifest *existing) {
    if (!r->text) return hold_request(r, t, existing, gcide_sha256);
    struct documents documents;
    TRY(read_documents(r, &documents));
    status s = hold_request(r, t, existing, documents.source_sha256);
    documents_free(&documents);
    return s;
}

static status prepare_new(const struct prepare_request *r, const struct target *t) {
    struct documents documents;
    TRY(read_documents(r, &documents));
    status s = prepare_documents(r, t, &documents);
    documents_free(&documents);
    return s;
}

/* Looks for the dataset; found: it is as the request wants it. */
static status look(const struct prepare_request *r, const struct target *t, bool *found) {
    struct manifest existing = {0};
    TRY(find_existing(t, &existing, found));
    status s = *found ? check_existing(r, t, &existing) : NULL;
    manifest_free(&existing);
    return s;
}

status dataset_prepare(const struct prepare_request *request) {
    struct target target;
    bool found;
    TRY(check_request(request));
    TRY(target_name(&target, request->root, request->name));
    TRY(look(request, &target, &found));
    if (found) return NULL;
    status s = target_lock(&target);
    if (!s) s = look(request, &target, &found); /* another process may have made it meanwhile */
    if (!s && !found) s = prepare_new(request, &target);
    target_unlock(&target);
    return s;
}

/* --- from shards -------------------------------------------------------------------------------------------------- */

static status link_shard(const struct target *t, struct manifest_split *split, const char *directory,
                         const char *name) {
    char path[PATH], real_path[4096], link[PATH + MANIFEST_FILE_NAME];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (!realpath(path, real_path)) return status_errno("%s: cannot be read", path);
    TRY(manifest_add_shard(split, name));
    snprintf(link, sizeof link, "%s/%s", t->temporary, name);
    return symlink(real_path, link) == 0 ? NULL : status_errno("%s: link cannot be made", link);
}

static status link_matching(const struct target *t, struct manifest_split *split, const char *directory,
                            struct dirent **entries, int count, const char *pattern) {
    for (int i = 0; i < count; i++)
        if (fnmatch(pattern, entries[i]->d_name, 0) == 0) TRY(link_shard(t, split, directory, entries[i]->d_name));
    return split->shard_count ? NULL : status_new(STATUS_DATA, "%s: holds no shard %s", directory, pattern);
}

/* Links the shards of both splits in the order of their names. */
static status link_shards(const struct target *t, struct manifest *m, const char *directory) {
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);
    if (count < 0) return status_errno("%s: cannot be listed", directory);
    status s = NULL;
    for (int side = 0; side < SPLITS && !s; side++) {
        char pattern[32];
        snprintf(pattern, sizeof pattern, "*_%s_*.bin", split_file_names[side]);
        s = link_matching(t, &m->splits[side], directory, entries, count, pattern);
    }
    for (int i = 0; i < count; i++) free(entries[i]);
    free(entries);
    return s;
}

static status copy_tokenizer(const struct target *t, struct manifest *m, const char *tokenizer) {
    char path[PATH + sizeof tokenizer_file];
    unsigned char *data;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", t->temporary, tokenizer_file);
    memcpy(m->tokenizer.name, tokenizer_file, sizeof tokenizer_file);
    TRY(file_read(tokenizer, &data, &size));
    status s = file_write_atomic(path, data, size);
    free(data);
    return s;
}

static status add_shards(const struct target *t, struct manifest *m, const char *directory, const char *tokenizer) {
    TRY(copy_tokenizer(t, m, tokenizer));
    TRY(link_shards(t, m, directory));
    return target_finish(t, m);
}

static status add_new(const struct target *t, const char *name, const char *shard_directory, const char *tokenizer) {
    struct manifest m = {0};
    if (!realpath(shard_directory, m.source)) return status_errno("%s: cannot be read", shard_directory);
    snprintf(m.name, sizeof m.name, "%s", name);
    status s = target_open(t);
    if (!s) s = add_shards(t, &m, shard_directory, tokenizer);
    if (s) target_abandon(t);
    manifest_free(&m);
    return s;
}

static status check_free(const struct target *t) {
    struct manifest m = {0};
    bool found;
    TRY(find_existing(t, &m, &found));
    manifest_free(&m);
    return found ? status_new(STATUS_DATA, "%s: exists already; choose another name or remove it", t->path) : NULL;
}

status dataset_add(const char *root, const char *name, const char *shard_directory, const char *tokenizer) {
    struct target target;
    TRY(target_name(&target, root, name));
    status s = target_lock(&target);
    if (!s) s = check_free(&target);
    if (!s) s = add_new(&target, name, shard_directory, tokenizer);
    target_unlock(&target);
    return s;
}
