/* backend: the device and its current, memory, errors, and graphs that replay a step; see backend.h. */
#include <cublasLt.h>
#include <stdio.h>

#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/cuda/backend.h"
}

enum { OLDEST_MAJOR = 8, GRAPHS = 8 };

static int chosen_device, device_major;
/* Lane i of a for_each has streams[i]; all else is on the first. `current` is where the host's thread is at. */
static cudaStream_t streams[CUDA_STREAMS], current;
static cudaEvent_t reached[CUDA_STREAMS]; /* what others wait for before they go on */

cudaStream_t device_stream() { return current; }

bool is_hopper() {
#ifdef HINGE_CUDA_EMULATOR
    return false;
#else
    return device_major == 9;
#endif
}

/* --- errors: the first is kept until finish ----------------------------------------------------------------------- */

static char first_error[512];

void device_note_text(const char *name, const char *text) {
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s: %s", name, text);
}

void device_note(cudaError_t error, const char *name) {
    if (error != cudaSuccess) device_note_text(name, cudaGetErrorString(error));
}

extern "C" status cuda_finish(struct lane *) {
    device_note(cudaStreamSynchronize(current), "an op before this point");
    if (!first_error[0]) return NULL;
    status s = status_new(STATUS_SYSTEM, "the CUDA device failed in %s", first_error);
    first_error[0] = 0;
    return s;
}

/* --- the device --------------------------------------------------------------------------------------------------- */

extern "C" int cuda_device_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

extern "C" void cuda_choose_device(int number) { chosen_device = number; }

static status unusable(cudaError_t error) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return status_new(STATUS_SYSTEM, "no NVIDIA driver answers on this machine: CUDA needs one and a GPU; use the "
                                         "device cpu, or install the driver (nvidia-smi shows whether it works)");
    if (error == cudaErrorInsufficientDriver)
        return status_new(STATUS_SYSTEM,
                          "the NVIDIA driver knows CUDA up to %d.%d, but this program was built with %d.%d: update the "
                          "driver, or build with an older toolkit",
                          driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (error == cudaErrorNoDevice)
        return status_new(
            STATUS_SYSTEM,
            "the NVIDIA driver shows no device: nvidia-smi lists them, CUDA_VISIBLE_DEVICES can hide them");
    return status_new(STATUS_SYSTEM, "CUDA cannot be used: %s", cudaGetErrorString(error));
}

static status check_device() {
    int count, minor;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) return unusable(error);
    if (count == 0) return unusable(cudaErrorNoDevice);
    int device = chosen_device % count;
    error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&device_major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error != cudaSuccess) return unusable(error);
    if (device_major < OLDEST_MAJOR)
        return status_new(STATUS_SYSTEM, "device %d has compute capability %d.%d, but %d.0 (Ampere) or later is needed",
                          device, device_major, minor, OLDEST_MAJOR);
    return NULL;
}

/* Loads what the ops call; see libraries.c. */
static status check_libraries() {
    if (cublasLtGetVersion() > 0) return NULL;
    return status_new(STATUS_SYSTEM, "cuBLASLt cannot be loaded from where it was when this program was built: put the "
                                     "CUDA toolkit back, or its folder of libraries into LD_LIBRARY_PATH");
}

extern "C" status cuda_open(void) {
    if (current) return NULL;
    TRY(check_device());
    TRY(check_libraries());
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < CUDA_STREAMS && error == cudaSuccess; i++) {
        error = cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking);
        if (error == cudaSuccess) error = cudaEventCreateWithFlags(&reached[i], cudaEventDisableTiming);
    }
    if (error != cudaSuccess) return unusable(error);
    current = streams[0];
    return NULL;
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

extern "C" size_t cuda_memory_left(void) {
    size_t left = 0, total = 0;
    device_note(cudaMemGetInfo(&left, &total), "cudaMemGetInfo");
    return left;
}

