/* bus_error: tells of a file that is mapped into memory and has no room, where a write would have told by its errno.
 *
 * SQLite maps the -shm file beside a database. Where a file system takes room for a page only when the page changes, as
 * btrfs does, a full disk or quota ends the program with SIGBUS. With this it ends with a message that names the file
 * and with STATUS_SYSTEM; what is on disk is whole at any moment. */
#pragma once

void bus_error_install(void); /* once, at the start; workers inherit it */
