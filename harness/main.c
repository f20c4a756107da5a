/* main: the table of verbs, and the only place that turns a status into a message and an exit code. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>

#include "harness/address_space.h"
#include "harness/bus_error.h"
#include "harness/cli.h"
#include "harness/verbs.h"

static const struct verb *const verbs[] = {
    &verb_data_prepare, &verb_data_add, &verb_data_list,  &verb_list,
    &verb_plan,         &verb_run,      &verb_submit,     &verb_merge,
    &verb_status,       &verb_show,     &verb_compare,    &verb_report,
    &verb_trace,        &verb_power,    &verb_gate,       &verb_calibrate,
    &verb_reproduce,    &verb_export,   &verb_submission, &verb_verify,
    &verb_doctor,       NULL,
};

static const char notes[] =
    "`hinge help VERB` prints a verb's flags and examples. Exit status:\n"
    "  0    good\n"
    "  2    usage: the command line or a suite asks for something impossible\n"
    "  3    data: damaged, of another version or size, or not prepared or run yet\n"
    "  4    system: disk, memory, permission, a missing file or program\n"
    "  5    diverged: a run's numbers stopped being finite\n"
    "  6    a check was made and did not hold (verify, reproduce)\n"
    "  0, 1, 2  of `hinge gate`: the required difference holds, does not, cannot be told; 64: its usage\n"
    "  130  interrupted by Ctrl-C; everything done so far is kept\n";

static const struct program program = {
    .name = "hinge",
    .version = "0.1.0",
    .purpose = "which differences between very small language models are real",
    .verbs = verbs,
    .notes = notes,
};

/* What is large is given back to the system as soon as it is freed: otherwise glibc raises its threshold with every
 * such piece, and a suite of many stages comes to hold far more than its largest stage needs. */
static void return_large_memory(void) { mallopt(M_MMAP_THRESHOLD, 1 << 20); }

/* The one place from which code runs before that of shared libraries. */
__attribute__((section(".preinit_array"), used)) static void (*const before_libraries)(int, char **,
                                                                                       char **) = address_space_check;

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a write beyond RLIMIT_FSIZE then fails with EFBIG, which is reported */
    bus_error_install();
    return_large_memory();
    status result = cli_main(&program, argc, argv);
    if (!result) return 0;
    int code = status_kind(result);
    fflush(stdout);
    fprintf(stderr, "hinge: %s\n", status_text(result));
    status_free(result);
    return code;
}
