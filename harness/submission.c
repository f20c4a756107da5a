/* submission: prints submission.json, training logs and README.md; see submission.h. */
#include "harness/submission.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "harness/json_out.h"
#include "harness/provenance.h"

bool submission_counts(const struct submission *s, const struct result_run *run) {
    return run->variant == s->variant && strcmp(run->status, "done") == 0 && run->artifact.present;
}

const struct comparison *submission_comparison(const struct submission *s) {
    const char *name = s->results.variants[s->variant].name;
    for (int i = 1; i < s->table.count; i++)
        if (strcmp(s->table.rows[i].variant, name) == 0) return &s->table.rows[i];
    return NULL;
}

/* Of the training alone, as its steps were timed. */
static double milliseconds_of(const struct result_run *run) {
    double sum = 0;
    for (size_t i = 0; i < run->step_count; i++) sum += run->trace[i].milliseconds;
    return sum;
}

static double mean_step(const struct result_run *run) {
    return run->step_count ? milliseconds_of(run) / (double)run->step_count : (double)NAN;
}

/* --- submission.json ---------------------------------------------------------------------------------------------- */

static json_t *seed_json(const struct result_run *run) {
    json_t *object = json_object();
    json_object_set_new(object, "val_loss", json_number(run->artifact.value.nll_per_token));
    json_object_set_new(object, "val_bpb", json_number(run->artifact.value.bpb));
    json_object_set_new(object, "steps", json_integer((json_int_t)run->steps));
    json_object_set_new(object, "ms_per_step", json_number(mean_step(run)));
    json_object_set_new(object, "artifact_bytes", json_integer((json_int_t)run->sizes.bytes));
    json_object_set_new(object, "artifact_sha256", json_text(run->sizes.sha256));
    return object;
}

/* When the last of the runs was finished. */
static const char *date_of(const struct submission *s) {
    const char *date = "";
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (submission_counts(s, run) && strcmp(run->finished, date) > 0) date = run->finished;
    }
    return date;
}

static json_t *blurb_of(const struct submission *s) {
    const struct result_variant *v = &s->results.variants[s->variant];
    return json_sprintf("%s Against the suite's options: %s", s->results.question,
                        *v->overrides ? v->overrides : "nothing differs");
}

/* Of the record rule; none where the variant is not better. */
static json_t *p_value_of(const struct submission *s) {
    const struct comparison *c = submission_comparison(s);
    return c && c->pairs >= 2 && c->delta < 0 ? json_number(c->p_margin) : json_null();
}

static void add_seeds(const struct submission *s, json_t *root) {
    json_t *seeds = json_array(), *results = json_object();
    char name[32];
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (!submission_counts(s, run)) continue;
        snprintf(name, sizeof name, "%" PRId64, run->seed);
        json_array_append_new(seeds, json_integer(run->seed));
        json_object_set_new(results, name, seed_json(run));
    }
    json_object_set_new(root, "seeds", seeds);
    json_object_set_new(root, "seed_results", results);
}

void submission_print_json(FILE *out, const struct submission *s) {
    json_t *root = json_object();
    json_object_set_new(root, "author", json_string(s->author));
    json_object_set_new(root, "github_id", json_string(s->github_id));
    json_object_set_new(root, "name", json_text(s->results.variants[s->variant].name));
    json_object_set_new(root, "blurb", blurb_of(s));
    json_object_set_new(root, "date", json_string(date_of(s)));
    json_object_set_new(root, "val_loss", json_number(s->loss));
    json_object_set_new(root, "val_bpb", json_number(s->bpb));
    json_object_set_new(root, "bytes_total", json_integer((json_int_t)(s->bytes + s->code_bytes)));
    json_object_set_new(root, "bytes_code", json_integer((json_int_t)s->code_bytes));
    add_seeds(s, root);
    json_object_set_new(root, "p_value", p_value_of(s));
    json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    fputc('\n', out);
    json_decref(root);
}

/* --- the training log: the competition's own lines, in its order -------------------------------------------------- */

static void print_setup(FILE *out, const struct submission *s, const struct result_run *run) {
    const struct config *c = &s->config;
    fprintf(out, "train_loader:dataset:%s\n", s->results.dataset);
    fprintf(out, "val_loader:dataset:%s tokens:%" PRId64 "\n", s->results.dataset, run->artifact.value.tokens);
    fprintf(out, "model_params:%" PRId64 "\n", run->parameter_count);
    fprintf(out, "train_batch_tokens:%" PRId64 " train_seq_len:%" PRId64 " iterations:%" PRId64 "\n",
            c->train_batch_tokens, c->train_sequence, c->train_steps);
    fprintf(out, "seed:%" PRId64 "\n", run->seed);
}

static void print_steps(FILE *out, const struct result_run *run) {
    double elapsed = 0;
    for (size_t i = 0; i < run->step_count; i++) {
        const struct step_record *step = &run->trace[i];
        elapsed += step->milliseconds;
        fprintf(out, "step:%" PRId64 "/%zu train_loss:%.4f train_time:%.0fms step_avg:%.2fms\n", step->step + 1,
                run->step_count, step->loss, elapsed, elapsed / (double)(i + 1));
    }
    if (run->raw.present)
        fprintf(out, "step:%zu/%zu val_loss:%.4f val_bpb:%.4f train_time:%.0fms step_avg:%.2fms\n", run->step_count,
                run->step_count, run->raw.value.nll_per_token, run->raw.value.bpb, elapsed, mean_step(run));
}

