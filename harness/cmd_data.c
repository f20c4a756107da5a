/* cmd_data: prepared texts: make one from text, register existing shards, list what there is. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/json_out.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "harness/verbs.h"
#include "model/data.h"
#include "model/manifest.h"

static status open_manifest(const char *root, const char *name, struct manifest *manifest) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/manifest.json", root, name);
    return manifest_read(manifest, path);
}

/* --- one dataset ------------------------------------------------------------------------------------------------- */

static double unigram_bpb(const struct manifest *m) { return m->unigram_nll / log(2.0) / m->bytes_per_token; }

static json_t *split_json(const struct manifest_split *split) {
    json_t *object = json_object();
    json_object_set_new(object, "documents", json_integer((json_int_t)split->documents));
    json_object_set_new(object, "tokens", json_integer((json_int_t)split->tokens));
    json_object_set_new(object, "bytes", json_integer((json_int_t)split->bytes));
    json_object_set_new(object, "shards", json_integer((json_int_t)split->shard_count));
    return object;
}

static json_t *manifest_json(const struct manifest *m) {
    json_t *object = json_object();
    json_object_set_new(object, "name", json_text(m->name));
    json_object_set_new(object, "sha256", json_text(m->sha256));
    json_object_set_new(object, "source", json_text(m->source));
    json_object_set_new(object, "source_sha256", json_text(m->source_sha256));
    json_object_set_new(object, "source_bytes", json_integer((json_int_t)m->source_bytes));
    json_object_set_new(object, "replaced_bytes", json_integer((json_int_t)m->replaced_bytes));
    json_object_set_new(object, "vocab_size", json_integer((json_int_t)m->vocab_size));
    for (int i = 0; i < SPLITS; i++) json_object_set_new(object, split_names[i], split_json(&m->splits[i]));
    json_object_set_new(object, "unigram_bpb", json_number(unigram_bpb(m)));
    return object;
}

static void print_split(const char *name, const struct manifest_split *split) {
    char documents[UNITS_CAPACITY], tokens[UNITS_CAPACITY], bytes[UNITS_CAPACITY];
    printf("  %-12s %s documents, %s tokens, %s of text\n", name, format_count((long long)split->documents, documents),
           format_count((long long)split->tokens, tokens), format_bytes((double)split->bytes, bytes));
}

static status print_made(const char *root, const char *name) {
    struct manifest m;
    TRY(open_manifest(root, name, &m));
    printf("%s/%s\n", root, name);
    printf("  %-12s %s\n", "source", m.source);
    if (m.replaced_bytes)
        printf("  %-12s %zu bytes that were no valid UTF-8 (or U+2581) became U+FFFD\n", "replaced", m.replaced_bytes);
    for (int i = 0; i < SPLITS; i++) print_split(split_names[i], &m.splits[i]);
    printf("  %-12s %zu pieces, %.3f bytes per validation token\n", "tokenizer", m.vocab_size, m.bytes_per_token);
    printf("  %-12s %.4f bits per byte: the unigram model of these tokens\n", "reference", unigram_bpb(&m));
    printf("  %-12s %s\n", "sha256", m.sha256);
    manifest_free(&m);
    return NULL;
}

/* --- prepare ----------------------------------------------------------------------------------------------------- */

/* One line, redrawn on a terminal; nothing elsewhere: it takes seconds, and the result is printed at the end. */
static void show(void *context, const char *what, double fraction) {
    (void)context;
    fprintf(stderr, "\r\033[K%s %3.0f %%", what, 100 * fraction);
}

static status run_prepare(const struct invocation *in) {
    bool terminal = terminal_is(stderr);
    const char *root = cli_text(in, "data"), *name = cli_text(in, "name");
    struct prepare_request request = {.root = root,
                                      .name = name,
                                      .text = cli_text(in, "text"),
                                      .vocab_size = (int)cli_int(in, "vocab"),
                                      .held_out = cli_real(in, "held-out"),
                                      .progress = terminal ? show : NULL};
    if (request.text && !cli_given(in, "name"))
        return status_new(STATUS_USAGE, "--text %s: a text of your own needs a --name", request.text);
    status s = dataset_prepare(&request);
    if (terminal) fprintf(stderr, "\r\033[K");
    TRY(s);
    return print_made(root, name);
}

static const struct flag_row prepare_flags[] = {
    {.name = "text",
     .type = FLAG_TEXT,
     .value_name = "FILE|DIR",
     .help = "UTF-8 text, plain or gzip; in a file, documents start at unindented lines after a blank one, in a folder "
             "each file is one (default: GCIDE of Debian's dict-gcide)"},
    {.name = "vocab",
     .type = FLAG_INT,
     .value_name = "N",
     .initial = "1024",
     .low = 2,
     .high = 65536,
     .help = "pieces of the tokenizer"},
    {.name = "name", .type = FLAG_TEXT, .value_name = "NAME", .initial = "gcide", .help = "what data.name calls it"},
    {.name = "held-out",
     .type = FLAG_REAL,
     .value_name = "SHARE",
     .initial = "0.05",
     .low = 0.0001,
     .high = 0.9,
     .help = "share of the documents that is held out for validation, by their hash"},
    FLAG_ROW_DATA,
    FLAGS_END,
};

