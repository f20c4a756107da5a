/* database: opening, statements, transactions and errors of SQLite; see database.h. */
#include "harness/store/database.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BUSY_MILLISECONDS = 60000, KEPT = 64 };

struct database {
    sqlite3 *handle;
    char path[4096];
    dev_t device; /* of the file that was opened, and its number there */
    ino_t inode;
    bool immutable; /* opened where nobody can write, without its shared-memory file */
    int depth;      /* of begun transactions */
    int kept_count;
    struct {
        const char *sql; /* compared by address: statements are string constants */
        sqlite3_stmt *statement;
    } kept[KEPT];
};

static enum status_kind kind_of(int code) {
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_MISMATCH:
    case SQLITE_CONSTRAINT:
    case SQLITE_ERROR:
        return STATUS_DATA;
    default:
        return STATUS_SYSTEM;
    }
}

static bool out_of_handles(int system) { return system == EMFILE || system == ENFILE; }

static bool no_room(int system) { return system == ENOSPC || system == EDQUOT; }

/* NULL: what the system refused says no more than SQLite's own code. */
static const char *advice_of_system(int system) {
    if (out_of_handles(system)) return "; raise the limit of open files (ulimit -n), or close some";
    switch (system) {
    case ENOSPC:
        return "; make room and repeat: everything committed so far is kept";
    case EDQUOT:
        return "; make room, or have the quota raised, and repeat: everything committed so far is kept";
    case EFBIG:
        return "; raise the limit on the size of files (ulimit -f) and repeat: everything committed so far is kept";
    case EROFS:
        return "; its file system is mounted read-only: name a file elsewhere with --db";
    default:
        return NULL;
    }
}

static const char *advice_of(int code, int system) {
    if (advice_of_system(system)) return advice_of_system(system);
    switch (code & 0xff) {
    case SQLITE_NOTADB:
        return "; it is no results database: name another file";
    case SQLITE_CORRUPT:
        return "; the file is damaged: restore it, or start another with --db";
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        return "; check the permissions of the file and its folder";
    case SQLITE_IOERR:
        return "; everything committed so far is kept";
    case SQLITE_FULL:
        return "; free some space: everything committed so far is kept";
    case SQLITE_BUSY:
        return "; another process has held the database for a minute";
    default:
        return "";
    }
}

/* Why the last file that this thread's SQLite would have made could not be; 0: it could. */
static _Thread_local int creation_error;

static int noting_open(const char *path, int flags, int mode) {
    int descriptor = open(path, flags, mode);
    if (flags & O_CREAT) creation_error = descriptor < 0 ? errno : 0;
    return descriptor;
}

/* A file that it could not make SQLite opens once more for reading, and knows then only that it is not there. */
static void note_creations(void) {
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    if (vfs && vfs->iVersion >= 3) vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr)noting_open);
}

/* What the system last refused of a file that SQLite has open; 0: nothing. */
static int error_of_file(sqlite3 *handle, int which) {
    sqlite3_file *file = NULL;
    int system = 0;
    sqlite3_file_control(handle, "main", which, &file);
    if (file && file->pMethods) file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &system);
    return system;
}

/* Of a commit that fails SQLite does not note what the system said: the write-ahead log or the file itself still knows.
 */
static int system_error(sqlite3 *handle) {
    int system = sqlite3_system_errno(handle);
    if (!system) system = error_of_file(handle, SQLITE_FCNTL_JOURNAL_POINTER);
    if (!system) system = error_of_file(handle, SQLITE_FCNTL_FILE_POINTER);
    return system == ENOENT && creation_error ? creation_error : system;
}

static status failure(const struct database *db, const char *doing) {
    int code = db->handle ? sqlite3_extended_errcode(db->handle) : SQLITE_NOMEM;
    const char *text = db->handle ? sqlite3_errmsg(db->handle) : "out of memory";
    bool refused = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN;
    int system = refused && db->handle ? system_error(db->handle) : 0;
    return status_new(kind_of(code), "%s: %s: %s%s%s%s%s", db->path, doing, text, system ? " (" : "",
                      system ? strerror(system) : "", system ? ")" : "", advice_of(code, system));
}

/* --- workers ------------------------------------------------------------------------------------------------------ */

