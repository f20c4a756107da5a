/* lanes: how many threads run at once, and handing pieces of work to them. */
#include "kernels/cpu/lanes.h"

#include <cblas.h>
#include <omp.h>
#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int threads;

/* A forked child has none of its parent's threads, yet OpenMP would wait for them: so they end before a fork. */
static void end_threads(void) { omp_pause_resource_all(omp_pause_soft); }

static void start_up(void) {
    threads = omp_get_max_threads();
    pthread_atfork(end_threads, NULL, NULL);
}

/* One op is one lane's work, so BLAS must not split it: its bits would depend on the thread count. OpenBLAS built
 * with OpenMP asks the calling thread's OpenMP setting at every call, hence this is done for every caller. */
static void hold_blas_to_one_thread(void) {
    pthread_once(&once, start_up);
    if (omp_get_max_threads() != 1) openblas_set_num_threads(1);
    omp_set_num_threads(1);
}

int cpu_lane_count(void) {
    hold_blas_to_one_thread();
    return threads;
}

void cpu_limit_lanes(int lanes) {
    pthread_once(&once, start_up);
    threads = lanes < threads ? lanes : threads;
    if (threads < 1) threads = 1;
}

void cpu_for_each(struct lane *lanes, int lane_count, int pieces, piece_function function, void *context) {
    hold_blas_to_one_thread();
    int wanted = lane_count < pieces ? lane_count : pieces;
    if (wanted <= 1 || omp_in_parallel()) {
        for (int piece = 0; piece < pieces; piece++) function(context, piece, lanes);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(wanted)
    for (int piece = 0; piece < pieces; piece++) function(context, piece, &lanes[omp_get_thread_num()]);
}
