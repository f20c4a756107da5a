/* provenance: revision, compiler, flags, machine and libraries; see provenance.h. */
#include "harness/provenance.h"

#include <cblas.h>
#include <ctype.h>
#include <gnu/libc-version.h>
#include <gsl/gsl_version.h>
#include <jansson.h>
#include <libfyaml.h>
#include <lzma.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include "harness/gpus.h"
#include "harness/plan.h"
#include "harness/store/database.h"
#include "model/files.h"

/* Given by the Makefile. */
#ifndef HINGE_REVISION
#define HINGE_REVISION "unknown"
#endif
#ifndef HINGE_FLAGS
#define HINGE_FLAGS "unknown"
#endif

#ifndef HINGE_CODE_BYTES
#define HINGE_CODE_BYTES 0
#endif

const char *provenance_revision(void) { return HINGE_REVISION; }

size_t provenance_code_bytes(void) { return HINGE_CODE_BYTES; }

void provenance_add(struct provenance *p, const char *name, const char *format, ...) {
    if (p->count == PROVENANCE_CAPACITY) return;
    struct provenance_row *row = &p->rows[p->count++];
    va_list args;
    va_start(args, format);
    snprintf(row->name, sizeof row->name, "%s", name);
    vsnprintf(row->value, sizeof row->value, format, args);
    va_end(args);
    size_t length = strlen(row->value);
    while (length && isspace((unsigned char)row->value[length - 1])) row->value[--length] = 0;
    if (!length) snprintf(row->value, sizeof row->value, "unknown");
}

/* Value of the first "key : value" line of a file; "" when there is none. */
static void find_value(const char *path, const char *key, char *out, size_t size) {
    char line[512];
    FILE *file = fopen(path, "r");
    *out = 0;
    if (!file) return;
    while (!*out && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        colon += 1 + strspn(colon + 1, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(colon, "\n"), colon);
    }
    fclose(file);
}

static void add_system(struct provenance *p) {
    char text[256];
    struct utsname system = {0};
    find_value("/proc/cpuinfo", "model name", text, sizeof text);
    provenance_add(p, "cpu", "%s", text);
    provenance_add(p, "cores", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    provenance_add(p, "memory", "%.1f GiB",
                   (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (double)((size_t)1 << 30));
    uname(&system);
    provenance_add(p, "system", "%s %s %s", system.sysname, system.release, system.machine);
    provenance_add(p, "host", "%s", system.nodename);
}

/* The devices are of one kind, or named after the first. */
static void add_gpu(struct provenance *p, const struct backend *ops) {
    enum { MOST = 16 };
    struct gpu gpus[MOST];
    int count = ops->device_memory ? gpus_list(gpus, MOST) : 0;
    if (!ops->device_memory) provenance_add(p, "gpu", "none used");
    if (ops->device_memory && count == 0) provenance_add(p, "gpu", "unknown to nvidia-smi");
    if (count == 0) return;
    provenance_add(p, "gpu", "%s", gpus[0].name);
    provenance_add(p, "gpus", "%d", count);
    provenance_add(p, "driver", "%s", gpus[0].driver);
}

static void add_libraries(struct provenance *p) {
    provenance_add(p, "openblas", "%s", openblas_get_config());
    provenance_add(p, "sqlite", "%s", database_library_version());
    provenance_add(p, "liblzma", "%s", lzma_version_string());
    provenance_add(p, "libcrypto", "%s", OpenSSL_version(OPENSSL_VERSION));
    provenance_add(p, "gsl", "%s", gsl_version);
    provenance_add(p, "libfyaml", "%s", fy_library_version());
    provenance_add(p, "jansson", "%s", jansson_version_str());
    provenance_add(p, "zlib", "%s", zlibVersion());
    provenance_add(p, "glibc", "%s", gnu_get_libc_version());
}

/* Two builds of one revision may differ: the file itself tells them apart. */
static void add_program(struct provenance *p) {
    char sha256[65];
    status s = file_sha256("/proc/self/exe", sha256);
    if (!s) provenance_add(p, "program", "%.16s", sha256);
    status_free(s);
}

void provenance_collect(struct provenance *provenance, const struct backend *ops) {
    *provenance = (struct provenance){0};
    provenance_add(provenance, "revision", "%s", HINGE_REVISION);
    add_program(provenance);
    provenance_add(provenance, "numerics", "%d", NUMERICS_REVISION);
    provenance_add(provenance, "compiler", "%s %s",
#ifdef __clang__
                   "clang",
#else
                   "gcc",
#endif
                   __VERSION__);
    provenance_add(provenance, "flags", "%s", HINGE_FLAGS);
    provenance_add(provenance, "precision", "%s", sizeof(real) == 4 ? "float32" : "float64");
    provenance_add(provenance, "backend", "%s", ops->name);
    provenance_add(provenance, "threads", "%d", ops->lane_count());
    add_system(provenance);
    add_gpu(provenance, ops);
    if (ops->libraries) provenance_add(provenance, "cuda", "%s", ops->libraries());
    add_libraries(provenance);
}

const char *provenance_find(const struct provenance *provenance, const char *name) {
    for (int i = 0; i < provenance->count; i++)
        if (strcmp(provenance->rows[i].name, name) == 0) return provenance->rows[i].value;
    return NULL;
}

/* --- comparison --------------------------------------------------------------------------------------------------- */

/* In the order in which they explain best. A revision alone changes nothing: equal files give equal bits. */
static const char *const deciding[] = {"precision", "compiler", "flags", "openblas",
                                       "glibc",     "liblzma",  "cuda",  "program"};

static bool row_differs(const struct provenance *before, const struct provenance *now, const char *name, char *what,
                        size_t size) {
    const char *was = provenance_find(before, name), *is = provenance_find(now, name);
    if (!was || !is || strcmp(was, is) == 0) return false;
    snprintf(what, size, "%s was %s and is %s", name, was, is);
    return true;
}

bool provenance_differs(const struct provenance *before, const struct provenance *now, bool machine, char *what,
                        size_t size) {
    char row[sizeof before->rows[0].name + 2 * sizeof before->rows[0].value];
    bool differs = machine && (row_differs(before, now, "cpu", row, sizeof row) ||
                               row_differs(before, now, "gpu", row, sizeof row));
    for (size_t i = 0; i < sizeof deciding / sizeof *deciding && !differs; i++)
        differs = row_differs(before, now, deciding[i], row, sizeof row);
    if (differs && !row_differs(before, now, "revision", what, size)) snprintf(what, size, "%s", row);
    return differs;
}
