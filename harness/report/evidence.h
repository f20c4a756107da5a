/* evidence: the tables behind the verdicts: all intervals, the variance by source, the A/A calibration, and the runs of
 * every number. */
#pragma once
#include "harness/report/analysis.h"

/* Writes intervals, sources, calibration, looks, numbers and trace into the folder; needs a comparison and its
 * calibrations. */
status evidence_write(const struct analysis *a, const char *folder);