static void print_sizes(FILE *out, const struct submission *s, const struct result_run *run) {
    size_t floats = (size_t)run->parameter_count * sizeof(float), bytes = run->sizes.bytes, raw = run->sizes.raw_bytes;
    fprintf(out, "Serialized model: %zu bytes\nCode size: %zu bytes\nTotal submission size: %zu bytes\n", floats,
            s->code_bytes, floats + s->code_bytes);
    fprintf(out, "Serialized model %s+xz: %zu bytes (payload:%zu payload_ratio:%.2fx)\n", run->strategy, bytes, raw,
            (double)floats / (double)raw);
    fprintf(out, "Total submission size %s+xz: %zu bytes\n", run->strategy, bytes + s->code_bytes);
}

static void print_validation(FILE *out, const char *label, const struct evaluation *e) {
    fprintf(out, "%s val_loss:%.4f val_bpb:%.4f eval_time:%.0fms\n", label, e->nll_per_token, e->bpb,
            1000 * e->seconds);
}

void submission_print_log(FILE *out, const struct submission *s, const struct result_run *run) {
    char label[TEXT_CAPACITY + 32];
    print_setup(out, s, run);
    print_steps(out, run);
    if (run->averaged.present) print_validation(out, "averaged", &run->averaged.value);
    print_sizes(out, s, run);
    snprintf(label, sizeof label, "final_%s_xz_roundtrip", run->strategy);
    print_validation(out, label, &run->artifact.value);
    fprintf(out, "%s_exact val_loss:%.8f val_bpb:%.8f\n", label, run->artifact.value.nll_per_token,
            run->artifact.value.bpb);
}

/* --- README.md ---------------------------------------------------------------------------------------------------- */

void submission_print_claim(FILE *out, const struct submission *s) {
    const struct comparison *c = submission_comparison(s);
    const char *name = s->results.variants[s->variant].name;
    if (!c || c->pairs < 2) {
        fprintf(out,
                "**No claim.** A test needs two seeds that %s and the baseline `%s` share; there %s %zu. Run more "
                "seeds.\n",
                name, s->baseline, c && c->pairs == 1 ? "is" : "are", c ? c->pairs : 0);
        return;
    }
    bool holds = c->delta < 0 && c->p_margin < RECORD_ALPHA;
    fprintf(out,
            "**%s.** Over %zu seeds, paired, the loss of `%s` minus that of `%s` is %+.5f nats per token (%g %% "
            "interval %+.5f to %+.5f).\n",
            holds ? "The rule is met" : "The rule is not met", c->pairs, name, s->baseline, c->delta,
            100 * (1 - RECORD_ALPHA), c->ci_low, c->ci_high);
    if (c->delta < 0)
        fprintf(out, "One-sided paired t test of an improvement of more than %g nats: p = %.3g; required p < %g.\n",
                RECORD_MARGIN, c->p_margin, RECORD_ALPHA);
    else
        fprintf(out, "The variant is not better, so no test of an improvement of more than %g nats applies.\n",
                RECORD_MARGIN);
    if (c->summary.failed)
        fprintf(out, "%zu failed seeds of the variant could not enter the test.\n", c->summary.failed);
    if (c->late) fprintf(out, "Some of these runs were added after the declaration was frozen.\n");
}

bool submission_of_other_code(const struct submission *s) {
    return !s->code && strcmp(s->revision, provenance_revision()) != 0;
}

static void print_code(FILE *out, const struct submission *s) {
    if (s->code)
        fprintf(out, "The code is `%s`, counted as it lies here.\n\n", s->code);
    else
        fprintf(out,
                "The code is counted as the source text of revision %s: harness, kernels, model and the Makefile. Put "
                "it here, or give an archive of it with --code.\n\n",
                provenance_revision());
    if (submission_of_other_code(s))
        fprintf(out,
                "**Another code.** Revision %s trained this: build that one and make this "
                "folder again, or give its archive with --code.\n\n",
                s->revision);
}

void submission_print_readme(FILE *out, const struct submission *s) {
    const struct result_variant *v = &s->results.variants[s->variant];
    size_t total = s->bytes + s->code_bytes;
    fprintf(out, "# %s\n\n%s\n\nWhat differs from the suite's options: %s\n\n", v->name, s->results.question,
            *v->overrides ? v->overrides : "nothing");
    fprintf(out,
            "| seed | val_loss | val_bpb | artifact bytes | training log |\n| ---: | ---: | ---: | ---: | --- |\n");
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (submission_counts(s, run))
            fprintf(out, "| %" PRId64 " | %.5f | %.5f | %zu | train_seed%" PRId64 ".log |\n", run->seed,
                    run->artifact.value.nll_per_token, run->artifact.value.bpb, run->sizes.bytes, run->seed);
    }
    fprintf(out, "\nMean val_loss %.5f, mean val_bpb %.5f, of the artifact as it was read back.\n", s->loss, s->bpb);
    fprintf(out, "Largest artifact %zu bytes + code %zu bytes = %zu bytes: %s the cap of %d.\n\n", s->bytes,
            s->code_bytes, total, total <= RECORD_BYTES ? "within" : "ABOVE", RECORD_BYTES);
    print_code(out, s);
    fprintf(out, "## Significance\n\nThe rule: better by at least %g nats per token at p < %g.\n\n", RECORD_MARGIN,
            RECORD_ALPHA);
    submission_print_claim(out, s);
    fprintf(out, "\nSuite %s%s%s, declaration sha256 %s, dataset %s sha256 %s.\n", s->results.suite,
            *s->results.scale ? " at scale " : "", s->results.scale, s->results.declaration_sha256, s->results.dataset,
            s->results.dataset_sha256);
}
