/* cmd_power: what a design can find: the minimum detectable difference against the number of seeds. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/report/program.h"
#include "harness/report/text.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/suite_families.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/verbs.h"
#include "model/files.h"

static const size_t seed_counts[] = {2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50};
enum { COUNTS = sizeof seed_counts / sizeof *seed_counts };
enum { DRAWN_WIDTH = 112 }; /* of the widest table with its drawing, which narrower terminals do without */

/* Without a correction that shares alpha, the two are equal. */
struct power_row {
    size_t seeds;
    double least_p;          /* that the declared test can give */
    double alone, in_family; /* difference found with the asked power at alpha, and at alpha / family */
    double margin_power;     /* chance to find the margin, in the family; NAN without one */
    bool attainable;         /* the declared test can reject at this many seeds, corrected */
};

struct power_request {
    struct suite suite;
    double sd, power;
    size_t family, sources; /* sources: variants that the sd comes from; 0: it was given */
    struct results stored;  /* what it comes from */
    struct power_row rows[COUNTS];
    size_t seeds_for_margin, needed_seeds; /* 0: no margin or never; never */
};

static bool drawn_figures(const struct power_request *r) { return r->sources && simulated_note(&r->stored); }

/* --- the spread --------------------------------------------------------------------------------------------------- */

/* Root mean square of the sd of the differences, by their degrees of freedom. */
static status pool(const struct results *results, struct power_request *r) {
    struct observation *observations;
    struct comparison_table table;
    size_t count;
    double squares = 0, freedom = 0;
    TRY(results_observations(results, r->suite.metric, &observations, &count));
    status s = compare_variants(&results->design, observations, count, &table);
    free(observations);
    TRY(s);
    for (int v = 1; v < table.count; v++) {
        const struct comparison *row = &table.rows[v];
        if (row->pairs < 2 || !isfinite(row->sd_delta)) continue;
        squares += row->sd_delta * row->sd_delta * (double)(row->pairs - 1);
        freedom += (double)(row->pairs - 1);
        r->sources++;
    }
    comparison_table_free(&table);
    r->sd = sqrt(squares / freedom);
    return NULL;
}

static status no_spread(const struct power_request *r, const char *why) {
    return status_new(STATUS_USAGE, "%s: no sd of differences is known (%s); run some seeds, or give --sd",
                      r->suite.name, why);
}

