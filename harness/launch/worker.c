/* worker: claims and does stages, and says how far it is; see worker.h. */
#include "harness/launch/worker.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness/simulated.h"
#include "harness/stage_train.h"
#include "kernels/clock.h"

static const double progress_seconds = 0.1, heartbeat_seconds = 5, jump_seconds = 2, patience_seconds = 5;

/* What the stages of one kind took, against what was estimated: corrects the estimate of those to come. */
struct correction_factor {
    double actual, estimated;
};

struct worker_state {
    const struct work *work;
    struct store *store;
    struct worker identity;
    struct provenance provenance;
    const struct plan *plan;
    struct plan_stage *stages; /* own copy: states change here */
    struct correction_factor factors[STAGE_KINDS];
    struct runner_progress progress; /* of the stage at work */
    int stage;                       /* at work */
    double started, last_sent, last_beat;
    double clock_offset;                   /* of the time of day against a clock that nobody sets */
    double others_in_run, others_in_suite; /* estimated seconds of what is left besides this stage */
    double next_look;                      /* when to see again what others have ended */
    int64_t first_done;                    /* where a resumed stage went on */
    bool lost;                             /* another worker took the stage over */
    bool gone;                             /* the database was deleted or replaced */
    bool input_damaged;                    /* the stage could not read what an earlier one left */
    bool *redone;                          /* (stages) made again once because their files were damaged */
};

/* --- time left ---------------------------------------------------------------------------------------------------- */

static double expected_seconds(const struct worker_state *w, int stage) {
    const struct correction_factor *f = &w->factors[w->stages[stage].kind];
    double seconds = w->stages[stage].seconds;
    return f->estimated > 0 ? seconds * f->actual / f->estimated : seconds;
}

static bool is_open(const struct worker_state *w, int stage) {
    return w->stages[stage].state != STAGE_DONE && w->stages[stage].state != STAGE_FAILED;
}

/* What others have ended since the last look, so that it is not counted as left: a hundredth of the time goes into
 * looking. */
static status learn_from_others(struct worker_state *w) {
    double start = clock_seconds(), seconds;
    if (start < w->next_look) return NULL;
    for (int i = 0; i < w->plan->stage_count; i++) {
        enum stage_state state;
        bool known;
        if (!is_open(w, i)) continue;
        TRY(store_stage_state(w->store, w->stages[i].key, &state, &seconds, &known));
        if (known && (state == STAGE_DONE || state == STAGE_FAILED)) w->stages[i].state = state;
    }
    double now = clock_seconds();
    w->next_look = now + 100 * (now - start);
    return NULL;
}

static void estimate_others(struct worker_state *w, const struct plan_run *run) {
    w->others_in_run = w->others_in_suite = 0;
    for (int part = 0; part < PART_COUNT; part++)
        if (run->stages[part] != w->stage && is_open(w, run->stages[part]))
            w->others_in_run += expected_seconds(w, run->stages[part]);
    for (int i = 0; i < w->plan->stage_count; i++)
        if (i != w->stage && is_open(w, i)) w->others_in_suite += expected_seconds(w, i);
}

static void note_duration(struct worker_state *w, int stage) {
    double actual = clock_seconds() - w->started, estimated = w->stages[stage].seconds;
    if (w->first_done > 0 || !isfinite(estimated)) return;
    w->factors[w->stages[stage].kind].actual += actual;
    w->factors[w->stages[stage].kind].estimated += estimated;
}

static double stage_seconds_left(const struct worker_state *w, int64_t done, int64_t total) {
    double elapsed = clock_seconds() - w->started;
    if (done > w->first_done) return elapsed * (double)(total - done) / (double)(done - w->first_done);
    return expected_seconds(w, w->stage);
}

/* --- what the stage says ------------------------------------------------------------------------------------------ */

static bool asked_to_stop(const struct worker_state *w) {
    const struct runner_callbacks *c = &w->work->callbacks;
    return c->stop && c->stop(c->context);
}

static void send_progress(struct worker_state *w) {
    const struct runner_callbacks *c = &w->work->callbacks;
    double left = stage_seconds_left(w, w->progress.done, w->progress.total);
    w->progress.run_seconds_left = left + w->others_in_run;
    w->progress.suite_seconds_left = left + w->others_in_suite / w->work->jobs;
    w->last_sent = clock_seconds();
    if (c->progress) c->progress(c->context, &w->progress);
}

