/* report: builds a report in a fresh folder and puts it in place when it is complete; see report.h. */
#include "harness/report/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/report/analysis.h"
#include "harness/report/calibration.h"
#include "harness/report/caveats.h"
#include "harness/report/complaint.h"
#include "harness/report/evidence.h"
#include "harness/report/figure_data.h"
#include "harness/report/figures.h"
#include "harness/report/methods.h"
#include "harness/report/program.h"
#include "harness/report/published.h"
#include "harness/report/scratch.h"
#include "harness/report/sizes.h"
#include "harness/report/tables.h"
#include "harness/simulated.h"

enum { PATH_SIZE = 4096, FAILED_SIZE = PATH_SIZE + 16, MOST_PASSES = 5 };

static const char *const templates[] = {"document.tex", "style.gp",  "differences.gp", "slopes.gp",
                                        "looks.gp",     "curves.gp", "stages.gp",      "front.gp"};

struct build {
    const struct report_request *request;
    struct analysis analysis;
    char slug[256]; /* what its files are called */
    struct scratch scratch;
    const char *folder;    /* of the scratch: where it is made */
    char final[PATH_SIZE]; /* where its folder goes */
};

/* --- files -------------------------------------------------------------------------------------------------------- */

static status join(char path[PATH_SIZE], const char *folder, const char *name) {
    if (snprintf(path, PATH_SIZE, "%s/%s", folder, name) < PATH_SIZE) return NULL;
    return status_new(STATUS_USAGE, "%.200s...: the path is too long", folder);
}

static status make_folders(const char *path) {
    char part[PATH_SIZE];
    size_t length = strlen(path);
    if (!length || length >= PATH_SIZE) return status_new(STATUS_USAGE, "the output folder needs a usable name");
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i]) continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return status_errno("%s: cannot be made", part);
    }
    return NULL;
}

static status copy_stream(FILE *from, FILE *to, const char *path) {
    char block[1 << 14];
    size_t n;
    while ((n = fread(block, 1, sizeof block, from)) > 0)
        if (fwrite(block, 1, n, to) != n) return status_errno("%s: cannot be written", path);
    return ferror(from) ? status_errno("cannot read the template of %s", path) : NULL;
}

static status copy_file(const char *source, const char *target) {
    FILE *from = fopen(source, "rb"), *to = NULL;
    if (!from) return status_errno("%s: cannot read this template; --templates names their folder", source);
    status failure =
        (to = fopen(target, "wb")) ? copy_stream(from, to, target) : status_errno("%s: cannot be written", target);
    fclose(from);
    if (to && fclose(to) != 0 && !failure) failure = status_errno("%s: cannot be written", target);
    return failure;
}

static status copy_templates(const struct build *b) {
    char source[PATH_SIZE], target[PATH_SIZE];
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        TRY(join(source, b->request->templates, templates[i]));
        TRY(join(target, b->folder, templates[i]));
        TRY(copy_file(source, target));
    }
    return NULL;
}

static status write_part(const struct build *b, struct text *t, const char *name) {
    char path[PATH_SIZE];
    status failure = join(path, b->folder, name);
    if (!failure) failure = text_write(t, path);
    text_free(t);
    return failure;
}

/* --- the document's inputs --------------------------------------------------------------------------------------- */

static void define(struct text *t, const char *macro, const char *utf8) {
    text_add(t, "\\newcommand{\\%s}{", macro);
    text_latex(t, utf8);
    text_add(t, "}\n");
}

/* The head of a page has the name beside the counts. */
static void define_title(const struct results *r, const struct text *counts, struct text *t) {
    enum { HEAD_LETTERS = 92, LEAST = 20 };
    size_t taken = text_width(text_of(counts));
    struct text name = {0}, brief = {0};
    text_add(&name, "%s%s%s%s%s", r->suite, *r->scale ? " (scale " : "", r->scale, *r->scale ? ")" : "",
             simulated_note(r) ? " (simulated)" : "");
    define(t, "SuiteName", text_of(&name));
    text_short(&brief, text_of(&name), taken + LEAST < HEAD_LETTERS ? HEAD_LETTERS - taken : LEAST);
    define(t, "SuiteShort", text_of(&brief));
    text_free(&brief);
    text_slug(&brief, text_of(&name)); /* PDF metadata knows no markup */
    define(t, "SuiteTitlePlain", text_of(&brief));
    text_free(&brief);
    text_free(&name);
}

