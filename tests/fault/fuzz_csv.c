/* fuzz_csv: observations from a CSV file. */
#include <string.h>

#include "harness/stats/csv.h"
#include "tests/fault/fuzz.h"

static void read_csv(const char *path) {
    struct csv_observations csv;
    status s = csv_read(path, &csv);
    if (!s) csv_free(&csv);
    status_free(s);
}

static void seeds(void) {
    static const char plain[] = "variant,seed,value\nnone,1,1.25\nnone,2,1.5\nwide,1,nan\nwide,2,failed\n";
    static const char quoted[] = "\xEF\xBB\xBFseed,\"variant\",note,value\r\n1,\"a, \"\"b\"\"\n\",x,-1e-3\r\n\r\n";
    fuzz_seed("plain", -1, plain, strlen(plain));
    fuzz_seed("quoted", -1, quoted, strlen(quoted));
}

/* A row is made for every end of a line. */
const struct fuzz_target fuzz_target = {.spare = 1 << 18, .factor = 64, .read = read_csv, .seeds = seeds};
