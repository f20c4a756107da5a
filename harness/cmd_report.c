/* cmd_report: a suite's results as a PDF, with its tables and figures beside it. */
#include <stdio.h>

#include "harness/cmd_common.h"
#include "harness/interrupt.h"
#include "harness/json_out.h"
#include "harness/report/report.h"
#include "harness/store.h"
#include "harness/terminal.h"
#include "harness/verbs.h"

static bool show_progress(void *context, const char *what, double fraction) {
    const bool *quiet = context;
    if (!*quiet && terminal_is(stderr))
        fprintf(stderr, "\r\033[K%s%s", fraction < 1.0 ? "report: " : "", fraction < 1.0 ? what : "");
    return interrupt_requested();
}

static status load(const struct invocation *in, struct results *results) {
    char name[NAME_CAPACITY];
    struct store *store;
    TRY(suite_name(in->arguments[0], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failure = store_load_results(store, name, cli_text(in, "scale"), results);
    store_close(store);
    if (!failure) note_peek(in, results);
    return failure;
}

static status print_path(const struct invocation *in, const char *pdf) {
    if (!cli_switch(in, "json")) {
        printf("%s\n", pdf);
        return NULL;
    }
    json_t *out = json_object();
    json_object_set_new(out, "suite", json_text(in->arguments[0]));
    json_object_set_new(out, "pdf", json_text(pdf));
    return json_print(stdout, out);
}

static status run(const struct invocation *in) {
    struct results results = {0};
    char pdf[4096];
    bool quiet = cli_switch(in, "json");
    interrupt_install();
    TRY(load(in, &results));
    struct report_request request = {.results = &results,
                                     .output_directory = cli_text(in, "output"),
                                     .templates = cli_text(in, "templates"),
                                     .progress = show_progress,
                                     .context = &quiet};
    status failure = report_write(&request, pdf);
    results_free(&results);
    return failure ? failure : print_path(in, pdf);
}

static const struct flag_row flags[] = {
    FLAG_ROW_SCALE,
    FLAG_ROW_DB,
    {.name = "output",
     .letter = 'o',
     .type = FLAG_TEXT,
     .value_name = "DIR",
     .initial = "reports/out",
     .help = "folder for SUITE.pdf and for SUITE/ with its tables and figures"},
    {.name = "templates",
     .type = FLAG_TEXT,
     .value_name = "DIR",
     .initial = "reports",
     .help = "folder of document.tex and the *.gp files"},
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge report demo",
    "hinge report demo --scale tiny -o /tmp/reports",
    NULL,
};

const struct verb verb_report = {
    .name = "report",
    .purpose = "make a PDF of a suite's results, with its tables and figures beside it",
    .arguments = "SUITE",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
