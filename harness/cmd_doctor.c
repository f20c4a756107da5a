/* cmd_doctor: what this machine has, what is missing, what that costs, and the command that mends it. */
#include <dirent.h>
#include <libgen.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "harness/cmd_common.h"
#include "harness/doctor.h"
#include "harness/json_out.h"
#include "harness/process.h"
#include "harness/provenance.h"
#include "harness/store.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "harness/verbs.h"

#define TEMPLATE "reports/document.tex"
#define DICTIONARY "/usr/share/dictd/gcide.dict.dz"

static struct finding *add(struct examination *e, enum severity severity, const char *what) {
    int last = (int)(sizeof e->findings / sizeof *e->findings) - 1;
    struct finding *finding = &e->findings[e->count < last ? e->count++ : last];
    *finding = (struct finding){.severity = severity};
    snprintf(finding->what, sizeof finding->what, "%s", what);
    return finding;
}

void fine(struct examination *e, const char *what, const char *format, ...) {
    struct finding *finding = add(e, FINE, what);
    va_list args;
    va_start(args, format);
    vsnprintf(finding->text, sizeof finding->text, format, args);
    va_end(args);
}

void lacks(struct examination *e, enum severity severity, const char *what, const char *text, const char *cost,
           const char *mend) {
    struct finding *finding = add(e, severity, what);
    snprintf(finding->text, sizeof finding->text, "%s", text);
    snprintf(finding->cost, sizeof finding->cost, "%s", cost);
    snprintf(finding->mend, sizeof finding->mend, "%s", mend);
}

/* --- what is looked at ---------------------------------------------------------------------------------------- */

static void look_at_build(struct examination *e) {
    struct provenance provenance;
    provenance_collect(&provenance, backend_find("cpu"));
    for (int i = 0; i < provenance.count; i++)
        if (strcmp(provenance.rows[i].name, "gpu") != 0) /* look_at_gpu says more */
            fine(e, provenance.rows[i].name, "%s", provenance.rows[i].value);
}

static void look_at_memory(struct examination *e) {
    double page = (double)sysconf(_SC_PAGESIZE);
    char total[UNITS_CAPACITY], available[UNITS_CAPACITY];
    fine(e, "memory free", "%s of %s", format_bytes(page * (double)sysconf(_SC_AVPHYS_PAGES), available),
         format_bytes(page * (double)sysconf(_SC_PHYS_PAGES), total));
}

/* The folder, or the nearest one above it that exists. */
static void existing_folder(const char *file, char out[4096]) {
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", file);
    snprintf(out, 4096, "%s", dirname(copy));
    while (access(out, F_OK) != 0 && strcmp(out, ".") != 0 && strcmp(out, "/") != 0) {
        snprintf(copy, sizeof copy, "%s", out);
        snprintf(out, 4096, "%s", dirname(copy));
    }
}

static void look_at_disk(struct examination *e) {
    enum { LITTLE_SPACE = 1000000000 };
    char folder[4096], space[UNITS_CAPACITY];
    struct statvfs disk;
    existing_folder(e->database, folder);
    if (access(folder, W_OK) != 0) {
        lacks(e, STOPS_RUNS, "results", "the folder of the database cannot be written", "no run can be stored",
              "--db FILE in a folder of yours");
        return;
    }
    if (statvfs(folder, &disk) != 0) return;
    double available = (double)disk.f_bavail * (double)disk.f_frsize;
    format_bytes(available, space);
    if (available < LITTLE_SPACE)
        lacks(e, COSTS_SOMETHING, "disk", space, "checkpoints and weights of a larger suite may not fit",
              "--db FILE on a larger disk");
    else
        fine(e, "disk", "%s free for %s", space, e->database);
}

static void look_at_store(struct examination *e) {
    if (access(e->database, F_OK) != 0) {
        fine(e, "database", "%s is made by the first run", e->database);
        return;
    }
    struct store *store = NULL;
    status failed = store_open(&store, e->database, STORE_READ);
    if (failed)
        lacks(e, STOPS_RUNS, "database", status_text(failed), "its results cannot be read or added to", "--db FILE");
    else
        fine(e, "database", "%s, version %d", e->database, STORE_VERSION);
    status_free(failed);
    store_close(store);
}

