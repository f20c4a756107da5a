/* scratch: folders for reports in the making, locked by their makers; see scratch.h. */
#include "harness/report/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RANDOM_CHARACTERS = 6 };

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk) {
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

void folder_remove(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* Not closed on exec: LaTeX outlives a maker that is killed, and works in the folder as long as it holds the lock. */
static int open_locked(const char *folder, int operation) {
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY);
    if (descriptor < 0 || flock(descriptor, operation) == 0) return descriptor;
    close(descriptor);
    return -1;
}

int folder_lock(const char *folder) { return open_locked(folder, LOCK_EX); }

static bool is_scratch(const char *name, const char *slug) {
    size_t length = strlen(slug);
    return name[0] == '.' && strncmp(name + 1, slug, length) == 0 && name[length + 1] == '.' &&
           strlen(name + length + 2) == RANDOM_CHARACTERS;
}

static void remove_abandoned(const char *output, const char *slug) {
    char path[4096];
    DIR *folder = opendir(output);
    if (!folder) return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!is_scratch(entry->d_name, slug)) continue;
        if (snprintf(path, sizeof path, "%s/%s", output, entry->d_name) >= (int)sizeof path) continue;
        int lock = open_locked(path, LOCK_EX | LOCK_NB);
        if (lock < 0) continue;
        folder_remove(path);
        close(lock);
    }
    closedir(folder);
}

static status make(struct scratch *scratch, const char *output, const char *slug) {
    if (snprintf(scratch->folder, sizeof scratch->folder, "%s/.%s.XXXXXX", output, slug) >= (int)sizeof scratch->folder)
        return status_new(STATUS_USAGE, "%.200s...: the path is too long", output);
    remove_abandoned(output, slug);
    if (!mkdtemp(scratch->folder)) return status_errno("%s: cannot be made", scratch->folder);
    chmod(scratch->folder, 0755);
    scratch->lock = open_locked(scratch->folder, LOCK_EX);
    return scratch->lock < 0 ? status_errno("%s: cannot be locked", scratch->folder) : NULL;
}

/* The output folder is locked meanwhile: a folder without its lock yet would look abandoned to another maker. */
status scratch_make(struct scratch *scratch, const char *output, const char *slug) {
    *scratch = (struct scratch){.lock = -1};
    int lock = folder_lock(output);
    if (lock < 0) return status_errno("%s: cannot be locked", output);
    status s = make(scratch, output, slug);
    close(lock);
    return s;
}

/* In one step where the file system can exchange two names. */
status scratch_put(const struct scratch *scratch, const char *final) {
    if (renameat2(AT_FDCWD, scratch->folder, AT_FDCWD, final, RENAME_EXCHANGE) == 0) return NULL;
    if (errno == EINVAL || errno == ENOSYS)
        folder_remove(final);
    else if (errno != ENOENT)
        return status_errno("%s: cannot be put in place", final);
    return rename(scratch->folder, final) == 0 ? NULL : status_errno("%s: cannot be put in place", final);
}

void scratch_take_back(const struct scratch *scratch, const char *final) {
    if (renameat2(AT_FDCWD, scratch->folder, AT_FDCWD, final, RENAME_EXCHANGE) != 0 && errno == ENOENT)
        rename(final, scratch->folder);
}

void scratch_end(struct scratch *scratch) {
    if (*scratch->folder && access(scratch->folder, F_OK) == 0) folder_remove(scratch->folder);
    if (scratch->lock >= 0) close(scratch->lock);
    scratch->lock = -1;
}
