/* sizes: the table of artifact sizes; see sizes.h. */
#include "harness/report/sizes.h"

#include <math.h>

#include "harness/report/grid.h"
#include "model/artifact.h"

static void size_row(const struct analysis *a, struct grid *g, int variant) {
    const struct variant_figures *f = &a->variants[variant];
    grid_variant(g, a->results->variants[variant].name, a->results->variants[variant].late);
    grid_integer(g, f->bytes.mean);
    grid_interval(g, f->bytes.min, f->bytes.max, 0);
    grid_integer(g, f->larger.summary.mean);
    grid_interval(g, f->larger.low, f->larger.high, 0);
    grid_integer(g, f->bytes.n ? ARTIFACT_CAP_BYTES - f->bytes.max : (double)NAN);
}

status sizes_write(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"},
        {"file", "r", "artifact_bytes"},
        {"least to most", "r", "artifact_bytes_min,artifact_bytes_max"},
        {"larger", "r", "larger"},
        {"interval", "r", "larger_low,larger_high"},
        {"left of the cap", "r", "left_of_cap"},
    };
    struct grid g;
    grid_start(&g, columns, sizeof columns / sizeof *columns, false, a->caveats);
    for (int v = 0; v < a->results->variant_count; v++) size_row(a, &g, v);
    return grid_write(&g, folder, "sizes");
}
