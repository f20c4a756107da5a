/* cmd_compare: which differences are real, from a suite in the store or from any CSV of variant, seed and value. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/report/sentences.h"
#include "harness/simulated.h"
#include "harness/stats/csv.h"
#include "harness/store.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/verbs.h"

/* What is compared, wherever it came from. */
struct comparand {
    struct results results;
    struct csv_observations csv;
    struct observation *stored;
    const struct observation *observations;
    size_t count;
    struct design design;
    struct look_plan looks;
    const char *title, *metric, *unit;
    bool undeclared; /* the command line asked for another test than the suite declared */
};

static void comparand_free(struct comparand *c) {
    results_free(&c->results);
    csv_free(&c->csv);
    free(c->stored);
}

static bool named_before(const struct comparand *c, size_t i) {
    for (size_t k = 0; k < i; k++)
        if (strcmp(c->observations[k].variant, c->observations[i].variant) == 0) return true;
    return strcmp(c->observations[i].variant, c->design.baseline) == 0;
}

static int count_comparisons(const struct comparand *c) {
    int count = 0;
    for (size_t i = 0; i < c->count; i++) count += !named_before(c, i);
    return count;
}

static status read_looks(const char *text, struct looks *looks) {
    size_t n[MOST_LOOKS + 1];
    int count = 0;
    for (char *end; count <= MOST_LOOKS; text = end + 1) {
        long value = strtol(text, &end, 10);
        if (end == text || value < 0 || (*end && *end != ','))
            return status_new(STATUS_USAGE, "--looks: whole numbers separated by commas, as 3,5,7; not '%s'", text);
        n[count++] = (size_t)value;
        if (!*end) break;
    }
    if (count > MOST_LOOKS)
        return status_new(STATUS_USAGE, "--looks: from 1 to %d are possible, not %d", MOST_LOOKS, count);
    memcpy(looks->n, n, (size_t)count * sizeof *n);
    looks->count = count;
    return NULL;
}

/* Every comparison may spend its share of alpha over its looks; the declared ones are planned anew where the command
 * line changes what they spend. */
static status plan_looks(const struct invocation *in, struct comparand *c) {
    const char *text = cli_text(in, "looks");
    const struct look_plan *declared = c->design.looks;
    struct looks looks = {0};
    int family = count_comparisons(c);
    if ((text || declared) && c->design.test != TEST_PAIRED_T)
        return status_new(STATUS_USAGE, "--test: looks have the boundaries of paired-t; %s has none",
                          test_name(c->design.test));
    if (text)
        TRY(read_looks(text, &looks));
    else if (declared && (cli_given(in, "alpha") || cli_given(in, "correction") || cli_given(in, "spending"))) {
        looks = (struct looks){.spending = declared->spending, .count = declared->count};
        memcpy(looks.n, declared->n, sizeof looks.n);
    } else
        return NULL;
    if (text || cli_given(in, "spending")) spending_find(cli_text(in, "spending"), &looks.spending);
    double alpha = c->design.correction == CORRECT_NONE || family < 2 ? c->design.alpha : c->design.alpha / family;
    TRY(look_plan_make(looks.spending, looks.n, looks.count, alpha, &c->looks));
    c->design.looks = &c->looks;
    return NULL;
}

static status override_design(const struct invocation *in, struct comparand *c) {
    static const char *const decisions[] = {"baseline", "test", "correction", "alpha", "margin", "looks", "spending"};
    struct design *d = &c->design;
    const char *text;
    if ((text = cli_text(in, "baseline"))) d->baseline = text;
    if ((text = cli_text(in, "test"))) test_find(text, &d->test);
    if ((text = cli_text(in, "correction"))) correction_find(text, &d->correction);
    if (cli_given(in, "alpha")) d->alpha = cli_real(in, "alpha");
    if (cli_given(in, "margin")) d->margin = cli_real(in, "margin");
    if (cli_int(in, "seed")) d->seed = (uint64_t)cli_int(in, "seed");
    d->higher_is_better |= cli_switch(in, "higher-is-better");
    d->thorough = cli_switch(in, "json");
    for (size_t i = 0; i < sizeof decisions / sizeof *decisions; i++) c->undeclared |= cli_given(in, decisions[i]);
    return NULL;
}