extern "C" status cuda_memory_new(void **out, size_t bytes, const char *what) {
    size_t wanted = bytes ? bytes : 1;
    cudaError_t error = cudaMalloc(out, wanted);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* it is told here, and not again by the next launch */
        return status_new(STATUS_SYSTEM, "no device memory for %s: %.1f MB wanted, %.1f MB free", what,
                          (double)bytes / 1e6, (double)cuda_memory_left() / 1e6);
    }
    if (error == cudaSuccess) error = cudaMemsetAsync(*out, 0, wanted, current);
    if (error != cudaSuccess)
        return status_new(STATUS_SYSTEM, "no device memory for %s: %s", what, cudaGetErrorString(error));
    return NULL;
}

extern "C" void cuda_memory_free(void *memory) {
    if (memory) device_note(cudaFree(memory), "cudaFree");
}

static void copy_and_wait(const char *name, void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    if (bytes == 0) return;
    device_note(cudaMemcpyAsync(to, from, bytes, kind, current), name);
    device_note(cudaStreamSynchronize(current), name);
}

extern "C" void cuda_upload(struct lane *, void *to, const void *from, size_t bytes) {
    copy_and_wait("upload", to, from, bytes, cudaMemcpyHostToDevice);
}

extern "C" void cuda_download(struct lane *, void *to, const void *from, size_t bytes) {
    copy_and_wait("download", to, from, bytes, cudaMemcpyDeviceToHost);
}

/* --- graphs ------------------------------------------------------------------------------------------------------- */

/* What is known of a key: it is done once as it stands, which loads every kernel and makes every plan, recorded the
 * second time, and replayed from then on. The one longest unused makes room for another. */
static struct graph_slot {
    uint64_t key, used;
    cudaGraphExec_t graph;
} graphs[GRAPHS];
static uint64_t replays;

static struct graph_slot *slot_of(uint64_t key, bool *is_new) {
    struct graph_slot *oldest = &graphs[0];
    for (struct graph_slot *slot = graphs; slot < graphs + GRAPHS; slot++) {
        if (slot->key == key) {
            *is_new = false;
            return slot;
        }
        if (slot->used < oldest->used) oldest = slot;
    }
    if (oldest->graph) device_note(cudaGraphExecDestroy(oldest->graph), "cudaGraphExecDestroy");
    *oldest = graph_slot{key, 0, NULL};
    *is_new = true;
    return oldest;
}

static void record(struct graph_slot *slot, void (*work)(void *), void *context) {
    cudaGraph_t graph = NULL;
    device_note(cudaStreamBeginCapture(current, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    work(context);
    cudaError_t error = cudaStreamEndCapture(current, &graph);
    device_note(error, "cudaStreamEndCapture");
    if (error != cudaSuccess) return;
    error = cudaGraphInstantiate(&slot->graph, graph, 0);
    device_note(error, "cudaGraphInstantiate");
    if (error != cudaSuccess) slot->graph = NULL;
    device_note(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

extern "C" void cuda_replay(struct lane *, uint64_t key, void (*work)(void *), void *context) {
    bool is_new = true;
    struct graph_slot *slot = key ? slot_of(key, &is_new) : NULL;
    if (slot) slot->used = ++replays;
    if (is_new) {
        work(context);
        return;
    }
    if (!slot->graph) record(slot, work, context);
    if (slot->graph) device_note(cudaGraphLaunch(slot->graph, current), "a replayed step");
}

/* --- lanes -------------------------------------------------------------------------------------------------------- */

extern "C" int cuda_lane_count(void) { return 1; }

extern "C" void cuda_limit_lanes(int) {}

static void wait_for(int follower, int leader) {
    device_note(cudaEventRecord(reached[leader], streams[leader]), "cudaEventRecord");
    device_note(cudaStreamWaitEvent(streams[follower], reached[leader]), "cudaStreamWaitEvent");
}

extern "C" void cuda_for_each(struct lane *lanes, int lane_count, int pieces, piece_function function, void *context) {
    int used = lane_count < pieces ? lane_count : pieces;
    if (used > CUDA_STREAMS) used = CUDA_STREAMS;
    for (int i = 1; i < used; i++) wait_for(i, 0);
    for (int piece = 0; piece < pieces; piece++) {
        current = streams[piece % used];
        function(context, piece, &lanes[piece % used]);
    }
    current = streams[0];
    for (int i = 1; i < used; i++) wait_for(0, i);
}
