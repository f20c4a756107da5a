/* interrupt: Ctrl-C as a flag that long work reads. The first one asks for a clean stop, the second ends the program at
 * once (what is on disk is whole at any moment). */
#pragma once
#include <stdbool.h>

void interrupt_install(void); /* SIGINT and SIGTERM; once, at the start of a long verb */
bool interrupt_requested(void);
