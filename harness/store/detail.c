/* detail: loss traces and evaluation blocks of a suite's runs, read by several threads, each with its own connection.
 */
#include <pthread.h>
#include <stdlib.h>

#include "harness/store/internal.h"

enum { MOST_READERS = 4, RUNS_OF_A_READER = 64 };

static status load_trace(struct store *store, struct result_run *run) {
    return store_steps(store, run->train_key, &run->trace, &run->step_count);
}

static status load_blocks(struct store *store, struct result_evaluation *e) {
    struct query q;
    if (!e->present) return NULL;
    TRY(query_open(&q, store->db,
                   "SELECT b.block, b.nll, b.bytes, b.tokens FROM evaluation_blocks b JOIN stages s ON s.id = b.stage "
                   "WHERE s.key = ?",
                   "s", e->stage_key));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        int64_t block = row ? query_int(&q, 0) : -1;
        if (block >= 0 && block < EVALUATION_BLOCKS)
            e->value.blocks[block] = (struct evaluation_block){query_real(&q, 1), query_int(&q, 2), query_int(&q, 3)};
    }
    return NULL;
}

static status load_runs(struct store *store, struct result_run *runs, int count) {
    for (int i = 0; i < count; i++) {
        if (!*runs[i].train_key) continue; /* deleted */
        TRY(load_trace(store, &runs[i]));
        TRY(load_blocks(store, &runs[i].raw));
        TRY(load_blocks(store, &runs[i].averaged));
        TRY(load_blocks(store, &runs[i].artifact));
    }
    return NULL;
}

/* One reader's part of the runs. */
struct reader {
    pthread_t thread;
    bool started;
    const char *path;
    struct result_run *runs;
    int count;
    status result;
};

static status read_part(const struct reader *reader) {
    struct store *store;
    TRY(store_open(&store, reader->path, STORE_READ));
    status s = load_runs(store, reader->runs, reader->count);
    store_close(store);
    return s;
}

static void *reader_main(void *argument) {
    struct reader *reader = argument;
    reader->result = read_part(reader);
    return NULL;
}

/* A reader that cannot be started does its part here. */
static void start(struct reader *reader) {
    reader->started = pthread_create(&reader->thread, NULL, reader_main, reader) == 0;
    if (!reader->started) reader_main(reader);
}

static status join(struct reader *reader, status failure) {
    if (reader->started) pthread_join(reader->thread, NULL);
    if (!failure) return reader->result;
    if (reader->result) status_free(reader->result);
    return failure;
}

status store_load_detail(struct store *store, struct results *results) {
    struct reader readers[MOST_READERS];
    int runs = results->run_count, count = runs / RUNS_OF_A_READER;
    if (count < 2) return load_runs(store, results->runs, runs);
    if (count > MOST_READERS) count = MOST_READERS;
    for (int i = 0; i < count; i++) {
        int first = (int)((int64_t)runs * i / count), end = (int)((int64_t)runs * (i + 1) / count);
        readers[i] = (struct reader){.path = store_path(store), .runs = results->runs + first, .count = end - first};
        start(&readers[i]);
    }
    status failure = NULL;
    for (int i = 0; i < count; i++) failure = join(&readers[i], failure);
    return failure;
}
