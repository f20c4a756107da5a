/* lanes: the CPU backend's lane_count and for_each; see struct backend in kernels/kernels.h. */
#pragma once
#include "kernels/kernels.h"

/* OMP_NUM_THREADS where it is set, else the processors this process may use. */
int cpu_lane_count(void);
void cpu_limit_lanes(int lanes);

/* One OpenMP thread per lane; inside a parallel region, the pieces run in order on lanes[0]. */
void cpu_for_each(struct lane *lanes, int lane_count, int pieces, piece_function function, void *context);
