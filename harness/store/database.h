/* database: SQLite in the few shapes that the store needs; database.c alone includes sqlite3.h.
 *
 * Arguments of a statement are given by a text of types, one letter each: i int64_t, d double (NAN is stored as NULL),
 * s const char * (NULL is stored as NULL). Statements are prepared once and kept. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

struct database;

/* Opens an existing file for reading, or makes it and its folder for writing. Nothing is written but by statements. */
status database_open(struct database **out, const char *path, bool write);
void database_close(struct database *db);

/* Makes the tables of a database that was opened for reading readable in db as NAME.TABLE; name is an SQL name, and not
 * the user's. Not inside a transaction. */
status database_attach(struct database *db, const struct database *other, const char *name);
status database_detach(struct database *db, const char *name);
const char *database_path(const struct database *db);
const char *database_library_version(void); /* of SQLite */

/* Whether both have the same file open, by whatever paths. */
bool database_same_file(const struct database *a, const struct database *b);
/* STATUS_SYSTEM when the path does not lead to the opened file any more: what is written then, nobody finds. */
status database_check_file(const struct database *db);

status database_script(struct database *db, const char *sql); /* several statements */
status database_use_wal(struct database *db);                 /* waits for others as every statement does */
status database_run(struct database *db, const char *sql, const char *types, ...); /* one, rows are ignored */
int64_t database_last_id(const struct database *db);
int64_t database_changes(const struct database *db); /* rows changed by the last statement */

/* A write transaction: begin checks the file and waits for its turn; end commits when s is NULL, else rolls back, and
 * returns s. Inside a transaction a further one commits with it, and rolls back alone. */
status database_begin(struct database *db);
status database_end(struct database *db, status s);

/* Start of a process in clock ticks since the machine's start; -1 when it does not run. Statements may use
 * worker_alive(name, pid), which holds it against the end of a worker's name. */
int64_t process_start(int64_t pid);
int64_t process_parent(int64_t pid); /* -1 when it does not run */

struct query {
    struct database *db;
    void *statement;
    bool kept; /* belongs to the database's cache */
};

status query_open(struct query *q, struct database *db, const char *sql, const char *types, ...);
status query_next(struct query *q, bool *row); /* closes the query when there is no further row, or on failure */
void query_close(struct query *q);             /* before the last row; harmless twice */
int64_t query_int(const struct query *q, int column);
double query_real(const struct query *q, int column); /* NULL gives NAN */
bool query_null(const struct query *q, int column);
void query_text(const struct query *q, int column, char *out, size_t size); /* NULL gives ""; cut to size */
char *query_copy(const struct query *q, int column);                        /* on the heap; NULL: no memory */

/* One value of the first row; *found (may be NULL) says whether there was a row. */
status query_one_int(struct database *db, int64_t *value, bool *found, const char *sql, const char *types, ...);
