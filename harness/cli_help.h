/* cli_help: help for the program and for one verb; used by cli.c alone. */
#pragma once
#include <stdio.h>

#include "harness/cli.h"

void help_program(FILE *out, const struct program *program);
void help_verb(FILE *out, const struct program *program, const struct verb *verb);
