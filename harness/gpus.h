/* gpus: the NVIDIA devices of this machine as nvidia-smi tells of them, whether this build uses them or not. */
#pragma once

struct gpu {
    char name[96], driver[32];
    double memory, memory_free; /* bytes */
    int links;                  /* NVLinks that are up */
    double link_rate;           /* bytes/s of one of them */
};

/* At most `most`, in nvidia-smi's order; 0 where there is no nvidia-smi, no driver or no device. */
int gpus_list(struct gpu *gpus, int most);