static void look_at_text(struct examination *e) {
    if (access(DICTIONARY, R_OK) == 0)
        fine(e, "default text", "%s", DICTIONARY);
    else
        lacks(e, COSTS_SOMETHING, "default text", DICTIONARY " is missing",
              "hinge data prepare needs --text FILE; the published suites use this text", "apt-get install dict-gcide");
}

/* A dataset of the data folder: sound, or what is wrong with it. */
static bool look_at_dataset(struct examination *e, const char *name) {
    struct dataset dataset;
    char what[64], training[UNITS_CAPACITY], validation[UNITS_CAPACITY];
    snprintf(what, sizeof what, "data %.50s", name);
    status failed = dataset_open(&dataset, e->data_root, name);
    if (failed) {
        lacks(e, COSTS_SOMETHING, what, status_text(failed), "no suite on this text can run", "hinge data prepare");
        status_free(failed);
        return false;
    }
    fine(e, what, "%s + %s tokens, vocabulary %zu, every hash as in its manifest",
         format_count((long long)dataset.train.count, training),
         format_count((long long)dataset.validation.count, validation), dataset.vocab_size);
    dataset_close(&dataset);
    return true;
}

static void look_at_data(struct examination *e) {
    struct dirent **entries;
    int count = scandir(e->data_root, &entries, NULL, alphasort), sound = 0;
    for (int i = 0; i < count; i++) {
        char manifest[4096];
        snprintf(manifest, sizeof manifest, "%s/%s/manifest.json", e->data_root, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && access(manifest, F_OK) == 0)
            sound += look_at_dataset(e, entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    if (!sound) lacks(e, STOPS_RUNS, "data", "no prepared text", "nothing to train on", "hinge data prepare");
}

static void look_at_gnuplot(struct examination *e) {
    char path[4096], *version = NULL;
    int code = 0;
    if (!program_find("gnuplot", path)) {
        lacks(e, COSTS_SOMETHING, "gnuplot", "not found", "no figures, so no report", "apt-get install gnuplot-nox");
        return;
    }
    const char *const argv[] = {"gnuplot", "--version", NULL};
    status failed = program_output(argv, &version, &code);
    fine(e, "gnuplot", "%.*s", (int)strcspn(failed ? "" : version, "\n"), failed ? "" : version);
    status_free(failed);
    free(version);
}

/* --- LaTeX: the packages are read off the report's template --------------------------------------------------- */

enum { STYLES = 64 };

struct styles {
    int count;
    char names[STYLES][64]; /* "booktabs.sty" */
};

/* The names inside \usepackage[...]{a,b}, from the text behind the command. */
static void add_styles(struct styles *styles, const char *text) {
    if (*text == '[') text += strcspn(text, "]") + 1;
    if (*text != '{') return;
    size_t end = strcspn(text, "}"), at = 1;
    while (at < end && styles->count < STYLES) {
        at += strspn(text + at, " ,\n");
        size_t length = strcspn(text + at, " ,}\n");
        if (length)
            snprintf(styles->names[styles->count++], sizeof styles->names[0], "%.*s.sty", (int)length, text + at);
        at += length;
    }
}

static void read_styles(struct styles *styles) {
    char line[1024];
    FILE *file = fopen(TEMPLATE, "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        size_t comment = strcspn(line, "%");
        line[comment] = 0;
        for (const char *use = line; (use = strstr(use, "\\usepackage"));) {
            use += strlen("\\usepackage");
            add_styles(styles, use);
        }
    }
    fclose(file);
}

/* Names that kpsewhich does not find, as a list; "" when it finds all. */
static void missing_styles(const struct styles *styles, char out[512]) {
    const char *argv[STYLES + 2] = {"kpsewhich"};
    char *found = NULL;
    int code = 0;
    for (int i = 0; i < styles->count; i++) argv[i + 1] = styles->names[i];
    *out = 0;
    status failed = program_output(argv, &found, &code);
    for (int i = 0; i < styles->count && !failed; i++) {
        char ending[80];
        snprintf(ending, sizeof ending, "/%s\n", styles->names[i]);
        if (!strstr(found, ending)) text_append(out, 512, "%s%s", *out ? ", " : "", styles->names[i]);
    }
    status_free(failed);
    free(found);
}

static void look_at_latex(struct examination *e) {
    static const char mend[] = "apt-get install texlive-latex-extra texlive-fonts-recommended lmodern";
    char path[4096], missing[512];
    struct styles styles = {0};
    if (!program_find("pdflatex", path)) {
        lacks(e, COSTS_SOMETHING, "pdflatex", "not found", "no PDF report; hinge compare still prints the table", mend);
        return;
    }
    read_styles(&styles);
    if (!styles.count) {
        lacks(e, COSTS_SOMETHING, "reports", TEMPLATE " is not here", "hinge report needs --templates DIR",
              "run hinge in the folder that has reports/");
        return;
    }
    missing_styles(&styles, missing);
    if (*missing)
        lacks(e, COSTS_SOMETHING, "pdflatex", missing, "no PDF report; hinge compare still prints the table", mend);
    else
        fine(e, "pdflatex", "%s, with the %d packages that %s uses", path, styles.count, TEMPLATE);
}

/* --- output --------------------------------------------------------------------------------------------------- */

static void (*const looks[])(struct examination *) = {
    look_at_build, look_at_memory, look_at_disk,    look_at_store, look_at_gpu,
    look_at_text,  look_at_data,   look_at_gnuplot, look_at_latex,
};

static const char *severity_name(enum severity severity) {
    static const char *const names[] = {[FINE] = "ok", [COSTS_SOMETHING] = "missing", [STOPS_RUNS] = "STOPS RUNS"};
    return names[severity];
}

static void print_findings(const struct examination *e) {
    for (int i = 0; i < e->count; i++) {
        const struct finding *f = &e->findings[i];
        enum style style = f->severity == FINE ? STYLE_GOOD : f->severity == STOPS_RUNS ? STYLE_BAD : STYLE_WARN;
        printf("%s%-10s%s  %-14s %s\n", terminal_style(stdout, style), severity_name(f->severity),
               terminal_style(stdout, STYLE_PLAIN), f->what, f->text);
        if (f->severity != FINE) printf("%27scosts: %s\n%27smend:  %s\n", "", f->cost, "", f->mend);
    }
}

static json_t *findings_json(const struct examination *e, bool possible) {
    json_t *root = json_object(), *list = json_array();
    json_object_set_new(root, "runs_possible", json_boolean(possible));
    for (int i = 0; i < e->count; i++) {
        const struct finding *f = &e->findings[i];
        json_t *object = json_object();
        json_object_set_new(object, "what", json_text(f->what));
        json_object_set_new(object, "state", json_text(severity_name(f->severity)));
        json_object_set_new(object, "found", json_text(f->text));
        json_object_set_new(object, "cost", json_text(f->cost));
        json_object_set_new(object, "mend", json_text(f->mend));
        json_array_append_new(list, object);
    }
    json_object_set_new(root, "findings", list);
    return root;
}

static const struct finding *worst(const struct examination *e) {
    for (int i = 0; i < e->count; i++)
        if (e->findings[i].severity == STOPS_RUNS) return &e->findings[i];
    return NULL;
}

static status run(const struct invocation *in) {
    struct examination *e = calloc(1, sizeof *e);
    if (!e) return status_new(STATUS_SYSTEM, "out of memory");
    e->database = cli_text(in, "db");
    e->data_root = cli_text(in, "data");
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) looks[i](e);
    const struct finding *stops = worst(e);
    status failed = NULL;
    if (cli_switch(in, "json"))
        failed = json_print(stdout, findings_json(e, !stops));
    else
        print_findings(e);
    if (!failed && stops)
        failed = status_new(STATUS_SYSTEM, "no run is possible yet: %s: %s; mend: %s", stops->what, stops->text,
                            stops->mend);
    free(e);
    return failed;
}

static const struct flag_row flags[] = {FLAG_ROW_DB, FLAG_ROW_DATA, FLAG_ROW_JSON, FLAGS_END};

static const char *const examples[] = {"hinge doctor", "hinge doctor --json", NULL};

const struct verb verb_doctor = {
    .name = "doctor",
    .purpose = "this machine and its data: what is missing, what it costs, how to mend it",
    .arguments = "",
    .least = 0,
    .most = 0,
    .flags = flags,
    .examples = examples,
    .run = run,
};
