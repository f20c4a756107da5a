/* verbs: every verb's row, each defined in its cmd_<verb>.c; main.c puts them in the order of the help. */
#pragma once
#include "harness/cli.h"

extern const struct verb verb_verify;
