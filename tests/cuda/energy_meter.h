/* energy_meter: the energy that a device has used, from its own meter.
 *
 * A device at its power limit lowers its clocks: what a kernel takes among others is then less a matter of its time
 * alone than of its energy. */
#pragma once

/* Of the device on PCI bus `bus` (cudaDeviceGetPCIBusId), joules since its driver was loaded, in steps that the device
 * takes some tens of times a second; below 0 where there is no such meter. One device for a process. */
double energy_used(const char *bus);
