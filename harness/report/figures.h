/* figures: data and settings for the gnuplot templates, and gnuplot itself. */
#pragma once
#include "harness/report/analysis.h"

/* Writes settings.gp and every figure's data into the folder, in which the templates lie, and draws what there is data
 * for as .pdf, .png and .svg. A failure names the figure and its log. */
typedef status (*figures_progress)(void *context, const char *what, double fraction);
status figures_draw(const struct analysis *a, const char *folder, figures_progress progress, void *context);

/* Steps about each one that the curves' losses are the mean of: an odd number, 1 for no smoothing. */
int figures_smoothing_steps(const struct results *results);
