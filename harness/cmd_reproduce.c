/* cmd_reproduce: trains a finished run again and names the first step that differs. */
#include <inttypes.h>
#include <stdio.h>

#include "harness/cmd_common.h"
#include "harness/device.h"
#include "harness/interrupt.h"
#include "harness/json_out.h"
#include "harness/progress_line.h"
#include "harness/runner.h"
#include "harness/store.h"
#include "harness/terminal.h"
#include "harness/verbs.h"

static bool same(const struct reproduction *r) { return r->weights_equal && r->trace_equal && r->first_different < 0; }

static status print_json(int64_t run, const struct reproduction *r) {
    json_t *object = json_object();
    json_object_set_new(object, "run", json_integer(run));
    json_object_set_new(object, "reproduced", json_boolean(same(r)));
    json_object_set_new(object, "steps", json_integer(r->steps));
    json_object_set_new(object, "first_different_step",
                        r->first_different < 0 ? json_null() : json_integer(r->first_different));
    json_object_set_new(object, "stored_loss", json_number(r->stored_loss));
    json_object_set_new(object, "loss", json_number(r->loss));
    json_object_set_new(object, "stored_weights_sha256", json_text(r->stored_weights_sha256));
    json_object_set_new(object, "weights_sha256", json_text(r->weights_sha256));
    json_object_set_new(object, "stored_trace_sha256", json_text(r->stored_trace_sha256));
    json_object_set_new(object, "trace_sha256", json_text(r->trace_sha256));
    return json_print(stdout, object);
}

static void print_text(int64_t run, const struct reproduction *r) {
    const char *plain = terminal_style(stdout, STYLE_PLAIN);
    if (r->first_different >= 0) {
        printf("run %" PRId64 " %sdiffers%s first at step %" PRId64 ": loss %.17g, stored %.17g\n", run,
               terminal_style(stdout, STYLE_BAD), plain, r->first_different, r->loss, r->stored_loss);
        return;
    }
    printf("run %" PRId64 ": %" PRId64 " steps compared, every loss equal to the last bit\n", run, r->steps);
    printf("trace    %s %s\n", r->trace_sha256, r->trace_equal ? "equal" : "DIFFERS");
    printf("weights  %s %s\n", r->weights_sha256, r->weights_equal ? "equal" : "DIFFERS");
}

/* Without --device on the backend that the run was made with, for no other can give its bits. */
static status choose_device(const struct invocation *in, struct store *store, int64_t run, const struct backend **ops) {
    struct config config;
    if (cli_given(in, "device")) return device_find(cli_text(in, "device"), ops);
    TRY(store_run_config(store, run, &config));
    return device_find(config.run_backend == BACKEND_CUDA ? "cuda" : "cpu", ops);
}

static status reproduce(const struct invocation *in, struct store *store, int64_t run, struct reproduction *result) {
    const struct backend *ops;
    TRY(choose_device(in, store, run, &ops));
    struct progress_line *line = progress_line_new(1);
    if (!line) return status_new(STATUS_SYSTEM, "out of memory");
    struct runner_callbacks callbacks = progress_line_callbacks(line);
    interrupt_install();
    status failed = runner_reproduce(store, run, cli_text(in, "data"), ops, &callbacks, result);
    progress_line_free(line);
    return failed;
}

/* The report shows what the same seed gives again. */
static void note_replicate(const struct invocation *in, int64_t run, const struct reproduction *r) {
    status s = store_record_replicate(cli_text(in, "db"), run, same(r), r->first_different);
    if (!s) return;
    fprintf(stderr, "hinge: this replicate could not be noted in the database: %s\n", status_text(s));
    status_free(s);
}

static status run(const struct invocation *in) {
    int64_t number;
    struct store *store;
    struct reproduction result = {.first_different = -1};
    TRY(run_number(in, &number));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failed = reproduce(in, store, number, &result);
    store_close(store);
    if (failed && status_kind(failed) != STATUS_DIFFERS) return failed;
    note_replicate(in, number, &result);
    status unprinted = NULL;
    if (cli_switch(in, "json"))
        unprinted = print_json(number, &result);
    else
        print_text(number, &result);
    if (!unprinted) return failed;
    status_free(failed);
    return unprinted;
}

static const struct flag_row flags[] = {
    {.name = "device",
     .type = FLAG_CHOICE,
     .value_name = DEVICE_WORDS,
     .help = "where to calculate; default: where the run was made, for nothing else gives its bits"},
    FLAG_ROW_DB,
    FLAG_ROW_DATA,
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {"hinge reproduce 3", NULL};

const struct verb verb_reproduce = {
    .name = "reproduce",
    .purpose = "train a finished run again and compare losses and weights bit for bit",
    .arguments = "RUN",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
