/* parts: folders of a suite's parts, and merges to and from them; see parts.h. */
#include "harness/launch/parts.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/files.h"

static status too_long(const char *path) {
    return status_new(STATUS_SYSTEM, "%.200s...: the path of the parts is too long", path);
}

status absolute_path(const char *path, char out[4096]) {
    char here[4096] = "";
    if (path[0] != '/' && !getcwd(here, sizeof here)) return status_errno("the current folder cannot be found");
    int length = snprintf(out, 4096, "%s%s%s", here, *here ? "/" : "", path);
    return length < 4096 ? NULL : too_long(path);
}

/* Names of suites may hold anything, and be longer than a name of a file. */
static void name_suite(const struct suite *suite, char out[65]) {
    struct digest *digest = digest_new();
    digest_add(digest, suite->name, strlen(suite->name) + 1);
    digest_add(digest, suite->scale, strlen(suite->scale) + 1);
    digest_finish(digest, out);
}

status parts_find(struct parts *parts, const char *database, const struct plan *plan, bool mix_builds) {
    char name[65];
    *parts = (struct parts){.plan = plan, .mix_builds = mix_builds};
    TRY(absolute_path(database, parts->database));
    name_suite(plan->suite, name);
    int length = snprintf(parts->folder, sizeof parts->folder, "%s.parts/%.16s", parts->database, name);
    return length < (int)sizeof parts->folder ? NULL : too_long(parts->database);
}

status parts_file(const struct parts *parts, const char *name, char path[4096]) {
    return snprintf(path, 4096, "%s/%s", parts->folder, name) < 4096 ? NULL : too_long(parts->folder);
}

status parts_database(const struct parts *parts, int part, int of, char path[4096]) {
    int length = snprintf(path, 4096, "%s/%d-of-%d/hinge.db", parts->folder, part, of);
    return length < 4096 ? NULL : too_long(parts->folder);
}

static status merge(const struct parts *parts, struct store *store, const char *from, bool checked) {
    struct merge_report report;
    const struct merge_request request = {.from = from,
                                          .suite = parts->plan->suite->name,
                                          .scale = parts->plan->suite->scale,
                                          .mix_builds = parts->mix_builds,
                                          .checked = checked};
    TRY(store_merge(store, &request, &report));
    status s = report.refusal_count ? status_new(STATUS_DIFFERS, "%s", report.refusals[0]) : NULL;
    merge_report_free(&report);
    return s;
}

/* --- back --------------------------------------------------------------------------------------------------------- */

static int is_part(const struct dirent *entry) {
    int part, of, length = 0;
    return sscanf(entry->d_name, "%d-of-%d%n", &part, &of, &length) == 2 && !entry->d_name[length];
}

static status collect(const struct parts *parts, struct store *store, const char *name) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s/hinge.db", parts->folder, name) >= (int)sizeof path)
        return too_long(parts->folder);
    return access(path, F_OK) == 0 ? merge(parts, store, path, false) : NULL;
}

status parts_collect(const struct parts *parts, struct store *store) {
    struct dirent **entries = NULL;
    int count = scandir(parts->folder, &entries, is_part, versionsort);
    if (count < 0) return errno == ENOENT ? NULL : status_errno("%s: cannot be listed", parts->folder);
    status s = NULL;
    for (int i = 0; i < count; i++) {
        if (!s) s = collect(parts, store, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return s;
}

/* --- there -------------------------------------------------------------------------------------------------------- */

status parts_prepare(const struct parts *parts, int part, int of) {
    char path[4096];
    struct store *store;
    TRY(parts_database(parts, part, of, path));
    TRY(store_open(&store, path, STORE_WRITE));
    status s = merge(parts, store, parts->database, true);
    store_close(store);
    return s;
}