/* Where some runs blew up and others did not. */
static bool axes_leave_out(const struct analysis *a) {
    int blown_up = 0;
    for (int i = 0; i < a->results->run_count; i++) blown_up += *a->results->runs[i].training_note != '\0';
    return blown_up > 0 && blown_up < a->results->run_count;
}

static void define_captions(const struct analysis *a, struct text *t) {
    char caption[256] = "";
    define(t, "AxesCaption", axes_leave_out(a) ? ". The axis is that of the runs that did not blow up" : "");
    if (a->design.margin > 0.0)
        snprintf(caption, sizeof caption, "; the shaded band is the margin, ±%g", a->design.margin);
    define(t, "MarginCaption", caption);
    int smoothed = figures_smoothing_steps(a->results);
    snprintf(caption, sizeof caption, ", smoothed by a centred mean over %d steps", smoothed);
    define(t, "SmoothingCaption", smoothed > 1 ? caption : ", not smoothed");
    double unigram = a->results->unigram_bpb;
    snprintf(caption, sizeof caption, "; dashed: the add-one unigram model of the same tokens, %.4f", unigram);
    define(t, "UnigramCaption", isfinite(unigram) && unigram > 0.0 ? caption : "");
    size_t fewest = SIZE_MAX;
    for (int r = 1; a->compared && r < a->table.count; r++)
        if (isfinite(a->table.rows[r].bca_low) && a->table.rows[r].pairs < fewest) fewest = a->table.rows[r].pairs;
    snprintf(caption, sizeof caption,
             " With as few as %zu pairs the bootstrap covers less than it says; read it beside t, not instead.",
             fewest);
    define(t, "BootstrapCaption", fewest <= FEW_SEEDS ? caption : "");
    snprintf(caption, sizeof caption, " (of %d seeds the first %d)", a->results->seed_count, MOST_LINES);
    define(t, "SeedsCaption", a->results->seed_count > MOST_LINES ? caption : "");
    snprintf(caption, sizeof caption, " (legend: the seed%s)", a->results->seed_count == 1 ? "" : "s");
    define(t, "SeedsLegend", a->results->seed_count <= TOLD_SEEDS ? caption : "");
    define(t, "TogetherCaption", a->design.looks ? "Bonferroni, and over all looks" : "Bonferroni");
    define(t, "TogetherName", a->table.groups > 1 ? "all comparisons of its family" : "all comparisons");
    define(t, "VerdictRule", a->design.looks ? "the boundaries of the declared looks" : "the corrected p");
    define(t, "IntervalCaption", test_pairs(a->design.test) ? "Student's t on the differences" : "Welch's");
    define(t, "PairingCaption", test_pairs(a->design.test) ? "paired by seed" : "between two samples");
    define(t, "CapCaption", ", and the cap of 16,000,000 bytes");
    snprintf(caption, sizeof caption, "%g %%", 100.0 * (1.0 - a->design.alpha));
    define(t, "IntervalName", caption);
}

static void add_counts(const struct analysis *a, struct text *t) {
    const struct results *r = a->results;
    text_add(t, "%d variants × %d seeds, %d of %d runs finished", r->variant_count, r->seed_count, a->done, a->planned);
    if (a->spared) text_add(t, ", %d not needed", a->spared);
}

/* body: NULL for the head alone. */
static void add_box(struct text *t, const char *head, const char *body) {
    text_add(t, "\\noindent\\colorbox{notice}{\\parbox{\\dimexpr\\textwidth-2\\fboxsep}{\\textbf{");
    text_latex(t, head);
    text_add(t, ".}");
    if (body) text_add(t, " "), text_latex(t, body);
    text_add(t, "}}\\par\\vspace{0.6ex}");
}

