/* doctor_gpu: the NVIDIA devices of this machine, and why runs use them or do not. */
#include <stdio.h>

#include "harness/device.h"
#include "harness/doctor.h"
#include "harness/gpus.h"
#include "harness/process.h"
#include "harness/units.h"
#include "kernels/comm/comm.h"

static int look_at_gpus(struct examination *e) {
    enum { MOST = 16 };
    struct gpu gpus[MOST];
    char what[32], memory[UNITS_CAPACITY], available[UNITS_CAPACITY], links[64];
    int count = gpus_list(gpus, MOST);
    for (int i = 0; i < count; i++) {
        snprintf(what, sizeof what, "GPU %d", i);
        snprintf(links, sizeof links, "no NVLink");
        if (gpus[i].links)
            snprintf(links, sizeof links, "%d NVLinks of %.1f GB/s", gpus[i].links, gpus[i].link_rate / 1e9);
        fine(e, what, "%s, %s free of %s, %s, driver %s", gpus[i].name, format_bytes(gpus[i].memory_free, available),
             format_bytes(gpus[i].memory, memory), links, gpus[i].driver);
    }
    if (count == 0) fine(e, "GPU", "nvidia-smi shows none");
    return count;
}

/* Several devices work on one training through it; one alone does without. */
static void look_at_nccl(struct examination *e, int gpus) {
    int version;
    status failed = comm_nccl_version(&version);
    if (!failed)
        fine(e, "NCCL", "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    else if (gpus > 1)
        lacks(e, COSTS_SOMETHING, "NCCL", status_text(failed), "a training uses one device", "install NCCL, make");
    else
        fine(e, "NCCL", "%s: a training uses one device", status_text(failed));
    status_free(failed);
}

/* What runs make of the devices. A device that is there and does not work costs something; none at all is no fault. */
static void look_at_cuda(struct examination *e, int gpus) {
    const struct backend *cuda = backend_find("cuda");
    struct device_room room;
    char available[UNITS_CAPACITY], compiler[4096];
    if (!cuda) {
        bool toolkit = program_find("nvcc", compiler);
        const char *why = toolkit ? "this build has none, though nvcc is here" : "this build has none: no toolkit";
        if (gpus)
            lacks(e, COSTS_SOMETHING, "CUDA", why, "runs use the CPU",
                  toolkit ? "make" : "install the CUDA toolkit, make");
        else
            fine(e, "CUDA", "%s; runs use the CPU", why);
        return;
    }
    status failed = device_probe(cuda, &room);
    if (!failed)
        fine(e, "CUDA", "%d device%s work%s, %s free; runs use %s unless --device says otherwise", room.devices,
             room.devices == 1 ? "" : "s", room.devices == 1 ? "s" : "",
             format_bytes((double)room.bytes_free, available), room.devices == 1 ? "it" : "them");
    else if (gpus)
        lacks(e, COSTS_SOMETHING, "CUDA", status_text(failed), "runs use the CPU", "nvidia-smi");
    else
        fine(e, "CUDA", "not used: %s", status_text(failed));
    status_free(failed);
    look_at_nccl(e, gpus);
}

void look_at_gpu(struct examination *e) { look_at_cuda(e, look_at_gpus(e)); }