static status load_csv(const struct invocation *in, struct comparand *c) {
    if (in->count) return status_new(STATUS_USAGE, "give either a suite or --csv, not both");
    if (!cli_text(in, "baseline")) return status_new(STATUS_USAGE, "--csv needs --baseline NAME, one of its variants");
    TRY(csv_read(cli_text(in, "csv"), &c->csv));
    c->observations = c->csv.rows;
    c->count = c->csv.count;
    c->design = (struct design){.alpha = 0.05};
    c->title = cli_text(in, "csv");
    c->metric = "value";
    c->unit = "";
    TRY(override_design(in, c));
    c->undeclared = false;
    return NULL;
}

static status load_results(const struct invocation *in, struct results *results) {
    char name[NAME_CAPACITY];
    struct store *store;
    TRY(suite_name(in->arguments[0], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failure = store_load_results_at(store, name, cli_text(in, "scale"), RESULTS_FIGURES, results);
    store_close(store);
    return failure;
}

static status load_declared(const struct invocation *in, struct comparand *c) {
    if (!in->count) return status_new(STATUS_USAGE, "name a suite, or a file with --csv FILE --baseline NAME");
    TRY(load_results(in, &c->results));
    c->metric = cli_text(in, "metric") ? cli_text(in, "metric") : c->results.metric;
    TRY(results_observations(&c->results, c->metric, &c->stored, &c->count));
    if (!c->count)
        return status_new(STATUS_DATA, "suite '%s' has no finished run yet; hinge run %s", c->results.suite,
                          in->arguments[0]);
    c->observations = c->stored;
    c->title = c->results.suite;
    c->unit = metric_find(c->metric)->unit;
    c->design = c->results.design;
    c->design.higher_is_better = metric_find(c->metric)->higher_is_better;
    TRY(override_design(in, c));
    if (strcmp(c->metric, c->results.metric) != 0) {
        c->undeclared = true;
        if (!cli_given(in, "margin")) c->design.margin = 0.0; /* the declared one is in another unit */
    }
    return NULL;
}

/* Whether runs are still to come: with looks, those of comparisons that are decided are not. */
static bool preliminary(const struct comparand *c, const struct comparison_table *t) {
    bool open = !c->design.looks;
    for (int r = 1; c->design.looks && r < t->count; r++)
        open |= t->rows[r].stopped < 0 && t->rows[r].look_count < c->design.looks->count;
    return c->results.closed_early && open;
}

static void print_design(const struct comparand *c, const struct comparison_table *t) {
    printf("%s: %s against %s, %s, %s correction, alpha %g", c->title, c->metric, c->design.baseline,
           test_name(c->design.test), correction_name(c->design.correction), c->design.alpha);
    if (c->design.margin > 0.0) printf(", margin %g", c->design.margin);
    if (t->groups > 1) printf(", %d declared families", t->groups);
    printf("\n");
    if (simulated_note(&c->results)) printf("%s\n", simulated_note(&c->results));
    if (metric_find(c->metric) && metric_find(c->metric)->timed)
        printf("Times are compared seed by seed, where one machine trained both.\n");
    if (c->undeclared) printf("This differs from what the suite declares: late, and exploratory.\n");
    if (c->design.looks)
        printf("Verdicts are those of the looks; interval and p are of all seeds at once, as if looked at once.\n");
    if (preliminary(c, t)) printf("Not all planned runs are done: preliminary.\n");
    print_caveats(&c->results);
}

static void table_p(struct table *table, double p) {
    if (isnan(p))
        table_cell(table, "-");
    else if (p < 0.0001)
        table_cell(table, "<0.0001");
    else
        table_cell(table, "%.4f", p);
}

static void add_row(struct table *table, const struct comparison *row, int decimals) {
    table_cell(table, "%s%s", row->variant, row->late ? " (late)" : "");
    if (row->summary.failed)
        table_cell(table, "%zu-%zu", row->summary.n + row->summary.failed, row->summary.failed);
    else
        table_cell(table, "%zu", row->summary.n);
    table_number(table, row->summary.mean, decimals);
    table_number(table, row->summary.sd, decimals);
    table_number(table, row->delta, decimals);
    if (isnan(row->ci_low))
        table_cell(table, "-");
    else
        table_cell(table, "%.*f to %.*f", decimals, without_signed_zero(row->ci_low, decimals), decimals,
                   without_signed_zero(row->ci_high, decimals));
    table_p(table, row->p);
    table_p(table, row->p_adjusted);
    table_cell(table, "%s", verdict_name(row->verdict));
}

static void print_table(const struct comparand *c, const struct comparison_table *t) {
    char interval[32], adjusted[32];
    snprintf(interval, sizeof interval, "%g %% interval", 100.0 * (1.0 - c->design.alpha));
    bool holm = c->design.correction == CORRECT_HOLM;
    snprintf(adjusted, sizeof adjusted, "%s", holm ? "p Holm" : c->design.correction == CORRECT_BH ? "p BH" : "p");
    const struct table_column columns[] = {
        {"variant", ALIGN_LEFT, COLUMN_CUT},    {"n", ALIGN_RIGHT, COLUMN_WHOLE},
        {"mean", ALIGN_RIGHT, COLUMN_OPTIONAL}, {"sd", ALIGN_RIGHT, COLUMN_OPTIONAL},
        {"delta", ALIGN_RIGHT, COLUMN_WHOLE},   {interval, ALIGN_RIGHT, COLUMN_WHOLE},
        {"p", ALIGN_RIGHT, COLUMN_OPTIONAL},    {adjusted, ALIGN_RIGHT, COLUMN_WHOLE},
        {"verdict", ALIGN_LEFT, COLUMN_WHOLE},
    };
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    int decimals = wording_decimals(t);
    for (int v = 0; v < t->count; v++) add_row(table, &t->rows[v], decimals);
    table_print(table, stdout, 0);
    table_free(table);
}

static void print_sentences(const struct comparand *c, const struct comparison_table *t) {
    struct wording wording = {&c->design, c->unit, wording_decimals(t)};
    for (int v = 1; v < t->count; v++) {
        struct text sentence = {0};
        sentence_verdict(&sentence, &wording, &t->rows[v]);
        putchar('\n');
        text_print(stdout, text_of(&sentence), 0, 0);
        text_free(&sentence);
    }
}

/* What the reader must know about small numbers. */
static void print_notes(const struct comparison_table *t) {
    size_t fewest = SIZE_MAX;
    for (int v = 1; v < t->count; v++)
        if (!isnan(t->rows[v].p) && t->rows[v].units < fewest) fewest = t->rows[v].units;
    if (fewest > FEW_SEEDS) return;
    char note[256];
    snprintf(note, sizeof note,
             "With as few as %zu seeds no test can check its own assumptions: t intervals, and above all a verdict of "
             "equivalence, rest on normal differences.",
             fewest);
    putchar('\n');
    text_print(stdout, note, 0, 0);
}

/* A figure of a row that JSON shows under its own name. */
struct json_figure {
    const char *name;
    size_t offset;
};

#define FIGURE(name) \
    { #name, offsetof(struct comparison, name) }
static const struct json_figure figures[] = {
    {"mean", offsetof(struct comparison, summary.mean)},
    {"sd", offsetof(struct comparison, summary.sd)},
    {"median", offsetof(struct comparison, summary.median)},
    {"min", offsetof(struct comparison, summary.min)},
    {"max", offsetof(struct comparison, summary.max)},
    FIGURE(delta),
    FIGURE(ci_low),
    FIGURE(ci_high),
    FIGURE(family_low),
    FIGURE(family_high),
    FIGURE(bca_low),
    FIGURE(bca_high),
    FIGURE(error),
    FIGURE(freedom),
    FIGURE(sd_delta),
    FIGURE(rho),
    FIGURE(p),
    FIGURE(p_adjusted),
    FIGURE(p_margin),
    FIGURE(p_margin_adjusted),
    FIGURE(p_tost),
    FIGURE(p_tost_adjusted),
    FIGURE(hedges_g),
    FIGURE(superiority),
    FIGURE(attainable_p),
    FIGURE(attainable_adjusted),
    FIGURE(mde80),
};

static void add_tests(const struct design *design, const struct comparison *row, json_t *out) {
    static const char *const prefixes[CORRECTION_KINDS] = {"holm", "bh", "uncorrected"};
    for (int k = 0; k < TEST_KINDS; k++) {
        char name[64];
        snprintf(name, sizeof name, "p_%s", test_name((enum test_kind)k));
        for (char *c = name; *c; c++) *c = *c == '-' ? '_' : *c;
        json_object_set_new(out, name, json_number(row->p_of[k]));
        char adjusted[96];
        snprintf(adjusted, sizeof adjusted, "%s_%s", prefixes[design->correction], name);
        json_object_set_new(out, adjusted, json_number(row->adjusted_of[k]));
    }
}

static double figure_of(const struct comparison *row, size_t offset) {
    const void *figure = (const char *)row + offset;
    return *(const double *)figure;
}

/* The path of a sequential comparison. */
static json_t *looks_json(const struct comparison *row) {
    json_t *looks = json_array();
    for (int k = 0; k < row->look_count; k++) {
        json_t *look = json_object();
        json_object_set_new(look, "n", json_integer((json_int_t)row->looks[k].n));
        json_object_set_new(look, "pairs", json_integer((json_int_t)row->looks[k].pairs));
        json_object_set_new(look, "statistic", json_number(row->looks[k].statistic));
        json_object_set_new(look, "boundary", json_number(row->looks[k].boundary));
        json_object_set_new(look, "crossed", json_boolean(row->stopped == k));
        json_array_append_new(looks, look);
    }
    return looks;
}

/* "" for the one family of a suite that declares none. */
static const char *family_of(const struct comparand *c, const struct comparison *row) {
    for (int v = 0; v < c->results.variant_count; v++)
        if (strcmp(c->results.variants[v].name, row->variant) == 0) return c->results.variants[v].family;
    return "";
}

static json_t *row_json(const struct comparand *c, const struct comparison *row) {
    json_t *out = json_object();
    json_object_set_new(out, "variant", json_text(row->variant));
    json_object_set_new(out, "late", json_boolean(row->late));
    json_object_set_new(out, "family_name", json_text(family_of(c, row)));
    json_object_set_new(out, "n", json_integer((json_int_t)row->summary.n));
    json_object_set_new(out, "failed", json_integer((json_int_t)row->summary.failed));
    json_object_set_new(out, "pairs", json_integer((json_int_t)row->pairs));
    json_object_set_new(out, "seeds_on_two_machines", json_integer((json_int_t)row->two_machines));
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        json_object_set_new(out, figures[i].name, json_number(figure_of(row, figures[i].offset)));
    add_tests(&c->design, row, out);
    json_object_set_new(out, "test", json_text(test_name(row->test)));
    json_object_set_new(out, "paired", json_boolean(row->paired));
    json_object_set_new(out, "few_seeds", json_boolean(row->pairs >= 2 && row->pairs <= FEW_SEEDS));
    if (c->design.looks) json_object_set_new(out, "looks", looks_json(row));
    json_object_set_new(out, "family", json_integer(row->family));
    json_object_set_new(out, "needed_n", json_integer((json_int_t)row->needed_n));
    json_object_set_new(out, "seeds_needed",
                        row->seeds_needed ? json_integer((json_int_t)row->seeds_needed) : json_null());
    json_object_set_new(out, "verdict", json_text(verdict_name(row->verdict)));
    return out;
}

static json_t *table_json(const struct comparand *c, const struct comparison_table *t) {
    json_t *out = json_object(), *rows = json_array();
    json_object_set_new(out, c->csv.text ? "file" : "suite", json_text(c->title));
    json_object_set_new(out, "simulated", json_boolean(simulated_note(&c->results) != NULL));
    json_object_set_new(out, "metric", json_text(c->metric));
    json_object_set_new(out, "baseline", json_text(c->design.baseline));
    json_object_set_new(out, "test", json_text(test_name(c->design.test)));
    json_object_set_new(out, "correction", json_text(correction_name(c->design.correction)));
    json_object_set_new(out, "alpha", json_number(c->design.alpha));
    json_object_set_new(out, "margin", c->design.margin > 0.0 ? json_number(c->design.margin) : json_null());
    json_object_set_new(out, "higher_is_better", json_boolean(c->design.higher_is_better));
    json_object_set_new(out, "declared", c->csv.text ? json_null() : json_boolean(!c->undeclared));
    json_object_set_new(out, "complete", c->csv.text ? json_null() : json_boolean(!preliminary(c, t)));
    json_object_set_new(out, "caveats", c->csv.text ? json_null() : caveats_json(&c->results));
    json_object_set_new(out, "family", json_integer(t->family));
    for (int v = 0; v < t->count; v++) json_array_append_new(rows, row_json(c, &t->rows[v]));
    json_object_set_new(out, "variants", rows);
    return out;
}

/* Too few runs to compare may be too few yet. */
static status cannot_compare(const struct comparand *c, status failure) {
    int done, declared;
    if (!results_peeked(&c->results, &done, &declared)) return status_context(failure, "%s", c->title);
    return status_context(failure, "%s, with %d of %d runs done so far", c->title, done, declared);
}

static status show(const struct invocation *in, struct comparand *c) {
    struct comparison_table table;
    status failure = compare_variants(&c->design, c->observations, c->count, &table);
    if (failure) return cannot_compare(c, failure);
    note_peek(in, &c->results);
    if (cli_switch(in, "json")) {
        failure = json_print(stdout, table_json(c, &table));
    } else {
        print_design(c, &table);
        print_table(c, &table);
        print_sentences(c, &table);
        print_notes(&table);
    }
    comparison_table_free(&table);
    return failure;
}

static status run(const struct invocation *in) {
    struct comparand c = {0};
    status failure = cli_text(in, "csv") ? load_csv(in, &c) : load_declared(in, &c);
    if (!failure) failure = plan_looks(in, &c);
    if (!failure) failure = show(in, &c);
    comparand_free(&c);
    return failure;
}

static const struct flag_row flags[] = {
    FLAG_ROW_DB,
    FLAG_ROW_SCALE,
    {.name = "metric",
     .type = FLAG_TEXT,
     .value_name = "NAME",
     .help = "another metric than the suite's (exploratory)"},
    {.name = "csv",
     .type = FLAG_TEXT,
     .value_name = "FILE",
     .help = "compare a CSV with the columns variant, seed, value instead of a suite"},
    {.name = "baseline", .type = FLAG_TEXT, .value_name = "NAME", .help = "what the others are compared with"},
    {.name = "test",
     .type = FLAG_CHOICE,
     .value_name = "paired-t|sign-flip|wilcoxon|welch|mann-whitney",
     .help =
         "paired-t unless declared; all cases are counted up to 20 pairs (sign-flip), 200 pairs (wilcoxon), 100 values "
         "(mann-whitney)"},
    {.name = "looks",
     .type = FLAG_TEXT,
     .value_name = "N,N,...",
     .help = "declared looks: numbers of seeds after which a comparison may stop"},
    {.name = "spending",
     .type = FLAG_CHOICE,
     .value_name = "obrien-fleming|pocock",
     .initial = "obrien-fleming",
     .help = "how the looks spend alpha"},
    {.name = "seed",
     .type = FLAG_INT,
     .value_name = "N",
     .initial = "0",
     .low = 0,
     .high = 9e15,
     .help = "of the resampling; that of the suite when 0"},
    {.name = "correction",
     .type = FLAG_CHOICE,
     .value_name = "holm|benjamini-hochberg|none",
     .help = "for several comparisons; holm unless declared"},
    {.name = "alpha",
     .type = FLAG_REAL,
     .value_name = "A",
     .low = 1e-9,
     .high = 0.5,
     .help = "error rate; 0.05 unless declared"},
    {.name = "margin",
     .type = FLAG_REAL,
     .value_name = "M",
     .low = 0.0,
     .high = 1e12,
     .help = "smallest difference that matters; none unless declared"},
    {.name = "higher-is-better", .type = FLAG_SWITCH, .help = "a CSV's values: more is better"},
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge compare demo",
    "hinge compare demo --metric bpb.raw --json",
    "hinge compare --csv losses.csv --baseline plain --margin 0.005 --alpha 0.01",
    NULL,
};

const struct verb verb_compare = {
    .name = "compare",
    .purpose = "say which differences between variants are real",
    .arguments = "[SUITE]",
    .least = 0,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