/* A number behind the state in /proc/PID/stat, by its place in proc(5); -1 when the process does not run. */
static int64_t process_field(int64_t pid, int number) {
    enum { STATE = 3 };
    char path[64], line[1024] = "";
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    bool read = fgets(line, sizeof line, file);
    fclose(file);
    const char *field = read ? strrchr(line, ')') : NULL; /* the name before it may hold spaces */
    if (field && strchr("ZX", field[2])) return -1;       /* ended, though its parent has not asked how */
    for (int i = STATE - 1; field && i < number; i++) field = strchr(field + 1, ' ');
    return field ? strtoll(field + 1, NULL, 10) : -1;
}

/* Start of a process in clock ticks since the machine's start: with the pid it names a process for good. */
int64_t process_start(int64_t pid) { return process_field(pid, 22); }
int64_t process_parent(int64_t pid) { return process_field(pid, 4); }

/* worker_alive(name, pid): does the process that called itself host:pid:start still run? */
static void worker_alive(sqlite3_context *context, int count, sqlite3_value **values) {
    (void)count;
    const char *name = (const char *)sqlite3_value_text(values[0]);
    const char *start = name ? strrchr(name, ':') : NULL;
    int64_t pid = sqlite3_value_int64(values[1]);
    sqlite3_result_int(context, start && pid > 0 && process_start(pid) == strtoll(start + 1, NULL, 10));
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

/* A path as a file: URI; only what a URI reads otherwise is escaped. */
static void make_uri(const char *path, const char *parameters, char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "file:");
    for (; *path && used + 4 < size; path++)
        used += (size_t)snprintf(out + used, size - used, strchr("%?#", *path) ? "%%%02X" : "%c", *path);
    snprintf(out + used, size - used, "%s", parameters);
}

static int open_handle(struct database *db, const char *parameters, int flags) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char uri[3 * sizeof db->path];
    pthread_once(&once, note_creations);
    make_uri(db->path, parameters, uri, sizeof uri);
    if (db->handle) sqlite3_close(db->handle);
    /* No connection is used by two threads at once, so that reading a column need not lock. */
    int code = sqlite3_open_v2(uri, &db->handle, flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(db->handle, BUSY_MILLISECONDS);
        sqlite3_create_function(db->handle, "worker_alive", 2, SQLITE_UTF8, NULL, worker_alive, NULL, NULL);
        code = sqlite3_exec(db->handle,
                            "PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; SELECT count(*) FROM sqlite_master",
                            NULL, NULL, NULL);
    }
    return code;
}

/* The write-ahead log that belongs to the opened file, when there is something in it; else "". */
static void find_log(const struct database *db, char *path, size_t size) {
    struct stat info;
    const char *name = sqlite3_db_filename(db->handle, "main");
    snprintf(path, size, "%s", name && *name ? sqlite3_filename_wal(name) : "");
    if (*path && (stat(path, &info) != 0 || info.st_size == 0)) *path = 0;
}

/* Of a file and folder that may only be read: without the shared-memory file SQLite cannot use the log, and what was
 * committed last is nowhere else. */
static status unread_log(const struct database *db, const char *log) {
    return status_new(STATUS_SYSTEM,
                      "%s: cannot be read: its newest results are in %s, which takes a folder that can be written: "
                      "make the folder writable, or copy the file with its -wal and -shm to one that is",
                      db->path, log);
}

