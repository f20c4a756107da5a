/* prepared: a suite with its data, plan, store and estimate, ready to print or run. */
#pragma once
#include "harness/cli.h"
#include "harness/device.h"
#include "harness/plan.h"
#include "harness/store.h"
#include "harness/suite.h"

/* A suite with everything that planning it needs. The parts point into each other: do not copy it. */
struct prepared {
    struct suite suite;
    struct dataset_list datasets;
    struct plan plan;    /* what is to be done: of the suite, or of the part that --part names */
    struct plan whole;   /* the suite's, when plan is a part of it; else empty */
    struct store *store; /* opened for reading; NULL when there is no database yet */
    struct plan_estimate estimate;
    struct device_room room;  /* where the suite runs on a device */
    char device_problem[512]; /* why the device cannot be used; "" when it can */
};

/* From the first argument and --scale, --set, --jobs, --part, --db, --data. prepared_free takes a half-filled one, too.
 */
status prepare(const struct invocation *in, struct prepared *prepared);

/* The same without looking at the device, timing anything or taking a part. */
status prepare_plan(const struct invocation *in, struct prepared *prepared);
void prepared_free(struct prepared *prepared);

/* Where the suite runs on a device: an error unless it works and has the memory for the estimate's jobs. */
status prepared_check_device(const struct prepared *prepared);

/* A sentence on what cannot come out significant; returns false, with text "", when all is well. */
bool significance_warning(const struct prepared *prepared, char text[512]);