/* The spread does not say which variant is better, so that asking for it early is no peek. */
static status stored_spread(const struct invocation *in, struct power_request *r) {
    struct store *store;
    const char *path = cli_text(in, "db");
    if (access(path, F_OK) != 0 && errno == ENOENT) return no_spread(r, "there is no database");
    TRY(store_open(&store, path, STORE_READ));
    status s = store_load_results_at(store, r->suite.name, r->suite.scale, RESULTS_FIGURES, &r->stored);
    store_close(store);
    if (!s) s = pool(&r->stored, r);
    if (!s) return r->sd > 0 ? NULL : no_spread(r, "no variant has two pairs that differ");
    if (status_kind(s) != STATUS_USAGE) return s;
    status unknown = no_spread(r, status_text(s));
    status_free(s);
    return unknown;
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

static void fill(struct power_request *r) {
    const struct design *d = &r->suite.design;
    double shared = d->correction == CORRECT_HOLM && r->family > 1 ? d->alpha / (double)r->family : d->alpha;
    r->needed_seeds = needed_seeds(d->test, d->correction, d->alpha, r->family ? r->family : 1);
    r->seeds_for_margin = d->margin > 0 ? seeds_for_power(d->margin / r->sd, r->power, shared) : 0;
    for (int i = 0; i < COUNTS; i++) {
        size_t n = seed_counts[i];
        r->rows[i] = (struct power_row){.seeds = n,
                                        .least_p = attainable_p(d->test, n),
                                        .alone = r->sd * detectable_effect(n, r->power, d->alpha),
                                        .in_family = r->sd * detectable_effect(n, r->power, shared),
                                        .margin_power =
                                            d->margin > 0 ? power_paired_t(d->margin / r->sd, n, shared) : (double)NAN,
                                        .attainable = r->needed_seeds && n >= r->needed_seeds};
    }
}

/* The differences of a row on a logarithmic axis, and the margin. */
static void draw_row(const struct power_request *r, const struct power_row *row, struct text *line) {
    enum { WIDTH = 32 };
    const double margin = r->suite.design.margin > 0 ? r->suite.design.margin : r->rows[0].in_family;
    const double least = log(fmin(margin, r->rows[COUNTS - 1].alone)), most = log(fmax(margin, r->rows[0].in_family));
    const char *cells[WIDTH];
    const struct {
        double value;
        const char *mark;
    } marks[] = {{r->suite.design.margin, "│"}, {row->alone, "○"}, {row->in_family, "●"}};
    for (int i = 0; i < WIDTH; i++) cells[i] = " ";
    for (int i = 0; i < 3; i++)
        if (marks[i].value > 0)
            cells[lround((WIDTH - 1) * (log(marks[i].value) - least) / (most - least))] = marks[i].mark;
    for (int i = 0; i < WIDTH; i++) text_add(line, "%s", cells[i]);
}

static void print_rows(const struct power_request *r, bool drawn) {
    static const struct table_column columns[] = {{"seeds", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"one comparison", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"in the family", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"power for the margin", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"", ALIGN_LEFT, COLUMN_WHOLE},
                                                  {"○ one  ● in the family  │ margin", ALIGN_LEFT, COLUMN_WHOLE}};
    struct table *table = table_new(columns, drawn ? 6 : 5);
    int decimals = (int)fmin(12, fmax(0, 2 - floor(log10(r->sd))));
    for (int i = 0; i < COUNTS; i++) {
        const struct power_row *row = &r->rows[i];
        table_cell(table, "%zu", row->seeds);
        table_number(table, row->alone, decimals);
        table_number(table, row->in_family, decimals);
        if (isfinite(row->margin_power))
            table_cell(table, "%.0f %%", 100 * row->margin_power);
        else
            table_cell(table, "-");
        table_cell(table, "%s", row->attainable ? "" : "not attainable");
        struct text line = {0};
        if (drawn) draw_row(r, row, &line);
        if (drawn) table_cell(table, "%s", text_of(&line));
        text_free(&line);
    }
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_text(const struct power_request *r) {
    const struct suite *suite = &r->suite;
    const struct design *d = &suite->design;
    struct text head = {0}, foot = {0};
    bool drawn = !terminal_is(stdout) || terminal_width(stdout) >= DRAWN_WIDTH;
    text_add(&head, "%s: minimum detectable difference of %s at %.0f %% power, %s, %s over %zu comparison%s, alpha %g",
             suite->name, suite->metric, 100 * r->power, test_name(d->test), correction_name(d->correction), r->family,
             r->family == 1 ? "" : "s", d->alpha);
    text_print(stdout, text_of(&head), 0, 0);
    printf("sd of the differences %.4g, ", r->sd);
    if (r->sources)
        printf("pooled over %zu stored variant%s%s\n\n", r->sources, r->sources == 1 ? "" : "s",
               drawn_figures(r) ? " (simulated)" : "");
    else
        printf("as given\n\n");
    if (r->sources) print_caveats(&r->stored);
    print_rows(r, drawn);
    text_add(&foot, "%sThe power is that of the paired t test; the suite declares %d seeds.",
             drawn ? "The axis of the drawing is logarithmic. " : "", suite->seed_count);
    if (r->seeds_for_margin) text_add(&foot, " Its margin, %g, takes %zu.", d->margin, r->seeds_for_margin);
    if (d->margin > 0 && !r->seeds_for_margin) text_add(&foot, " Its margin, %g, takes more than 10,000.", d->margin);
    putchar('\n');
    text_print(stdout, text_of(&foot), 0, 0);
    text_free(&head);
    text_free(&foot);
}

static status print_json(const struct power_request *r) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "suite", json_text(r->suite.name));
    json_object_set_new(root, "metric", json_text(r->suite.metric));
    json_object_set_new(root, "simulated", json_boolean(drawn_figures(r)));
    json_object_set_new(root, "sd", json_number(r->sd));
    json_object_set_new(root, "sd_from_variants", json_integer((json_int_t)r->sources));
    json_object_set_new(root, "power", json_number(r->power));
    json_object_set_new(root, "alpha", json_number(r->suite.design.alpha));
    json_object_set_new(root, "family", json_integer((json_int_t)r->family));
    json_object_set_new(root, "margin", json_number(r->suite.design.margin));
    json_object_set_new(root, "seeds_for_margin", json_integer((json_int_t)r->seeds_for_margin));
    json_object_set_new(root, "needed_seeds", json_integer((json_int_t)r->needed_seeds));
    for (int i = 0; i < COUNTS; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "seeds", json_integer((json_int_t)r->rows[i].seeds));
        json_object_set_new(row, "attainable_p", json_number(r->rows[i].least_p));
        json_object_set_new(row, "detectable", json_number(r->rows[i].alone));
        json_object_set_new(row, "detectable_in_family", json_number(r->rows[i].in_family));
        json_object_set_new(row, "margin_power", json_number(r->rows[i].margin_power));
        json_object_set_new(row, "attainable", json_boolean(r->rows[i].attainable));
        json_array_append_new(rows, row);
    }
    json_object_set_new(root, "seeds", rows);
    if (r->sources) json_object_set_new(root, "caveats", caveats_json(&r->stored));
    return json_print(stdout, root);
}

