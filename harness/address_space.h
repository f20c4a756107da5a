/* address_space: refuses a limit on memory under which OpenBLAS would never end its start. */
#pragma once

/* To be called before any library starts. OpenBLAS takes a buffer for each thread, the first while it is loaded, and
 * asks forever for one that RLIMIT_AS (ulimit -v) refuses: so this ends the program with a message and STATUS_SYSTEM.
 */
void address_space_check(int argc, char **argv, char **environment);
