/* doctor: what is found of this machine, part by part, for cmd_doctor.c and its parts. */
#pragma once

enum severity { FINE, COSTS_SOMETHING, STOPS_RUNS };

struct finding {
    enum severity severity;
    char what[64], text[512], cost[256], mend[128];
};

struct examination {
    const char *database, *data_root;
    int count;
    struct finding findings[64];
};

__attribute__((format(printf, 3, 4))) void fine(struct examination *e, const char *what, const char *format, ...);
/* What is missing or does not work, what that costs, and the command that mends it. */
void lacks(struct examination *e, enum severity severity, const char *what, const char *text, const char *cost,
           const char *mend);

/* GPUs, their driver and links, and what runs make of them. */
void look_at_gpu(struct examination *e);
