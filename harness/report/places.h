/* places: what a run holds, by name: its value in memory, and where it stands in the database. */
#pragma once
#include "harness/report/text.h"
#include "harness/results.h"

struct place;

/* NULL when there is none of that name. All metrics of metric_rows are places. */
const struct place *place_find(const char *name);
const char *place_name(const struct place *place);
double place_value(const struct place *place, const struct result_run *run); /* NAN when the run does not have it */

/* A column of a query over runs r: "(SELECT ...) AS "NAME"". */
void place_column(const struct place *place, struct text *sql);