static void define_notice(const struct analysis *a, struct text *t) {
    struct text notice = {0}, blown_up = {0};
    caveats_blown_up(a->results, &blown_up);
    if (a->missing || a->failed) {
        text_add(&notice, "This suite is not complete: of %d planned runs %d are done", a->planned, a->done);
        if (a->failed) text_add(&notice, ", %d failed", a->failed);
        if (a->missing) text_add(&notice, ", %d have not finished", a->missing);
        text_add(&notice, a->missing ? ". Figures and verdicts are preliminary and may change." : ".");
    }
    text_add(t, "\\newcommand{\\Notice}{");
    if (simulated_note(a->results)) add_box(t, simulated_note(a->results), NULL);
    if (notice.size) add_box(t, "Incomplete", text_of(&notice));
    if (blown_up.size) add_box(t, "Blown up", text_of(&blown_up));
    text_add(t, "}\n");
    text_free(&notice);
    text_free(&blown_up);
}

/* In place of the calibration, where no variant has runs enough: the numbers to it are named all the same. */
static void define_calibration_note(const struct analysis *a, struct text *t) {
    bool any = !a->calibrations;
    for (int r = 0; !any && r < a->table.count; r++) any = a->calibrations[r].values > 0;
    text_add(t, "\\newcommand{\\CalibrationNote}{");
    if (!any)
        text_add(t,
                 "\\section{Calibration}\nNot measured: to tell how often a difference is called where there is none "
                 "takes at least %d finished runs of one variant, and no variant has so many.",
                 RELABEL_LEAST);
    text_add(t, "}\n");
}

static status write_facts(const struct build *b) {
    const struct analysis *a = &b->analysis;
    const struct results *r = a->results;
    struct text t = {0}, counts = {0}, metric = {0}, baseline = {0};
    add_counts(a, &counts);
    define_title(r, &counts, &t);
    define(&t, "Question", r->question);
    define(&t, "DeclaredAt", *r->declared_at ? r->declared_at : "at an unrecorded time");
    define(&t, "Counts", text_of(&counts));
    text_add(&metric, "%s in %s", r->metric, a->metric->unit);
    define(&t, "MetricLine", text_of(&metric));
    text_short(&baseline, a->design.baseline, 40);
    define(&t, "BaselineName", text_of(&baseline));
    define_captions(a, &t);
    define_notice(a, &t);
    define_calibration_note(a, &t);
    text_free(&counts);
    text_free(&metric);
    text_free(&baseline);
    return write_part(b, &t, "facts.tex");
}

/* Whether what is shipped knows more than how often each token occurs; the raw weights where nothing was stored. */
static void say_learning(const struct analysis *a, struct text *latex) {
    double least = INFINITY, most = -INFINITY, unigram = a->results->unigram_bpb;
    bool stored = false;
    for (int v = 0; v < a->results->variant_count; v++) stored |= a->variants[v].artifact.n > 0;
    for (int v = 0; v < a->results->variant_count; v++) {
        const struct summary *s = stored ? &a->variants[v].artifact : &a->variants[v].raw;
        if (!s->n) continue;
        least = fmin(least, s->min);
        most = fmax(most, s->max);
    }
    if (!(unigram > 0.0) || most < least) return;
    struct text t = {0};
    text_add(&t, "The %s of the finished runs reach ", stored ? "decoded artifacts" : "raw weights");
    text_number(&t, least, a->bpb_decimals);
    text_add(&t, " to ");
    text_number(&t, most, a->bpb_decimals);
    text_add(&t, " bits per byte, an add-one unigram model of the same tokens ");
    text_number(&t, unigram, a->bpb_decimals);
    text_add(&t, "; %s of them %s under it.",
             most < unigram    ? "all"
             : least < unigram ? "some"
                               : "none",
             least < unigram ? "are" : "is");
    text_add(latex, "\\item ");
    text_latex(latex, text_of(&t));
    text_add(latex, "\n");
    text_free(&t);
}

static status write_findings(const struct build *b) {
    const struct analysis *a = &b->analysis;
    struct text t = {0};
    if (!a->compared) {
        text_latex(&t, "No comparison is possible yet: ");
        text_latex(&t, a->not_compared);
        text_add(&t, ".\n");
        return write_part(b, &t, "findings.tex");
    }
    text_add(&t, "\\begin{itemize}\n");
    say_learning(a, &t);
    for (int v = 1; v < a->table.count; v++) {
        struct text sentence = {0};
        sentence_verdict(&sentence, &a->wording, &a->table.rows[v]);
        text_add(&t, "\\item ");
        text_latex(&t, text_of(&sentence));
        text_add(&t, "\n");
        text_free(&sentence);
    }
    if (a->table.count < 2) text_add(&t, "\\item No variant but the baseline has a finished run.\n");
    text_add(&t, "\\end{itemize}\n");
    return write_part(b, &t, "findings.tex");
}