/* Reading beside a writer needs the shared-memory file; a folder that nobody can write to has no writer either. */
static status open_reading(struct database *db) {
    char log[sizeof db->path];
    if (access(db->path, F_OK) != 0 && errno == ENOENT)
        return status_new(STATUS_DATA, "%s: no such database; `hinge run` makes it", db->path);
    int code = open_handle(db, "", SQLITE_OPEN_READONLY);
    bool may_not_write = (code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_READONLY;
    if (may_not_write && !out_of_handles(sqlite3_system_errno(db->handle))) {
        find_log(db, log, sizeof log);
        if (*log && no_room(system_error(db->handle))) return failure(db, "cannot be read");
        if (*log) return unread_log(db, log);
        code = open_handle(db, "?immutable=1", SQLITE_OPEN_READONLY);
        db->immutable = true;
    }
    return code == SQLITE_OK ? NULL : failure(db, "cannot be read");
}

static status open_writing(struct database *db) {
    if (open_handle(db, "", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) != SQLITE_OK)
        return failure(db, "cannot be opened for writing");
    if (sqlite3_db_readonly(db->handle, "main") == 1)
        return status_new(STATUS_SYSTEM, "%s: is read-only; check the permissions of the file and its folder",
                          db->path);
    return NULL;
}

static void note_file(struct database *db) {
    struct stat info;
    if (stat(db->path, &info) != 0) return; /* then database_check_file tells */
    db->device = info.st_dev;
    db->inode = info.st_ino;
}

status database_check_file(const struct database *db) {
    struct stat info;
    bool there = stat(db->path, &info) == 0;
    if (there && info.st_dev == db->device && info.st_ino == db->inode) return NULL;
    return status_new(
        STATUS_SYSTEM,
        "%s: was %s while it was in use, and nothing more can be kept in it: put it back with its -wal and "
        "-shm, or begin afresh, and repeat the command",
        db->path, there ? "replaced by another file" : "deleted or moved");
}

bool database_same_file(const struct database *a, const struct database *b) {
    return a->device == b->device && a->inode == b->inode;
}

status database_open(struct database **out, const char *path, bool write) {
    struct database *db = calloc(1, sizeof *db);
    *out = NULL;
    if (!db) return status_new(STATUS_SYSTEM, "out of memory");
    if (!*path || strcmp(path, ":memory:") == 0) { /* SQLite's names for what no other process can open */
        free(db);
        return status_new(STATUS_USAGE, "'%s' names no file; leave --db out, or give it the path of a database", path);
    }
    if (snprintf(db->path, sizeof db->path, "%s", path) >= (int)sizeof db->path) {
        free(db);
        return status_new(STATUS_USAGE, "the path of the database is too long");
    }
    status s = write ? open_writing(db) : open_reading(db);
    if (s) {
        database_close(db);
        return s;
    }
    note_file(db);
    *out = db;
    return NULL;
}

void database_close(struct database *db) {
    if (!db) return;
    for (int i = 0; i < db->kept_count; i++) sqlite3_finalize(db->kept[i].statement);
    sqlite3_close(db->handle);
    free(db);
}

const char *database_path(const struct database *db) { return db->path; }
const char *database_library_version(void) { return sqlite3_libversion(); }

/* --- statements --------------------------------------------------------------------------------------------------- */

static status prepare(struct query *q, const char *sql) {
    struct database *db = q->db;
    sqlite3_stmt *statement;
    q->kept = false;
    for (int i = 0; i < db->kept_count; i++) {
        if (db->kept[i].sql != sql || sqlite3_stmt_busy(db->kept[i].statement)) continue;
        q->statement = db->kept[i].statement;
        q->kept = true;
        return NULL;
    }
    if (sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK)
        return failure(db, "a statement was refused");
    q->statement = statement;
    if (db->kept_count == KEPT) return NULL;
    db->kept[db->kept_count].sql = sql;
    db->kept[db->kept_count++].statement = statement;
    q->kept = true;
    return NULL;
}

static status bind(struct query *q, const char *types, va_list values) {
    int code = SQLITE_OK;
    for (int i = 1; types[i - 1] && code == SQLITE_OK; i++) {
        if (types[i - 1] == 'i') code = sqlite3_bind_int64(q->statement, i, va_arg(values, int64_t));
        if (types[i - 1] == 's')
            code = sqlite3_bind_text(q->statement, i, va_arg(values, const char *), -1, SQLITE_TRANSIENT);
        if (types[i - 1] == 'd') {
            double value = va_arg(values, double);
            code = isnan(value) ? sqlite3_bind_null(q->statement, i) : sqlite3_bind_double(q->statement, i, value);
        }
    }
    return code == SQLITE_OK ? NULL : failure(q->db, "a value was refused");
}

static status open_query(struct query *q, struct database *db, const char *sql, const char *types, va_list values) {
    *q = (struct query){.db = db};
    TRY(prepare(q, sql));
    status s = bind(q, types, values);
    if (s) query_close(q);
    return s;
}

status query_open(struct query *q, struct database *db, const char *sql, const char *types, ...) {
    va_list values;
    va_start(values, types);
    status s = open_query(q, db, sql, types, values);
    va_end(values);
    return s;
}

status query_next(struct query *q, bool *row) {
    int code = sqlite3_step(q->statement);
    *row = code == SQLITE_ROW;
    if (*row) return NULL;
    status s = code == SQLITE_DONE ? NULL : failure(q->db, "a statement failed");
    query_close(q);
    return s;
}

void query_close(struct query *q) {
    if (q->statement && q->kept) {
        sqlite3_reset(q->statement);
        sqlite3_clear_bindings(q->statement);
    } else if (q->statement) {
        sqlite3_finalize(q->statement);
    }
    q->statement = NULL;
}

int64_t query_int(const struct query *q, int column) { return sqlite3_column_int64(q->statement, column); }

bool query_null(const struct query *q, int column) { return sqlite3_column_type(q->statement, column) == SQLITE_NULL; }

double query_real(const struct query *q, int column) {
    double value = sqlite3_column_double(q->statement, column);
    return value == 0 && query_null(q, column) ? (double)NAN : value;
}

void query_text(const struct query *q, int column, char *out, size_t size) {
    const char *text = (const char *)sqlite3_column_text(q->statement, column);
    snprintf(out, size, "%s", text ? text : "");
}

char *query_copy(const struct query *q, int column) {
    const char *text = (const char *)sqlite3_column_text(q->statement, column);
    return strdup(text ? text : "");
}

status query_one_int(struct database *db, int64_t *value, bool *found, const char *sql, const char *types, ...) {
    struct query q;
    bool row;
    va_list values;
    va_start(values, types);
    status s = open_query(&q, db, sql, types, values);
    va_end(values);
    TRY(s);
    TRY(query_next(&q, &row));
    if (found) *found = row;
    if (!row) return NULL;
    *value = query_int(&q, 0);
    query_close(&q);
    return NULL;
}

status database_run(struct database *db, const char *sql, const char *types, ...) {
    struct query q;
    va_list values;
    va_start(values, types);
    status s = open_query(&q, db, sql, types, values);
    va_end(values);
    for (bool row = true; !s && row;) s = query_next(&q, &row);
    return s;
}

status database_script(struct database *db, const char *sql) {
    return sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK ? NULL : failure(db, "a script failed");
}

/* While another process changes the journal mode, SQLite answers BUSY at once instead of waiting. */
status database_use_wal(struct database *db) {
    enum { PAUSE_MILLISECONDS = 20 };
    const struct timespec pause = {.tv_nsec = PAUSE_MILLISECONDS * 1000000L};
    int code = SQLITE_BUSY;
    for (int waited = 0; code == SQLITE_BUSY && waited < BUSY_MILLISECONDS; waited += PAUSE_MILLISECONDS) {
        if (waited > 0) nanosleep(&pause, NULL);
        code = sqlite3_exec(db->handle, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) & 0xff;
    }
    return code == SQLITE_OK ? NULL : failure(db, "the write-ahead log cannot be used");
}

status database_attach(struct database *db, const struct database *other, const char *name) {
    char uri[3 * sizeof db->path];
    make_uri(other->path, other->immutable ? "?mode=ro&immutable=1" : "?mode=ro", uri, sizeof uri);
    return database_run(db, "ATTACH DATABASE ? AS ?", "ss", uri, name);
}

status database_detach(struct database *db, const char *name) {
    return database_run(db, "DETACH DATABASE ?", "s", name);
}

int64_t database_last_id(const struct database *db) { return sqlite3_last_insert_rowid(db->handle); }
int64_t database_changes(const struct database *db) { return sqlite3_changes64(db->handle); }

/* --- transactions ------------------------------------------------------------------------------------------------- */

/* Inside a transaction another is a savepoint. */
status database_begin(struct database *db) {
    if (!db->depth) TRY(database_check_file(db));
    TRY(database_script(db, db->depth ? "SAVEPOINT inner" : "BEGIN IMMEDIATE"));
    db->depth++;
    return NULL;
}

status database_end(struct database *db, status s) {
    bool inner = --db->depth > 0;
    if (!s) s = database_script(db, inner ? "RELEASE inner" : "COMMIT");
    if (s) sqlite3_exec(db->handle, inner ? "ROLLBACK TO inner; RELEASE inner" : "ROLLBACK", NULL, NULL, NULL);
    return s;
}
