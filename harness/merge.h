/* merge: folds the results of another database into a store: what a suite's parts did elsewhere becomes one whole.
 *
 * A stage is the same in both when its key is: what is done there and not here is taken, with its files, its steps and
 * figures and what made it; what is done in both must have the same hashes. Suites, variants, seeds and runs that are
 * not here are added, to a suite that is here as late ones. What is unfinished there stays there. */
#pragma once
#include "harness/store.h"

struct merge_request {
    const char *from;  /* path of the other database */
    const char *suite; /* this suite alone, at this scale; NULL: all that it has */
    const char *scale;
    bool mix_builds; /* also stages that another build made than those which the suite has here */
    bool dry_run;    /* count, change nothing */
    bool checked;    /* the file was looked through before */
};

/* Of the other database's runs, each once. */
enum merged {
    MERGED_NEW,        /* complete there, and taken */
    MERGED_COMPLETED,  /* known here, not complete; taken from there */
    MERGED_HERE,       /* complete here */
    MERGED_UNFINISHED, /* neither here nor there */
    MERGED_FAILED,     /* failed there, not complete here */
    MERGED_BUSY,       /* complete there, but a worker is at it here */
    MERGED_REFUSED,
    MERGED_KINDS
};
const char *merged_name(enum merged kind); /* "new", "completed", "already here", ... */

struct merge_report {
    int runs[MERGED_KINDS];
    int stages;        /* taken */
    int files_missing; /* that these should have left: they are made again when something needs them */
    int refusal_count;
    char **refusals; /* a line for each suite or run that was refused: both files, and what differs */
};
void merge_report_free(struct merge_report *report); /* a zeroed one, too */

/* One transaction: a reader or a kill sees all of a file or nothing, and repeating it changes nothing. STATUS_DATA for
 * a file that is damaged, foreign or of another version, of which nothing is taken; report is then empty. What is
 * refused within a good file is in the report, and everything else is taken. */
status store_merge(struct store *store, const struct merge_request *request, struct merge_report *report);