static void beat(struct worker_state *w) {
    w->last_beat = clock_seconds();
    status s = store_check_file(w->store);
    w->gone = s != NULL;
    if (!s) s = store_heartbeat(w->store, w->stages[w->stage].key, &w->identity);
    w->lost = s && status_kind(s) == STATUS_DIFFERS;
    status_free(s);
}

static void on_message(void *context, const char *line) {
    const struct worker_state *w = context;
    if (w->work->callbacks.message) w->work->callbacks.message(w->work->callbacks.context, line);
}

__attribute__((format(printf, 2, 3))) static void say(struct worker_state *w, const char *format, ...) {
    char line[1400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    on_message(w, line);
}

static double clock_offset(void) {
    struct timespec day, steady;
    clock_gettime(CLOCK_REALTIME, &day);
    clock_gettime(CLOCK_BOOTTIME, &steady);
    return (double)(day.tv_sec - steady.tv_sec) + 1e-9 * (double)(day.tv_nsec - steady.tv_nsec);
}

static void notice_jump(struct worker_state *w) {
    double jump = clock_offset() - w->clock_offset;
    if (fabs(jump) < jump_seconds) return;
    w->clock_offset += jump;
    if (w->work->index == 0)
        say(w, "this machine's clock was set by %+.0f s: durations do not depend on it, times of day do", jump);
}

static bool on_report(void *context, int64_t done, int64_t total, double loss, double tokens_per_second) {
    struct worker_state *w = context;
    double now = clock_seconds();
    if (w->first_done < 0) w->first_done = done > 0 ? done - 1 : 0;
    w->progress.done = done;
    w->progress.total = total;
    w->progress.loss = loss;
    w->progress.tokens_per_second = tokens_per_second;
    if (now - w->last_sent >= progress_seconds) send_progress(w);
    if (now - w->last_beat >= heartbeat_seconds) beat(w);
    notice_jump(w);
    return w->gone || w->lost || asked_to_stop(w);
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

/* Workers claim their first stage in their order, in which they go round the devices: where there are fewer trainings
 * than workers, each device gets as many. One that ended before its turn is waited for no longer than this. */
static const double turn_seconds = 10;

static void await_turn(const struct worker_state *w) {
    const struct work *work = w->work;
    double end = clock_seconds() + turn_seconds;
    while (work->turn && atomic_load(work->turn) < work->index && clock_seconds() < end && !asked_to_stop(w))
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void pass_turn(const struct work *work) {
    if (!work->turn) return;
    int now = atomic_load(work->turn);
    while (now <= work->index && !atomic_compare_exchange_weak(work->turn, &now, work->index + 1)) continue;
}

/* --- one stage ---------------------------------------------------------------------------------------------------- */

static void begin_stage(struct worker_state *w, int run_index, int part) {
    const struct plan_run *run = &w->plan->runs[run_index];
    const struct suite *suite = w->plan->suite;
    w->stage = run->stages[part];
    w->progress = (struct runner_progress){.run = run_index + 1,
                                           .run_count = w->plan->run_count,
                                           .seed = run->seed,
                                           .part = (enum run_part)part,
                                           .loss = NAN,
                                           .tokens_per_second = NAN,
                                           .worker = w->work->index};
    snprintf(w->progress.variant, sizeof w->progress.variant, "%s", suite->variants[run->variant].name);
    w->started = w->last_beat = clock_seconds();
    w->last_sent = 0;
    w->first_done = -1;
    w->lost = w->gone = w->input_damaged = false;
    estimate_others(w, run);
}

static struct stage_context context_of(struct worker_state *w) {
    return (struct stage_context){
        .store = w->store,
        .worker = &w->identity,
        .plan = w->plan,
        .stages = w->stages,
        .datasets = w->work->datasets,
        .provenance = &w->provenance,
        .checkpoint_seconds =
            w->work->request->checkpoint_seconds > 0 ? w->work->request->checkpoint_seconds : RUNNER_CHECKPOINT_SECONDS,
        .watch = {w, on_report, on_message},
        .input_damaged = &w->input_damaged,
    };
}

/* What an earlier stage left is missing or damaged: that stage is done again, and this one after it. */
static status redo_source(struct worker_state *w, status s) {
    struct plan_stage *stage = &w->stages[w->stage];
    int source = stage_source(w->stages, w->stage);
    say(w, "%s seed %lld: %s; it is made again", w->progress.variant, (long long)stage->seed, status_text(s));
    status_free(s);
    w->redone[source] = true;
    w->stages[source].state = stage->state = STAGE_PENDING;
    TRY(store_redo(w->store, w->stages[source].key));
    return store_release(w->store, stage->key, &w->identity, STAGE_PENDING, NULL);
}

static status went_elsewhere(struct worker_state *w, status s) {
    say(w, "%s seed %lld: %s went on elsewhere", w->progress.variant, (long long)w->progress.seed,
        run_part_name(w->progress.part));
    status_free(s);
    return NULL;
}

static status mark_failed(struct worker_state *w, status s) {
    struct plan_stage *stage = &w->stages[w->stage];
    stage->state = STAGE_FAILED;
    status released = store_release(w->store, stage->key, &w->identity, STAGE_FAILED, status_text(s));
    say(w, "%s seed %lld: %s failed: %s", w->progress.variant, (long long)stage->seed, run_part_name(w->progress.part),
        status_text(s));
    status_free(s);
    return released;
}

/* A stage that ended badly: the numbers or the input are at fault (it has failed), or the machine or the user (it stays
 * to be done). Returns what ends the work, if anything. */
static status end_badly(struct worker_state *w, status s) {
    struct plan_stage *stage = &w->stages[w->stage];
    enum status_kind kind = status_kind(s);
    int source = stage_source(w->stages, w->stage);
    status gone = store_check_file(w->store);
    if (gone) {
        status_free(s);
        return gone;
    }
    if (w->lost || kind == STATUS_DIFFERS) return went_elsewhere(w, s);
    if (w->input_damaged && !w->redone[source]) return redo_source(w, s);
    if (kind != STATUS_INTERRUPTED && kind != STATUS_SYSTEM) return mark_failed(w, s);
    stage->state = STAGE_INTERRUPTED;
    status_free(store_release(w->store, stage->key, &w->identity, STAGE_INTERRUPTED, status_text(s)));
    return s;
}

static status do_stage(struct worker_state *w, int run, int part) {
    TRY(learn_from_others(w));
    begin_stage(w, run, part);
    const struct stage_context context = context_of(w);
    status s = stage_execute(&context, w->stage);
    if (s) return end_badly(w, s);
    note_duration(w, w->stage);
    ++*w->work->stages_run;
    w->stages[w->stage].state = STAGE_DONE;
    w->progress.stage_ended = true;
    w->progress.done = w->progress.total;
    send_progress(w);
    return NULL;
}

/* --- all stages --------------------------------------------------------------------------------------------------- */

/* What one walk over the plan found. */
struct round {
    bool progress, busy;
    int run, part; /* the first that others are at */
};

/* What an averaging names lies with the training, which may have to be made again while the averaging is done. */
static bool is_ready(const struct worker_state *w, int stage) {
    int parent = w->stages[stage].parent;
    if (!is_open(w, stage) || parent < 0) return is_open(w, stage);
    return w->stages[parent].state == STAGE_DONE && w->stages[stage_source(w->stages, stage)].state == STAGE_DONE;
}

static bool taken(enum claim claim) { return claim == CLAIM_TAKEN || claim == CLAIM_TAKEN_OVER; }

static status claim_for_build(struct worker_state *w, int stage, enum claim *claim) {
    const struct stage_context context = context_of(w);
    const struct suite *suite = w->plan->suite;
    if (!w->work->request->mix_builds) TRY(store_check_build(w->store, suite->name, suite->scale, &w->provenance));
    TRY(store_claim(w->store, w->stages[stage].key, &w->identity, claim));
    return taken(*claim) ? stage_begin(&context, stage) : NULL;
}

/* One transaction: of two builds that come at once, one is refused. */
static status claim_stage(struct worker_state *w, int stage, enum claim *claim) {
    TRY(store_batch_begin(w->store));
    return store_batch_end(w->store, claim_for_build(w, stage, claim));
}

static status visit(struct worker_state *w, int run, int part, struct round *round) {
    const int index = w->plan->runs[run].stages[part];
    struct plan_stage *stage = &w->stages[index];
    enum claim claim;
    notice_jump(w);
    TRY(claim_stage(w, index, &claim));
    if (taken(claim)) pass_turn(w->work);
    if (claim == CLAIM_BUSY) {
        if (!round->busy) *round = (struct round){round->progress, true, run, part};
        return NULL;
    }
    round->progress = true;
    if (claim == CLAIM_DONE) stage->state = STAGE_DONE;
    if (claim == CLAIM_FAILED) stage->state = STAGE_FAILED;
    if (!taken(claim)) return NULL;
    if (claim == CLAIM_TAKEN_OVER)
        say(w, "%s seed %lld: %s is taken over from a worker that ended", w->plan->suite->variants[stage->variant].name,
            (long long)stage->seed, run_part_name((enum run_part)part));
    return do_stage(w, run, part);
}

static status walk(struct worker_state *w, struct round *round) {
    *round = (struct round){0};
    for (int run = 0; run < w->plan->run_count; run++)
        for (int part = 0; part < PART_COUNT; part++) {
            if (!is_ready(w, w->plan->runs[run].stages[part])) continue;
            if (asked_to_stop(w)) return status_new(STATUS_INTERRUPTED, "stopped between two stages");
            TRY(visit(w, run, part, round));
        }
    pass_turn(w->work);
    return NULL;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

/* Since when nothing could be done but wait, and for whom that was told last. */
struct waiting {
    double since;
    char told[sizeof(((struct worker *)0)->name)];
};

static void tell_holder(struct worker_state *w, const struct round *round, const struct stage_holder *holder) {
    const struct plan_run *run = &w->plan->runs[round->run];
    const struct worker *other = &holder->worker;
    char when[64] = "at once";
    if (strcmp(other->host, w->identity.host) != 0)
        snprintf(when, sizeof when, "%.0f s after that sign", STORE_STALE_SECONDS);
    say(w,
        "waiting for %s:%lld, which is at %s seed %lld: %s, and gave a sign of life %.0f s ago; if it hangs, end it "
        "there "
        "(kill -KILL %lld): its stage is taken over %s",
        other->host, (long long)other->pid, w->plan->suite->variants[run->variant].name, (long long)run->seed,
        run_part_name((enum run_part)round->part), fmax(holder->silent, 0), (long long)other->pid, when);
}

/* A wait for others of the same crew is the end of a suite, of which the progress tells. */
static status explain_wait(struct worker_state *w, const struct round *round, struct waiting *waiting) {
    struct stage_holder holder;
    const int stage = w->plan->runs[round->run].stages[round->part];
    if (clock_seconds() - waiting->since < patience_seconds) return NULL;
    TRY(store_stage_holder(w->store, w->stages[stage].key, &holder));
    if (!*holder.worker.name || strcmp(holder.worker.name, waiting->told) == 0) return NULL;
    if (w->work->jobs > 1 && worker_is_sibling(&holder.worker)) return NULL;
    snprintf(waiting->told, sizeof waiting->told, "%s", holder.worker.name);
    tell_holder(w, round, &holder);
    return NULL;
}

static status work_until_done(struct worker_state *w) {
    struct round round;
    await_turn(w);
    struct waiting waiting = {.since = clock_seconds()};
    for (;;) {
        TRY(walk(w, &round));
        if (!round.progress && !round.busy) return NULL;
        if (round.progress) {
            waiting.since = clock_seconds();
            continue;
        }
        TRY(explain_wait(w, &round, &waiting));
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    }
}

static status prepare(struct worker_state *w) {
    const struct runner_request *request = w->work->request;
    size_t size = (size_t)w->plan->stage_count * sizeof *w->stages;
    w->stages = malloc(size + 1);
    w->redone = calloc((size_t)w->plan->stage_count + 1, sizeof *w->redone);
    if (!w->stages || !w->redone) return status_new(STATUS_SYSTEM, "out of memory");
    memcpy(w->stages, w->plan->stages, size);
    w->clock_offset = clock_offset();
    worker_current(&w->identity);
    TRY(w->plan->ops->open());
    provenance_collect(&w->provenance, w->plan->ops);
    provenance_add(&w->provenance, "jobs", "%d", w->work->jobs);
    TRY(store_open(&w->store, request->database, STORE_WRITE));
    struct plan view = *w->plan;
    view.stages = w->stages;
    return plan_refresh(&view, w->store);
}

static status simulate(struct worker_state *w) {
    const struct simulation simulation = {.store = w->store,
                                          .worker = &w->identity,
                                          .plan = w->plan,
                                          .stages = w->stages,
                                          .provenance = &w->provenance,
                                          .callbacks = &w->work->callbacks,
                                          .stages_run = w->work->stages_run};
    return simulated_work(&simulation);
}

status worker_run(const struct work *work) {
    struct worker_state w = {.work = work, .plan = work->request->plan};
    status s = prepare(&w);
    if (!s) s = suite_simulated(w.plan->suite) ? simulate(&w) : work_until_done(&w);
    pass_turn(work);
    store_close(w.store);
    free(w.stages);
    free(w.redone);
    return s;
}
