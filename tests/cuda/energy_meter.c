/* energy_meter: see energy_meter.h; from the driver's management library, NVML, loaded when first asked. */
#include "tests/cuda/energy_meter.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>

/* As its header declares them, which is a package of its own; 0 is success. */
typedef int begin_function(void);
typedef int find_function(const char *bus, void **device);
typedef int energy_function(void *device, unsigned long long *millijoules);

/* NULL where the meter cannot be had. */
static energy_function *open_meter(const char *bus, void **device) {
    void *library = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!library) return NULL;
    begin_function *begin = (begin_function *)dlsym(library, "nvmlInit_v2");
    find_function *find = (find_function *)dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
    if (!begin || !find || begin() || find(bus, device)) return NULL;
    return (energy_function *)dlsym(library, "nvmlDeviceGetTotalEnergyConsumption");
}

double energy_used(const char *bus) {
    static energy_function *energy;
    static void *device;
    static bool opened;
    unsigned long long millijoules;
    if (!opened) energy = open_meter(bus, &device), opened = true;
    return energy && !energy(device, &millijoules) ? (double)millijoules / 1e3 : -1;
}
