/* complaint: why gnuplot or LaTeX failed, in one line: what it said itself, and what the machine refuses. */
#pragma once
#include <stddef.h>

#include "kernels/status.h"

/* What a log ends with: the last message of `program` ("pdflatex: FILE: Too many open files", also behind other text
 * on its line), else the last line with anything in it; "" where there is no log. */
void complaint_last(const char *log, const char *program, char *line, size_t size);

/* "WHO failed with status CODE: LINE", and what is full or limited where the folder is. A program that cannot write
 * often cannot write why either. */
status complaint(const char *who, int code, const char *line, const char *folder);

/* STATUS_SYSTEM when the folder's disk has no room for a report. */
status complaint_no_room(const char *folder);
