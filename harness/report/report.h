/* report: results to figures (gnuplot), tables and a document (LaTeX). Data reaches both programs through files and
 * arguments, never through a shell; LaTeX runs without shell escape. */
#pragma once
#include "harness/results.h"

struct report_request {
    const struct results *results;
    const char *output_directory;                                       /* reports/out; made when missing */
    const char *templates;                                              /* folder with document.tex and *.gp */
    bool (*progress)(void *context, const char *what, double fraction); /* true: stop */
    void *context;
};

/* Leaves SUITE.pdf, and beside it SUITE/: every table as .tex and .csv, every figure as .pdf, .png and .svg with its
 * data. A failure of gnuplot or LaTeX names the figure or line and the log. Returns the PDF's path in pdf. */
status report_write(const struct report_request *request, char pdf[4096]);
