/* prepared: puts a suite's parts together for plan and run. */
#include "harness/prepared.h"

#include <stdio.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/device.h"
#include "harness/results.h"
#include "harness/simulated.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "kernels/comm/comm.h"
#include "model/network_shapes.h"
#include "model/trainer.h"

static void look_at_device(struct prepared *p) {
    if (!p->plan.ops->device_memory) return;
    status s = device_probe(p->plan.ops, &p->room);
    if (s) snprintf(p->device_problem, sizeof p->device_problem, "%s", status_text(s));
    status_free(s);
}

/* What to lower, so that each job finds its training in so many bytes. */
static void advise_on_memory(const struct prepared *p, size_t bytes, int together, char out[128]) {
    const struct config *c = &p->suite.config;
    int64_t now = slice_tokens_of(c, p->plan.ops->device_memory), shard = c->train_batch_tokens / 8;
    size_t slice = SIZE_MAX;
    for (int v = 0; v < p->suite.variant_count; v++) {
        size_t fitting = trainer_slice_within(&p->suite.variants[v].config, p->plan.ops, bytes);
        if (fitting < slice) slice = fitting;
    }
    if (slice > 0 && (int64_t)slice < (now < shard ? now : shard))
        snprintf(out, 128, "--set train.slice_tokens=%zu makes a training fit", slice);
    else
        snprintf(out, 128, "a smaller model.dim or train.batch_tokens%s takes less",
                 together > 1 ? ", or fewer --jobs," : "");
}

status prepared_check_device(const struct prepared *p) {
    int jobs = p->estimate.jobs;
    char advice[128], needs[UNITS_CAPACITY], available[UNITS_CAPACITY];
    if (!p->plan.ops->device_memory) return NULL;
    if (*p->device_problem) return status_new(STATUS_SYSTEM, "%s", p->device_problem);
    int together = (jobs + p->room.devices - 1) / p->room.devices; /* on one device */
    size_t bytes = (size_t)together * p->estimate.memory.device;
    if (bytes <= p->room.bytes_free) return NULL;
    advise_on_memory(p, p->room.bytes_free / (size_t)together, together, advice);
    return status_new(STATUS_SYSTEM, "%d job%s on a device %s %s of its memory, of which %s are free; %s", together,
                      together == 1 ? "" : "s", together == 1 ? "needs" : "need", format_bytes((double)bytes, needs),
                      format_bytes((double)p->room.bytes_free, available), advice);
}

/* A suite that was declared stays where it was, unless another device is asked for. */
static status choose_device(const struct invocation *in, struct prepared *p, const struct backend **ops) {
    const char *word = cli_text(in, "device");
    char declared[32] = "";
    if (p->store && strcmp(word, "auto") == 0)
        TRY(store_declared_backend(p->store, p->suite.name, p->suite.scale, declared));
    bool stays = strcmp(declared, "cpu") == 0 || strcmp(declared, "cuda") == 0;
    return device_for_suite(&p->suite, stays ? declared : word, ops);
}

/* A changed suite that is run is refused, and the attempt is noted, for which the store must be open for writing; one
 * that is only planned leaves no trace. */
static status check_declaration(const struct invocation *in, const struct prepared *p) {
    status refused = store_check_declaration(p->store, &p->plan, &p->datasets);
    if (!refused || strcmp(in->verb->name, "plan") == 0) return refused;
    struct store *store;
    status noted = store_open(&store, cli_text(in, "db"), STORE_WRITE);
    if (!noted) {
        noted = store_declare(store, &p->plan, &p->datasets);
        store_close(store);
    }
    if (noted) status_free(noted);
    return refused;
}

/* Whether trainings may share a device: a step's tokens do not fill it, and nothing depends on the time it takes. */
static bool may_share(const struct prepared *p) {
    const struct metric_row *metric = metric_find(p->suite.metric);
    for (int v = 0; v < p->suite.variant_count; v++) {
        const struct config *c = &p->suite.variants[v].config;
        if ((size_t)c->train_batch_tokens >= p->plan.ops->filling_tokens || c->train_seconds > 0) return false;
    }
    return !metric || !metric->timed;
}

static int least(size_t a, size_t b) { return (int)(a < b ? a : b); }

/* One for each device. Small trainings leave it idle while an artifact is compressed, on one core: then as many as the
 * cores and the device's memory allow, up to eight. */
