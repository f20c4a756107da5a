/* runtime: the CUDA runtime's host calls: one device, streams that work at once, and graphs that record it. */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_emulator/machine.h"

struct emulator_graph {
    std::vector<std::function<void()>> work;
};
struct emulator_stream {
    int unused;
};
struct emulator_event {
    int unused;
};

/* The capture that is going on in this process, if any. */
static thread_local struct {
    cudaStream_t stream;
    emulator_graph *graph; /* NULL: none */
    bool relaxed, invalid;
} capture;

static thread_local cudaError_t last_error;

static cudaError_t note(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

/* Calls that a capture forbids make it invalid and fail. */
static bool forbidden(bool even_relaxed) {
    if (!capture.graph || (capture.relaxed && !even_relaxed)) return false;
    capture.invalid = true;
    return true;
}

bool capture_record(std::function<void()> work) {
    if (capture.graph) capture.graph->work.push_back(std::move(work));
    return capture.graph != nullptr;
}

/* --- device ------------------------------------------------------------------------------------------------------- */

/* EMULATOR_DEVICES, for processes that each take one; a process has the same memory on all. */
static int device_count() {
    const char *text = getenv("EMULATOR_DEVICES");
    return text ? atoi(text) : 1;
}
static int current_device;

cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_count();
    return note(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return note(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device < 0 || device >= device_count()) return note(cudaErrorInvalidDevice);
    size_t left;
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "the emulated device");
    cudaMemGetInfo(&left, &properties->totalGlobalMem);
    properties->sharedMemPerBlockOptin = SHARED_MOST;
    properties->major = 9;
    properties->multiProcessorCount = 4;
    properties->l2CacheSize = 50 << 20;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device < 0 || device >= device_count()) return note(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = 4;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = 228 << 10;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = SHARED_MOST;
        return cudaSuccess;
    }
    return note(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int) {
    *can = 0;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return note(forbidden(true) ? cudaErrorStreamCaptureUnsupported : cudaSuccess); }
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "the driver is older than the runtime"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "capture failed because of an earlier call"},
};
const char *cudaGetErrorName(cudaError_t error) {
    for (const auto &e : errors)
        if (e.error == error) return e.name;
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t error) {
    for (const auto &e : errors)
        if (e.error == error) return e.text;
    return "unrecognized error code";
}
cudaError_t cudaGetLastError() {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }

/* --- memory ------------------------------------------------------------------------------------------------------- */

cudaError_t memory_new(void **out, size_t bytes);

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    if (forbidden(false)) return note(cudaErrorStreamCaptureUnsupported);
    return note(memory_new(memory, bytes));
}
cudaError_t cudaMallocHost(void **memory, size_t bytes) {
    if (forbidden(false)) return note(cudaErrorStreamCaptureUnsupported);
    *memory = malloc(bytes ? bytes : 1);
    return note(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void *memory) {
    free(memory);
    return cudaSuccess;
}

/* All of the bytes are in one allocation of the device; part of them being so is a fault. */
static bool on_device(const void *at, size_t bytes, const char *what) {
    allocation *a = memory_find(at);
    if (!a) return false;
    size_t offset = (size_t)(static_cast<const unsigned char *>(at) - a->base);
    if (bytes > a->bytes - offset)
        emulator_fault("%s of %zu bytes at byte %zu of an allocation of %zu", what, bytes, offset, a->bytes);
    return true;
}

static size_t offset_in(const allocation *a, const void *at) {
    return (size_t)(static_cast<const unsigned char *>(at) - a->base);
}

/* Bytes of all ones are how tests mark what an op has to write: nobody may read them. */
static bool is_poison(const void *host, size_t bytes) {
    const unsigned char *x = static_cast<const unsigned char *>(host);
    for (size_t i = 0; i < bytes; i++)
        if (x[i] != 0xff) return false;
    return true;
}

static void copy_now(void *to, const void *from, size_t bytes, bool to_device, bool from_device) {
    allocation *target = to_device ? memory_find(to) : nullptr, *source = from_device ? memory_find(from) : nullptr;
    if (source && !target) {
        size_t first = access_first_unwritten(&source->shadow, offset_in(source, from), bytes);
        if (first < bytes) access_fault_unwritten(&source->shadow, offset_in(source, from) + first, "a download");
    }
    memory_move(to, from, bytes);
    if (target) access_host_writes(&target->shadow, offset_in(target, to), bytes, source || !is_poison(from, bytes));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    if (bytes == 0) return cudaSuccess;
    bool to_device = on_device(to, bytes, "a copy"), from_device = on_device(from, bytes, "a copy");
    bool right = kind == cudaMemcpyDefault ||
                 (to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
                  from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice));
    if (!right) return note(cudaErrorInvalidValue);
    if (!(to_device && from_device) && forbidden(true)) return note(cudaErrorStreamCaptureUnsupported);
    auto work = [=] { copy_now(to, from, bytes, to_device, from_device); };
    if (!capture_record(work)) work();
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    if (forbidden(true)) return note(cudaErrorStreamCaptureUnsupported);
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void *memory, int byte, size_t bytes, cudaStream_t) {
    if (bytes == 0) return cudaSuccess;
    if (!on_device(memory, bytes, "a fill")) return note(cudaErrorInvalidValue);
    auto work = [=] {
        allocation *target = memory_find(memory);
        memory_fill(memory, byte, bytes);
        access_host_writes(&target->shadow, offset_in(target, memory), bytes, true);
    };
    if (!capture_record(work)) work();
    return cudaSuccess;
}
cudaError_t cudaMemset(void *memory, int byte, size_t bytes) {
    if (forbidden(true)) return note(cudaErrorStreamCaptureUnsupported);
    return cudaMemsetAsync(memory, byte, bytes, nullptr);
}

/* --- streams, events, graphs -------------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    *stream = new emulator_stream();
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return note(forbidden(true) ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = new emulator_event();
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) {
    return note(forbidden(true) ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 0;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    if (capture.graph || !stream) return note(cudaErrorStreamCaptureUnsupported);
    capture = {stream, new emulator_graph(), mode == cudaStreamCaptureModeRelaxed, false};
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = nullptr;
    if (!capture.graph || capture.stream != stream) return note(cudaErrorInvalidValue);
    bool invalid = capture.invalid;
    if (invalid)
        delete capture.graph;
    else
        *graph = capture.graph;
    capture = {};
    return note(invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
    *executable = new emulator_graph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
    if (forbidden(true)) return note(cudaErrorStreamCaptureUnsupported);
    for (const auto &work : executable->work) work();
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    delete executable;
    return cudaSuccess;
}
