/* calibration: the A/A test of each compared variant's own runs (stats/relabel.h), as report and trace show it. */
#pragma once
#include "harness/report/analysis.h"

enum { CALIBRATED_VARIANTS = 20, CALIBRATION_RELABELLINGS = 2000 };

/* Fills a->calibrations, in the order of the table's rows; values is 0 where there are too few or too many variants. */
status calibrations_make(struct analysis *a);