static status write_methods(const struct build *b) {
    struct text t = {0};
    methods_write(&b->analysis, &t);
    return write_part(b, &t, "methods.tex");
}

/* --- LaTeX -------------------------------------------------------------------------------------------------------- */

/* The first line "./file.tex:12: what" of the log, or "" when there is none; tells whether another pass is needed. */
static status read_log(const struct build *b, char error[512], bool *again) {
    char path[PATH_SIZE], line[4096];
    *error = '\0';
    *again = false;
    TRY(join(path, b->folder, "document.log"));
    FILE *log = fopen(path, "rb");
    if (!log) return NULL; /* LaTeX did not come so far */
    while (fgets(line, sizeof line, log)) {
        *again |=
            strstr(line, "Rerun to get") || strstr(line, "Rerun LaTeX") || strstr(line, "Table widths have changed");
        bool places = strncmp(line, "./", 2) == 0 && strstr(line, ".tex:");
        if (*error || (!places && *line != '!')) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(error, 512, "%.511s", line);
    }
    fclose(log);
    return NULL;
}

static status latex_pass(const struct build *b, bool *again) {
    const char *const argv[] = {"pdflatex",
                                "-no-shell-escape",
                                "-interaction=nonstopmode",
                                "-halt-on-error",
                                "-file-line-error",
                                "-cnf-line=max_print_line=1000",
                                "document.tex",
                                NULL};
    char error[512], output[PATH_SIZE];
    int code;
    TRY(program_run(argv, "texlive-latex-base", b->folder, "latex.out", &code));
    TRY(read_log(b, error, again));
    if (!code) return NULL;
    TRY(join(output, b->folder, "latex.out"));
    if (!*error) complaint_last(output, argv[0], error, sizeof error);
    return complaint("LaTeX", code, error, b->folder);
}

