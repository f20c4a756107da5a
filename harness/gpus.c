/* gpus: reads what nvidia-smi prints; see gpus.h. */
#include "harness/gpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/process.h"

/* What the program prints, or NULL when it is not there or fails; caller frees. */
static char *printed_by(const char *const *argv) {
    char path[4096], *output = NULL;
    int code = 0;
    if (!program_find(argv[0], path)) return NULL;
    status s = program_output(argv, &output, &code);
    if (!s && code == 0) return output;
    status_free(s);
    free(output);
    return NULL;
}

/* "NVIDIA H200, 550.54.15, 143771, 143000" with memory in MiB. */
static bool read_device(const char *line, struct gpu *gpu) {
    const double mebibyte = 1 << 20;
    *gpu = (struct gpu){0};
    if (sscanf(line, "%95[^,], %31[^,], %lf, %lf", gpu->name, gpu->driver, &gpu->memory, &gpu->memory_free) != 4)
        return false;
    gpu->memory *= mebibyte;
    gpu->memory_free *= mebibyte;
    return true;
}

static int read_devices(char *text, struct gpu *gpus, int most) {
    int count = 0;
    for (char *line; count < most && (line = strsep(&text, "\n"));) count += read_device(line, &gpus[count]);
    return count;
}

/* "GPU 0: NVIDIA H200 (UUID: ...)" and below it a line "Link 0: 26.562 GB/s" for each. */
static void read_links(char *text, struct gpu *gpus, int count) {
    struct gpu *gpu = NULL;
    for (char *line; (line = strsep(&text, "\n"));) {
        int number;
        double rate;
        if (sscanf(line, "GPU %d:", &number) == 1) gpu = number >= 0 && number < count ? &gpus[number] : NULL;
        if (!gpu || sscanf(line, " Link %d: %lf GB/s", &number, &rate) != 2) continue;
        gpu->links++;
        gpu->link_rate = 1e9 * rate;
    }
}

int gpus_list(struct gpu *gpus, int most) {
    static const char *const query[] = {"nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.free",
                                        "--format=csv,noheader,nounits", NULL};
    static const char *const links[] = {"nvidia-smi", "nvlink", "--status", NULL};
    char *text = printed_by(query);
    int count = text ? read_devices(text, gpus, most) : 0;
    free(text);
    if (count == 0) return 0;
    text = printed_by(links);
    if (text) read_links(text, gpus, count);
    free(text);
    return count;
}