static status jobs_of_devices(const struct prepared *p, int *jobs) {
    enum { MOST_ON_A_DEVICE = 8 };
    const size_t context = (size_t)512 << 20; /* what a driver keeps there for a process */
    struct memory_use memory;
    TRY(plan_memory(&p->plan, &memory));
    size_t devices = (size_t)p->room.devices, cores = (size_t)backend_find("cpu")->lane_count(), each = 1;
    if (may_share(p)) each = least(MOST_ON_A_DEVICE, p->room.bytes_free / (memory.device + context));
    int most = least(each * devices, cores);
    *jobs = least(most > (int)devices ? (size_t)most : devices, (size_t)(p->plan.run_count - plan_runs_done(&p->plan)));
    if (*jobs < 1) *jobs = 1;
    return NULL;
}

static status choose_jobs(const struct invocation *in, const struct prepared *p, int *jobs) {
    *jobs = 1;
    if (cli_given(in, "jobs")) *jobs = (int)cli_int(in, "jobs");
    bool open = !cli_given(in, "jobs") && p->plan.ops->device_memory && !*p->device_problem && !comm_launched();
    return open && !suite_simulated(&p->suite) ? jobs_of_devices(p, jobs) : NULL;
}

/* Phases without a stored like are timed, which may take seconds. */
static status estimate_visibly(const struct invocation *in, struct prepared *p) {
    bool shown = terminal_is(stderr);
    int jobs;
    TRY(choose_jobs(in, p, &jobs));
    if (shown) fputs("timing a little of each phase on this machine", stderr);
    status s = plan_estimate(&p->plan, p->store, jobs, p->room.devices, &p->estimate);
    if (shown) fputs("\r\033[K", stderr);
    return s;
}

static status parse_part(const char *text, int *part, int *parts) {
    int length = 0;
    bool read = sscanf(text, "%4d/%4d%n", part, parts, &length) == 2 && !text[length];
    if (read && strspn(text, "0123456789/") == strlen(text) && *part >= 1 && *part <= *parts) return NULL;
    return status_new(STATUS_USAGE, "--part takes I/N, the Ith of N parts, such as 2/8; not '%s'", text);
}

static status take_part(const struct invocation *in, struct prepared *p) {
    int part, parts;
    const char *text = cli_text(in, "part");
    if (!text) return NULL;
    TRY(parse_part(text, &part, &parts));
    p->whole = p->plan;
    p->plan = (struct plan){0};
    return plan_part(&p->whole, part, parts, &p->plan);
}

static status prepare_whole(const struct invocation *in, struct prepared *p) {
    const struct backend *ops;
    TRY(load_suite(in, &p->suite));
    TRY(store_open_begun(&p->store, cli_text(in, "db")));
    TRY(choose_device(in, p, &ops));
    TRY(datasets_open(&p->datasets, &p->suite, cli_text(in, "data")));
    TRY(plan_create(&p->plan, &p->suite, &p->datasets, ops));
    return p->store ? check_declaration(in, p) : NULL;
}

static status refresh(struct prepared *p) { return p->store ? plan_refresh(&p->plan, p->store) : NULL; }

static status prepare_all(const struct invocation *in, struct prepared *p) {
    TRY(prepare_whole(in, p));
    TRY(take_part(in, p));
    TRY(refresh(p));
    look_at_device(p);
    return estimate_visibly(in, p);
}

static status or_free(struct prepared *prepared, status failed) {
    if (failed) prepared_free(prepared);
    return failed;
}

status prepare(const struct invocation *in, struct prepared *prepared) {
    *prepared = (struct prepared){0};
    return or_free(prepared, prepare_all(in, prepared));
}

status prepare_plan(const struct invocation *in, struct prepared *prepared) {
    *prepared = (struct prepared){0};
    status failed = prepare_whole(in, prepared);
    return or_free(prepared, failed ? failed : refresh(prepared));
}

void prepared_free(struct prepared *prepared) {
    plan_free(&prepared->plan);
    plan_free(&prepared->whole);
    datasets_close(&prepared->datasets);
    store_close(prepared->store);
    suite_free(&prepared->suite);
    *prepared = (struct prepared){0};
}

bool significance_warning(const struct prepared *prepared, char text[512]) {
    const struct plan_estimate *e = &prepared->estimate;
    const struct design *design = &prepared->suite.design;
    *text = 0;
    if (e->can_be_significant) return false;
    snprintf(text, 512,
             "no difference %scan be significant: with %d seeds the smallest p of %s is %.3g, corrected (%s) over %d "
             "comparisons at alpha %g",
             e->family < prepared->suite.variant_count - 1 ? "of the largest family " : "", prepared->suite.seed_count,
             test_name(design->test), e->attainable_p, correction_name(design->correction), e->family, design->alpha);
    if (e->needed_seeds) text_append(text, 512, "; %zu seeds are needed", e->needed_seeds);
    return true;
}
