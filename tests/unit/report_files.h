/* report_files: a scratch folder for the reports that a test writes, and what lies in it. */
#pragma once
#include <stdbool.h>

extern char scratch[64];

/* Set-up and tear-down of a group of tests. */
int make_scratch(void **state);
int remove_scratch(void **state);

const char *in_scratch(const char *name); /* a path in it, until three more were asked for */
bool exists(const char *path);
char *contents(const char *path); /* the caller frees */
void assert_holds(const char *text, const char *part);