static status run_latex(const struct build *b) {
    bool again = true;
    for (int pass = 0; pass < MOST_PASSES && again; pass++) TRY(latex_pass(b, &again));
    return NULL;
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

static status advance(void *context, const char *what, double fraction) {
    const struct report_request *request = context;
    if (!request->progress || !request->progress(request->context, what, fraction)) return NULL;
    return status_new(STATUS_INTERRUPTED, "the report was interrupted; nothing was changed");
}

/* Ctrl-C ends gnuplot and LaTeX as well: what then looks like their failure is none. */
static status unless_interrupted(const struct build *b, status failure) {
    status interrupted = advance((void *)b->request, "stopping", 1.0);
    if (!interrupted) return failure;
    status_free(failure);
    return interrupted;
}

static status make_parts(struct build *b) {
    void *context = (void *)b->request;
    TRY(copy_templates(b));
    TRY(advance(context, "tables", 0.0));
    TRY(tables_write(&b->analysis, b->folder));
    TRY(sizes_write(&b->analysis, b->folder));
    TRY(published_write(&b->analysis, b->folder));
    if (b->analysis.compared) TRY(calibrations_make(&b->analysis));
    if (b->analysis.compared) TRY(evidence_write(&b->analysis, b->folder));
    TRY(write_facts(b));
    TRY(write_findings(b));
    TRY(write_methods(b));
    TRY(figures_draw(&b->analysis, b->folder, advance, context));
    TRY(advance(context, "document", 0.6));
    TRY(run_latex(b));
    return advance(context, "done", 1.0);
}

/* A folder that stands in the way is replaced only when it is an earlier report. */
static status check_replaceable(const char *folder) {
    char path[PATH_SIZE];
    if (access(folder, F_OK) != 0) return NULL;
    TRY(join(path, folder, "facts.tex"));
    if (access(path, F_OK) == 0) return NULL;
    return status_new(STATUS_USAGE, "%s exists and is no report; remove it, or choose another folder with -o", folder);
}

/* Where it stays when it fails, until one succeeds. */
static void name_failed(const struct build *b, char path[FAILED_SIZE]) {
    snprintf(path, FAILED_SIZE, "%s.failed", b->final);
}

static status name_pdf(const struct build *b, char pdf[PATH_SIZE]) {
    char name[sizeof b->slug + 8];
    snprintf(name, sizeof name, "%s.pdf", b->slug);
    return join(pdf, b->request->output_directory, name);
}

/* The PDF leaves its folder last. Folder and PDF are two names, which cannot both change in one step: as long as a
 * document.pdf lies in the folder, the PDF beside it is that of the report before. */
static status put_pdf(const struct build *b, const char *pdf) {
    char path[PATH_SIZE];
    TRY(join(path, b->final, "document.pdf"));
    return rename(path, pdf) == 0 ? NULL : status_errno("%s: cannot be put in place", pdf);
}

static status put_both(const struct build *b, const char *pdf) {
    TRY(scratch_put(&b->scratch, b->final));
    status failure = put_pdf(b, pdf);
    if (failure) scratch_take_back(&b->scratch, b->final);
    return failure;
}

/* The output folder is locked meanwhile: another report of this suite would take away the PDF of this one. */
static status put_locked(const struct build *b, status (*put)(const struct build *b, const char *pdf)) {
    char pdf[PATH_SIZE];
    TRY(name_pdf(b, pdf));
    int lock = folder_lock(b->request->output_directory);
    if (lock < 0) return status_errno("%s: cannot be locked", b->request->output_directory);
    status failure = put(b, pdf);
    close(lock);
    return failure;
}

static status put_pdf_left_behind(const struct build *b, const char *pdf) {
    char path[PATH_SIZE];
    TRY(join(path, b->final, "document.pdf"));
    return access(path, F_OK) == 0 ? put_pdf(b, pdf) : NULL;
}

/* What a report did that was killed between its last two steps is done for it, even if this one then fails. */
static status finish_earlier(const struct build *b) { return put_locked(b, put_pdf_left_behind); }

static status put_in_place(const struct build *b, char pdf[PATH_SIZE]) {
    static const char *const leftovers[] = {"document.aux", "document.out", "latex.out"};
    char path[FAILED_SIZE];
    for (size_t i = 0; i < sizeof leftovers / sizeof *leftovers; i++) {
        TRY(join(path, b->folder, leftovers[i]));
        remove(path);
    }
    TRY(name_pdf(b, pdf));
    TRY(put_locked(b, put_both));
    name_failed(b, path);
    folder_remove(path);
    return NULL;
}

/* What failed stays beside the reports, with its logs. */
static status keep_failed(const struct build *b, status failure) {
    char kept[FAILED_SIZE];
    if (status_kind(failure) == STATUS_INTERRUPTED) return failure;
    name_failed(b, kept);
    folder_remove(kept);
    if (rename(b->folder, kept) != 0) return failure;
    return status_context(failure, "report of '%s' (files and logs are in %s)", b->request->results->suite, kept);
}

static void name_slug(struct build *b) {
    struct text name = {0};
    text_file_name(&name, b->request->results->suite, b->request->results->scale);
    snprintf(b->slug, sizeof b->slug, "%s", text_of(&name));
    text_free(&name);
}

static status make_report(struct build *b, char pdf[PATH_SIZE]) {
    name_slug(b);
    TRY(make_folders(b->request->output_directory));
    TRY(join(b->final, b->request->output_directory, b->slug));
    TRY(check_replaceable(b->final));
    TRY(finish_earlier(b));
    status failure = scratch_make(&b->scratch, b->request->output_directory, b->slug);
    b->folder = b->scratch.folder;
    if (!failure) failure = make_parts(b);
    if (failure) failure = unless_interrupted(b, failure);
    if (!failure) failure = put_in_place(b, pdf);
    if (failure) failure = keep_failed(b, failure);
    scratch_end(&b->scratch);
    return failure;
}

status report_write(const struct report_request *request, char pdf[4096]) {
    struct build b = {.request = request};
    TRY(analyse(request->results, &b.analysis));
    status failure = make_report(&b, pdf);
    analysis_free(&b.analysis);
    return failure;
}
