/* device: chooses backends, and asks devices from a process of their own; see device.h. */
#include "harness/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/simulated.h"
#include "model/network_shapes.h"

/* --- a process of its own ----------------------------------------------------------------------------------------- */

struct answer {
    bool failed;
    enum status_kind kind;
    char text[1024];
};

static bool read_all(int from, void *data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(from, (char *)data + done, bytes - done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        done += (size_t)got;
    }
    return true;
}

static bool write_all(int to, const void *data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t put = write(to, (const char *)data + done, bytes - done);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return false;
        done += (size_t)put;
    }
    return true;
}

static void answer_with(const struct backend *ops, device_work work, void *context, void *result, size_t bytes,
                        int to) {
    struct answer answer = {0};
    status s = ops->open();
    if (!s) s = work(context, result);
    if (s) {
        answer.failed = true;
        answer.kind = status_kind(s);
        snprintf(answer.text, sizeof answer.text, "%s", status_text(s));
    }
    _exit(write_all(to, &answer, sizeof answer) && write_all(to, result, bytes) ? 0 : 1);
}

static status collect(pid_t child, int from, void *result, size_t bytes) {
    struct answer answer;
    int outcome;
    bool complete = read_all(from, &answer, sizeof answer) && read_all(from, result, bytes);
    while (waitpid(child, &outcome, 0) < 0 && errno == EINTR) continue;
    if (!complete) return status_new(STATUS_SYSTEM, "the process that asks the device ended without an answer");
    return answer.failed ? status_new(answer.kind, "%s", answer.text) : NULL;
}

status device_apart(const struct backend *ops, device_work work, void *context, void *result, size_t bytes) {
    int ends[2];
    if (pipe(ends) != 0) return status_errno("no pipe to ask the device through");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        answer_with(ops, work, context, result, bytes, ends[1]);
    }
    close(ends[1]);
    status s = child < 0 ? status_errno("no process to ask the device from") : collect(child, ends[0], result, bytes);
    close(ends[0]);
    return s;
}

static status look(void *context, void *result) {
    const struct backend *ops = context;
    *(struct device_room *)result = (struct device_room){ops->device_count(), ops->memory_left()};
    return NULL;
}

status device_probe(const struct backend *ops, struct device_room *room) {
    *room = (struct device_room){0};
    return device_apart(ops, look, (void *)ops, room, sizeof *room);
}

/* --- the choice --------------------------------------------------------------------------------------------------- */

static bool opens(const struct backend *ops) {
    struct device_room room;
    status s = device_probe(ops, &room);
    bool good = !s;
    status_free(s);
    return good;
}

status device_find(const char *word, const struct backend **ops) {
    const struct backend *cuda = backend_find("cuda");
    bool automatic = strcmp(word, "auto") == 0;
    *ops = backend_find("cpu");
    if (strcmp(word, "cpu") == 0 || (automatic && (!cuda || !opens(cuda)))) return NULL;
    if (!cuda)
        return status_new(STATUS_USAGE,
                          "this hinge was built without CUDA: build it where the CUDA toolkit is (nvcc in "
                          "PATH or /usr/local/cuda), or use --device cpu");
    *ops = cuda;
    return NULL;
}

static const char *word_of(const struct config *config) {
    return config->run_backend == BACKEND_CUDA ? "cuda" : config->run_backend == BACKEND_CPU ? "cpu" : "auto";
}

static void settle(struct config *config, const struct backend *ops) {
    config->run_backend = ops->device_memory ? BACKEND_CUDA : BACKEND_CPU;
    config->train_slice_tokens = slice_tokens_of(config, ops->device_memory);
}

status device_for_suite(struct suite *suite, const char *word, const struct backend **ops) {
    if (suite_simulated(suite)) {
        *ops = backend_find("simulated");
        if (strcmp(word, "cuda") != 0) return NULL;
        return status_new(STATUS_USAGE, "%s is simulated: its figures are drawn, so there is no device to choose",
                          suite->name);
    }
    TRY(simulated_check(suite));
    TRY(device_find(strcmp(word, "auto") == 0 ? word_of(&suite->config) : word, ops));
    settle(&suite->config, *ops);
    for (int i = 0; i < suite->variant_count; i++) settle(&suite->variants[i].config, *ops);
    return NULL;
}
