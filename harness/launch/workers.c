/* workers: several worker processes on one plan, each a fork with its share of the cores.
 *
 * Each sends what it has to say through one pipe, in pieces that the
 * system writes whole; shared memory asks them to stop. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/launch/worker.h"

enum event_type { EVENT_PROGRESS, EVENT_MESSAGE, EVENT_FAILURE };

struct event {
    enum event_type type;
    enum status_kind kind; /* of EVENT_FAILURE */
    union {
        struct runner_progress progress;
        char text[1400];
    };
};
_Static_assert(sizeof(struct event) <= PIPE_BUF, "an event must be written whole");

/* A worker's exit status once it has sent its failure; another says that it ended in the middle of its work. */
enum { TOLD = 1 };

/* One worker's side. */
struct child {
    struct work work;
    struct runner_callbacks callbacks; /* of the request */
    int pipe;
    const atomic_bool *stop;
    status result;
};

/* Memory that all of them share. */
struct shared {
    atomic_bool stop; /* asks them to */
    atomic_int turn;  /* see struct work */
};

/* The side of the process that started them. */
struct crew {
    const struct runner_request *request;
    int pipe;
    struct shared *shared;
    pid_t *pids; /* 0: ended */
    int alive, *stages_run;
    bool complete;  /* a worker came to the end of the plan */
    status failure; /* the first */
    status lost;    /* the first worker that ended without its result; a failure only when nobody did its work */
};

/* --- inside a worker ---------------------------------------------------------------------------------------------- */

static void send_event(const struct child *child, const struct event *event) {
    while (write(child->pipe, event, sizeof *event) < 0 && errno == EINTR) {
    }
}

static void send_progress(void *context, const struct runner_progress *progress) {
    struct event event = {.type = EVENT_PROGRESS, .progress = *progress};
    send_event(context, &event);
}

static void send_text(const struct child *child, enum event_type type, enum status_kind kind, const char *text) {
    struct event event = {.type = type, .kind = kind};
    snprintf(event.text, sizeof event.text, "%s", text);
    send_event(child, &event);
}

static void send_message(void *context, const char *line) { send_text(context, EVENT_MESSAGE, 0, line); }

static bool should_stop(void *context) {
    const struct child *child = context;
    return atomic_load(child->stop) || (child->callbacks.stop && child->callbacks.stop(child->callbacks.context));
}

static void *child_main(void *argument) {
    struct child *child = argument;
    child->result = worker_run(&child->work);
    return NULL;
}

/* A fresh thread: the OpenMP threads that this process may have had before the fork do not exist here, and only a
 * thread that never used them starts its own. */
static int run_child(struct child *child) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, child_main, child) != 0)
        child->result = status_new(STATUS_SYSTEM, "a worker's thread could not be started");
    else
        pthread_join(thread, NULL);
    if (!child->result) return 0;
    send_text(child, EVENT_FAILURE, status_kind(child->result), status_text(child->result));
    return TOLD;
}

static void enter_child(const struct crew *crew, const struct dataset_list *datasets, int index, int pipe) {
    const struct runner_request *request = crew->request;
    const struct backend *ops = request->plan->ops;
    int share = ops->lane_count() / request->jobs;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    ops->limit_lanes(share > 1 ? share : 1);
    ops->choose_device(index);
    int ignored = 0; /* the other side counts by the events */
    struct child child = {.callbacks = request->callbacks, .pipe = pipe, .stop = &crew->shared->stop};
    child.work = (struct work){.request = request,
                               .datasets = datasets,
                               .callbacks = {&child, send_progress, send_message, should_stop},
                               .index = index,
                               .jobs = request->jobs,
                               .stages_run = &ignored,
                               .turn = &crew->shared->turn};
    _exit(run_child(&child));
}

/* --- around the workers ------------------------------------------------------------------------------------------- */

static void keep_failure(struct crew *crew, status s) {
    bool worse =
        crew->failure && s && status_kind(crew->failure) == STATUS_INTERRUPTED && status_kind(s) != STATUS_INTERRUPTED;
    if (worse) {
        status_free(crew->failure);
        crew->failure = s;
    } else if (!crew->failure) {
        crew->failure = s;
    } else {
        status_free(s);
    }
}