/* --- the figure --------------------------------------------------------------------------------------------------- */

static status write_inputs(const struct power_request *r, const char *folder, const char *templates) {
    char path[4400];
    struct text data = {0}, settings = {0}, metric = {0};
    for (int i = 0; i < COUNTS; i++)
        text_add(&data, "%zu\t%.10g\t%.10g\n", r->rows[i].seeds, r->rows[i].alone, r->rows[i].in_family);
    snprintf(path, sizeof path, "%s/power.tsv", folder);
    status s = text_write(&data, path);
    text_add(&metric, "detectable difference of %s%s", r->suite.metric, drawn_figures(r) ? " (simulated)" : "");
    text_add(&settings, "MARGIN = %.10g\nFAMILY = %zu\nMETRIC = ", r->suite.design.margin, r->family);
    text_gnuplot(&settings, text_of(&metric));
    text_add(&settings, "\nSTYLE = ");
    text_gnuplot(&settings, templates);
    text_add(&settings, " . '/style.gp'\n");
    snprintf(path, sizeof path, "%s/settings.gp", folder);
    if (!s) s = text_write(&settings, path);
    text_free(&data);
    text_free(&settings);
    text_free(&metric);
    return s;
}

static status draw(const struct power_request *r, const char *folder) {
    char templates[4096], template[4200];
    int code;
    if (access("reports/power.gp", R_OK) != 0 || !realpath("reports", templates))
        return status_new(STATUS_USAGE, "--figure: reports/power.gp, the template, cannot be read: run hinge in the "
                                        "folder that has reports/");
    snprintf(template, sizeof template, "%s/power.gp", templates);
    TRY(make_directories(folder));
    TRY(write_inputs(r, folder, templates));
    const char *const argv[] = {"gnuplot", "-c", template, "settings.gp", NULL};
    TRY(program_run(argv, "gnuplot-nox", folder, "power.log", &code));
    if (code) return status_new(STATUS_SYSTEM, "gnuplot failed with status %d; see %s/power.log", code, folder);
    return NULL;
}

/* --- entry -------------------------------------------------------------------------------------------------------- */

static status show(const struct invocation *in, struct power_request *r) {
    r->family = (size_t)suite_largest_family(&r->suite);
    r->power = cli_real(in, "power");
    if (cli_given(in, "sd"))
        r->sd = cli_real(in, "sd");
    else
        TRY(stored_spread(in, r));
    fill(r);
    if (cli_switch(in, "json"))
        TRY(print_json(r));
    else
        print_text(r);
    const char *folder = cli_text(in, "figure");
    if (!folder) return NULL;
    TRY(draw(r, folder));
    if (!cli_switch(in, "json")) printf("figure: %s/power.pdf, .png, .svg\n", folder);
    return NULL;
}

static status run(const struct invocation *in) {
    struct power_request request = {0};
    TRY(load_suite(in, &request.suite));
    status s = show(in, &request);
    results_free(&request.stored);
    suite_free(&request.suite);
    return s;
}

static const struct flag_row flags[] = {
    {.name = "sd",
     .type = FLAG_REAL,
     .value_name = "SD",
     .low = 1e-300,
     .high = 1e12,
     .help = "of the paired differences; default: pooled from the stored runs"},
    {.name = "power",
     .type = FLAG_REAL,
     .value_name = "P",
     .initial = "0.8",
     .low = 0.051,
     .high = 0.9999,
     .help = "chance to find the difference"},
    {.name = "figure", .type = FLAG_TEXT, .value_name = "DIR", .help = "draw it too, into this folder"},
    FLAG_ROW_SCALE,
    FLAG_ROW_SET,
    FLAG_ROW_DB,
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge power demo --sd 0.002",
    "hinge power demo --power 0.9 --figure reports/out/power",
    NULL,
};

const struct verb verb_power = {
    .name = "power",
    .purpose = "the difference that a suite can find, against its number of seeds",
    .arguments = "SUITE",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
