/* prepared: puts a suite's parts together for plan and run. */
#include "harness/prepared.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "harness/cmd_common.h"
#include "harness/simulated.h"
#include "harness/units.h"

/* A missing database is no error here: nothing is done yet. */
static status open_when_there(const char *path, struct store **store) {
    *store = NULL;
    if (access(path, F_OK) != 0 && errno == ENOENT) return NULL;
    return store_open(store, path, STORE_READ);
}

static status prepare_parts(const struct invocation *in, struct prepared *p) {
    TRY(load_suite(in, &p->suite));
    TRY(open_when_there(cli_text(in, "db"), &p->store));
    TRY(datasets_open(&p->datasets, &p->suite, cli_text(in, "data")));
    TRY(plan_create(&p->plan, &p->suite, &p->datasets, suite_backend(&p->suite)));
    if (p->store) {
        TRY(store_check_declaration(p->store, &p->plan, &p->datasets));
        TRY(plan_refresh(&p->plan, p->store));
    }
    return plan_estimate(&p->plan, p->store, &p->estimate);
}

status prepare(const struct invocation *in, struct prepared *prepared) {
    *prepared = (struct prepared){0};
    status failed = prepare_parts(in, prepared);
    if (failed) prepared_free(prepared);
    return failed;
}

void prepared_free(struct prepared *prepared) {
    plan_free(&prepared->plan);
    datasets_close(&prepared->datasets);
    store_close(prepared->store);
    suite_free(&prepared->suite);
    *prepared = (struct prepared){0};
}

bool significance_warning(const struct prepared *prepared, char text[512]) {
    const struct plan_estimate *e = &prepared->estimate;
    const struct design *design = &prepared->suite.design;
    *text = 0;
    if (e->can_be_significant) return false;
    snprintf(text, 512,
             "no difference can be significant: with %d seeds the smallest p of %s is %.3g, corrected (%s) over %d "
             "comparisons at alpha %g",
             prepared->suite.seed_count, test_name(design->test), e->attainable_p, correction_name(design->correction),
             e->family, design->alpha);
    if (e->needed_seeds) text_append(text, 512, "; %zu seeds are needed", e->needed_seeds);
    return true;
}