static void handle(struct crew *crew, const struct event *event) {
    const struct runner_callbacks *c = &crew->request->callbacks;
    if (event->type == EVENT_PROGRESS) *crew->stages_run += event->progress.stage_ended;
    if (event->type == EVENT_PROGRESS && c->progress) c->progress(c->context, &event->progress);
    if (event->type == EVENT_MESSAGE && c->message) c->message(c->context, event->text);
    if (event->type == EVENT_FAILURE) keep_failure(crew, status_new(event->kind, "%s", event->text));
}

static void keep_lost(struct crew *crew, status s) {
    const struct runner_callbacks *c = &crew->request->callbacks;
    if (c->message) c->message(c->context, status_text(s));
    if (crew->lost)
        status_free(s);
    else
        crew->lost = s;
}

static void keep_killed(struct crew *crew, int worker, int signal) {
    keep_lost(crew, status_new(STATUS_SYSTEM, "worker %d of %d was ended by signal %d (%s)", worker + 1,
                               crew->request->jobs, signal, strsignal(signal)));
}

/* As after a bus_error.h: the worker could tell on standard error alone. */
static void keep_ended(struct crew *crew, int worker, int code) {
    keep_lost(crew, status_new(STATUS_SYSTEM, "worker %d of %d ended with status %d, for the reason that it gave above",
                               worker + 1, crew->request->jobs, code));
}

/* Workers that ended; one that is lost leaves its stage to the others. */
static void reap(struct crew *crew) {
    for (int i = 0; i < crew->request->jobs; i++) {
        int result;
        if (!crew->pids[i] || waitpid(crew->pids[i], &result, WNOHANG) != crew->pids[i]) continue;
        crew->pids[i] = 0;
        crew->alive--;
        crew->complete |= WIFEXITED(result) && WEXITSTATUS(result) == 0;
        if (WIFSIGNALED(result)) keep_killed(crew, i, WTERMSIG(result));
        if (WIFEXITED(result) && WEXITSTATUS(result) > TOLD) keep_ended(crew, i, WEXITSTATUS(result));
    }
}

static void listen_to(struct crew *crew, int milliseconds) {
    struct pollfd poll_fd = {.fd = crew->pipe, .events = POLLIN};
    struct event event;
    if (poll(&poll_fd, 1, milliseconds) > 0 && (poll_fd.revents & POLLIN) &&
        read(crew->pipe, &event, sizeof event) == sizeof event)
        handle(crew, &event);
}

static bool has_events(const struct crew *crew) {
    struct pollfd poll_fd = {.fd = crew->pipe, .events = POLLIN};
    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLIN);
}

static void attend(struct crew *crew) {
    const struct runner_callbacks *c = &crew->request->callbacks;
    while (crew->alive > 0) {
        listen_to(crew, 100);
        reap(crew);
        if (c->stop && c->stop(c->context)) atomic_store(&crew->shared->stop, true);
    }
    while (has_events(crew)) listen_to(crew, 0);
}

static status start(struct crew *crew, const struct dataset_list *datasets, int pipe) {
    for (int i = 0; i < crew->request->jobs; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            close(crew->pipe);
            enter_child(crew, datasets, i, pipe);
        }
        if (pid < 0) return status_errno("worker %d of %d could not be started", i + 1, crew->request->jobs);
        crew->pids[i] = pid;
        crew->alive++;
    }
    return NULL;
}

static status run_crew(struct crew *crew, const struct dataset_list *datasets) {
    int ends[2];
    if (pipe(ends) != 0) return status_errno("no pipe for the workers");
    crew->pipe = ends[0];
    fflush(NULL);
    status s = start(crew, datasets, ends[1]);
    close(ends[1]);
    if (s) atomic_store(&crew->shared->stop, true);
    attend(crew);
    close(ends[0]);
    keep_failure(crew, s);
    if (crew->complete)
        status_free(crew->lost);
    else
        keep_failure(crew, crew->lost);
    return crew->failure;
}

status workers_run(const struct runner_request *request, const struct dataset_list *datasets, int *stages_run) {
    struct crew crew = {
        .request = request, .stages_run = stages_run, .pids = calloc((size_t)request->jobs, sizeof *crew.pids)};
    void *shared = mmap(NULL, sizeof *crew.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    status s;
    if (!crew.pids || shared == MAP_FAILED) {
        s = status_new(STATUS_SYSTEM, "no memory for the workers");
    } else {
        crew.shared = shared;
        s = run_crew(&crew, datasets);
    }
    if (shared != MAP_FAILED) munmap(shared, sizeof *crew.shared);
    free(crew.pids);
    return s;
}
