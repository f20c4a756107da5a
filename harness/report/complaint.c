/* complaint: the last words of a program that failed, and a look at disk and limits; see complaint.h. */
#include "harness/report/complaint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ROOM = 1 << 20, FEW_FILES = 32 }; /* less than a report takes; a little more than LaTeX opens at once */

static bool says_anything(const char *line) { return line[strspn(line, " \t\r\n^")] != '\0'; }

void complaint_last(const char *log, const char *program, char *line, size_t size) {
    char read[4096], opening[64];
    bool named = false;
    FILE *file = fopen(log, "rb");
    *line = '\0';
    snprintf(opening, sizeof opening, "%s: ", program);
    while (file && fgets(read, sizeof read, file)) {
        const char *message = strstr(read, opening);
        if (!message && (named || !says_anything(read))) continue;
        named |= message != NULL;
        snprintf(line, size, "%s", message ? message : read);
        line[strcspn(line, "\r\n")] = '\0';
    }
    if (file) fclose(file);
}

status complaint_no_room(const char *folder) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/room", folder) >= (int)sizeof path) return NULL;
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); /* under a quota even an empty file may be too much */
    if (file >= 0) errno = posix_fallocate(file, 0, ROOM);
    bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    status failure = full ? status_errno("no room in %s", folder) : NULL;
    if (file < 0) return failure;
    close(file);
    unlink(path);
    return failure;
}

/* Programs that run out of file handles may only say that a file cannot be found. */
static status few_files(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= FEW_FILES) return NULL;
    return status_new(STATUS_SYSTEM, "no more than %d files may be open at once (ulimit -n)", (int)files.rlim_cur);
}

status complaint(const char *who, int code, const char *line, const char *folder) {
    status machine = complaint_no_room(folder);
    if (!machine) machine = few_files();
    status failure = status_new(STATUS_SYSTEM, "%s failed with status %d%s%s%s%s", who, code, *line ? ": " : "", line,
                                machine ? "; " : "", machine ? status_text(machine) : "");
    if (machine) status_free(machine);
    return failure;
}
