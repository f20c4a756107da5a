/* cmd_gate: whether stored results show a required difference, as an exit status for continuous integration. */
#include <stdio.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/requirement.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/verbs.h"

struct gate {
    struct results results;
    int count;
    const char *texts[CLI_REPEATS];
    struct requirement requirements[CLI_REPEATS];
    struct judgement judgements[CLI_REPEATS];
};

static status load(const struct invocation *in, struct gate *gate) {
    char name[NAME_CAPACITY];
    struct store *store;
    gate->count = cli_repeated(in, "require", gate->texts);
    if (!gate->count) return status_new(STATUS_USAGE, "gate needs --require 'A better than B on METRIC by X'");
    for (int i = 0; i < gate->count; i++) TRY(requirement_parse(gate->texts[i], &gate->requirements[i]));
    TRY(suite_name(in->arguments[0], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status s = store_load_results_at(store, name, cli_text(in, "scale"), RESULTS_FIGURES, &gate->results);
    store_close(store);
    return s;
}

static void print_text(const struct gate *gate) {
    if (simulated_note(&gate->results)) printf("%s\n", simulated_note(&gate->results));
    print_caveats(&gate->results);
    for (int i = 0; i < gate->count; i++) {
        const struct judgement *j = &gate->judgements[i];
        const struct requirement *r = &gate->requirements[i];
        printf("%s: %s %s %s", outcome_name(j->outcome), r->variant, relation_words(r->relation), r->baseline);
        printf(" on %s by %g\n  difference %.6g, %.4g %% interval %.6g to %.6g, %zu paired seeds, alpha %.4g",
               j->metric, r->amount, j->delta, 100 * (1 - j->interval_alpha), j->ci_low, j->ci_high, j->pairs,
               j->alpha);
        if (j->look) printf(" of look %d", j->look);
        if (j->pairs >= 2) printf("; p %.4g that it holds, %.4g that it does not", j->p_holds, j->p_does_not);
        printf("\n%s%s%s", *j->why ? "  " : "", j->why, *j->why ? "\n" : "");
    }
}

static json_t *judgement_json(const struct gate *gate, int i) {
    const struct judgement *j = &gate->judgements[i];
    const struct requirement *r = &gate->requirements[i];
    json_t *out = json_object();
    json_object_set_new(out, "require", json_text(gate->texts[i]));
    json_object_set_new(out, "outcome", json_text(outcome_name(j->outcome)));
    json_object_set_new(out, "why", json_text(j->why));
    json_object_set_new(out, "variant", json_text(r->variant));
    json_object_set_new(out, "relation", json_text(relation_words(r->relation)));
    json_object_set_new(out, "baseline", json_text(r->baseline));
    json_object_set_new(out, "metric", json_text(j->metric));
    json_object_set_new(out, "amount", json_number(r->amount));
    json_object_set_new(out, "alpha", json_number(j->alpha));
    json_object_set_new(out, "look", j->look ? json_integer(j->look) : json_null());
    json_object_set_new(out, "pairs", json_integer((json_int_t)j->pairs));
    json_object_set_new(out, "missing", json_integer(j->missing));
    json_object_set_new(out, "failed", json_integer(j->failed));
    json_object_set_new(out, "delta", json_number(j->delta));
    json_object_set_new(out, "ci_low", json_number(j->ci_low));
    json_object_set_new(out, "ci_high", json_number(j->ci_high));
    json_object_set_new(out, "p_holds", json_number(j->p_holds));
    json_object_set_new(out, "p_does_not", json_number(j->p_does_not));
    return out;
}

static status print_json(const struct gate *gate) {
    json_t *root = json_object(), *list = json_array();
    json_object_set_new(root, "suite", json_text(gate->results.suite));
    json_object_set_new(root, "simulated", json_boolean(simulated_note(&gate->results) != NULL));
    json_object_set_new(root, "alpha", json_number(gate->results.design.alpha));
    for (int i = 0; i < gate->count; i++) json_array_append_new(list, judgement_json(gate, i));
    json_object_set_new(root, "caveats", caveats_json(&gate->results));
    json_object_set_new(root, "requirements", list);
    return json_print(stdout, root);
}

/* All must hold: one that does not decides, then one that cannot be told. */
static status conclude(const struct gate *gate) {
    const enum outcome order[] = {OUTCOME_DOES_NOT, OUTCOME_CANNOT_TELL};
    const enum status_kind kinds[] = {STATUS_REFUTED, STATUS_UNDECIDED};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < gate->count; i++)
            if (gate->judgements[i].outcome == order[k])
                return status_new(kinds[k], "gate: %s: %s%s%s", outcome_name(order[k]), gate->texts[i],
                                  *gate->judgements[i].why ? ": " : "", gate->judgements[i].why);
    return NULL;
}

static status run_gate(const struct invocation *in, struct gate *gate) {
    TRY(cli_misuse(load(in, gate)));
    for (int i = 0; i < gate->count; i++)
        TRY(cli_misuse(requirement_judge(&gate->requirements[i], &gate->results, &gate->judgements[i])));
    note_peek(in, &gate->results);
    if (cli_switch(in, "json"))
        TRY(print_json(gate));
    else
        print_text(gate);
    return conclude(gate);
}

static status run(const struct invocation *in) {
    static struct gate gate; /* larger than a stack should hold */
    status s = run_gate(in, &gate);
    results_free(&gate.results);
    return s;
}

static const struct flag_row flags[] = {
    {.name = "require",
     .type = FLAG_REPEATED,
     .value_name = "TEXT",
     .help = "'A better than B on METRIC by X'; also non-inferior to, smaller than, faster than; all must hold"},
    FLAG_ROW_SCALE,
    FLAG_ROW_DB,
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge gate demo --require 'int8 better than none on bpb.artifact by 0.002'",
    "hinge gate demo --require 'recurrence non-inferior to none by 0.01'",
    NULL,
};

const struct verb verb_gate = {
    .name = "gate",
    .purpose = "exit 0, 1 or 2: a difference holds, does not, cannot be told (64: wrong usage)",
    .arguments = "SUITE",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
    .answers = true,
};