static const char *const prepare_examples[] = {
    "hinge data prepare",
    "hinge data prepare --text books/ --name books --vocab 2048",
    NULL,
};

const struct verb verb_data_prepare = {
    .name = "data prepare",
    .purpose = "turn text into a tokenizer, token shards and a manifest",
    .arguments = "",
    .flags = prepare_flags,
    .examples = prepare_examples,
    .run = run_prepare,
};

/* --- add --------------------------------------------------------------------------------------------------------- */

static status run_add(const struct invocation *in) {
    const char *root = cli_text(in, "data"), *name = cli_text(in, "name"), *tokenizer = cli_text(in, "tokenizer");
    if (!name) return status_new(STATUS_USAGE, "data add needs --name: what data.name is to call it");
    if (!tokenizer)
        return status_new(STATUS_USAGE, "data add needs --tokenizer: the SentencePiece model of the shards");
    TRY(dataset_add(root, name, in->arguments[0], tokenizer));
    return print_made(root, name);
}

static const struct flag_row add_flags[] = {
    {.name = "tokenizer", .type = FLAG_TEXT, .value_name = "FILE", .help = "the shards' SentencePiece model"},
    {.name = "name", .type = FLAG_TEXT, .value_name = "NAME", .help = "what data.name calls it"},
    FLAG_ROW_DATA,
    FLAGS_END,
};

static const char *const add_examples[] = {
    "hinge data add fineweb10B_sp1024 --tokenizer fineweb_1024_bpe.model --name fineweb",
    NULL,
};

const struct verb verb_data_add = {
    .name = "data add",
    .purpose = "register existing shards *_train_*.bin and *_val_*.bin with their tokenizer",
    .arguments = "DIR",
    .least = 1,
    .most = 1,
    .flags = add_flags,
    .examples = add_examples,
    .run = run_add,
};

/* --- list -------------------------------------------------------------------------------------------------------- */

static const struct table_column columns[] = {
    {"name", ALIGN_LEFT, COLUMN_WHOLE},         {"train tokens", ALIGN_RIGHT, COLUMN_WHOLE},
    {"validation", ALIGN_RIGHT, COLUMN_WHOLE},  {"vocabulary", ALIGN_RIGHT, COLUMN_WHOLE},
    {"bytes/token", ALIGN_RIGHT, COLUMN_WHOLE}, {"unigram BPB", ALIGN_RIGHT, COLUMN_WHOLE},
    {"source", ALIGN_LEFT, COLUMN_CUT},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void add_row(struct table *table, const struct manifest *m) {
    char count[UNITS_CAPACITY];
    table_cell(table, "%s", m->name);
    for (int i = 0; i < SPLITS; i++) table_cell(table, "%s", format_count((long long)m->splits[i].tokens, count));
    table_cell(table, "%zu", m->vocab_size);
    table_number(table, m->bytes_per_token, 3);
    table_number(table, unigram_bpb(m), 4);
    table_cell(table, "%s", m->source);
}

static status add_dataset(const char *root, const char *name, struct table *table, json_t *list) {
    struct manifest m;
    TRY(open_manifest(root, name, &m));
    if (list)
        json_array_append_new(list, manifest_json(&m));
    else
        add_row(table, &m);
    manifest_free(&m);
    return NULL;
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* Names in the root, sorted; a root that is not there yet has none. */
static status dataset_names(const char *root, struct dirent ***entries, int *count) {
    *entries = NULL;
    *count = scandir(root, entries, is_visible, alphasort);
    if (*count >= 0) return NULL;
    *count = 0;
    return errno == ENOENT ? NULL : status_errno("%s: cannot be listed", root);
}

static bool has_manifest(const char *root, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/manifest.json", root, name);
    return access(path, F_OK) == 0;
}

static status add_datasets(const char *root, struct dirent **entries, int count, struct table *table, json_t *list) {
    for (int i = 0; i < count; i++)
        if (has_manifest(root, entries[i]->d_name)) TRY(add_dataset(root, entries[i]->d_name, table, list));
    return NULL;
}

static status run_list(const struct invocation *in) {
    const char *root = cli_text(in, "data");
    struct dirent **entries;
    int count;
    TRY(dataset_names(root, &entries, &count));
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    struct table *table = table_new(columns, COLUMNS);
    status s = add_datasets(root, entries, count, table, list);
    if (!s && !list) table_print(table, stdout, 0);
    if (!s && list)
        s = json_print(stdout, list);
    else
        json_decref(list);
    table_free(table);
    for (int i = 0; i < count; i++) free(entries[i]);
    free(entries);
    return s;
}

static const struct flag_row list_flags[] = {FLAG_ROW_DATA, FLAG_ROW_JSON, FLAGS_END};

static const char *const list_examples[] = {"hinge data list", "hinge data list --json", NULL};

const struct verb verb_data_list = {
    .name = "data list",
    .purpose = "list the prepared texts",
    .arguments = "",
    .flags = list_flags,
    .examples = list_examples,
    .run = run_list,
};
