/* methods: what was done, in prose; see methods.h. Paragraphs are built as plain UTF-8 and escaped as a whole. */
#include "harness/report/methods.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "harness/report/caveats.h"
#include "harness/simulated.h"
#include "model/trainer.h"

static void paragraph(struct text *latex, const char *title, struct text *plain) {
    text_add(latex, "\\paragraph{%s.} ", title);
    text_latex(latex, text_of(plain));
    text_add(latex, "\n\n");
    text_free(plain);
}

static void add_count(struct text *t, int64_t value) { text_integer(t, (double)value); }

static void add_list(struct text *t, const struct int_list *list) {
    for (int i = 0; i < list->count; i++)
        text_add(t, "%s%" PRId64, !i ? "" : i + 1 == list->count ? " and " : ", ", list->values[i]);
}

static void add_parameters(const struct analysis *a, struct text *t) {
    double least = INFINITY, most = -INFINITY;
    for (int v = 0; v < a->results->variant_count; v++) {
        if (!isfinite(a->variants[v].parameters)) continue;
        least = fmin(least, a->variants[v].parameters);
        most = fmax(most, a->variants[v].parameters);
    }
    text_add(t, " The variants have ");
    text_integer(t, least);
    if (most > least) {
        text_add(t, " to ");
        text_integer(t, most);
    }
    text_add(t, " parameters.");
}

static void add_mixers(const struct config *c, struct text *t) {
    if (c->attention_layers.count) {
        text_add(t, "Of the layers, counted from 0, %s ", c->attention_layers.count > 1 ? "numbers" : "number");
        add_list(t, &c->attention_layers);
        text_add(t, c->attention_layers.count > 1 ? " mix" : " mixes");
        text_add(t, " by grouped-query attention (%" PRId64 " query and %" PRId64 " key and value heads, ",
                 c->attention_heads, c->attention_kv_heads);
        if (c->attention_rope_dims)
            text_add(t, "RoPE on %" PRId64 " dimensions of a head, base %g", c->attention_rope_dims,
                     c->attention_rope_base);
        else
            text_add(t, "no RoPE");
        text_add(t, "), the others by Mamba-3 ");
    } else {
        text_add(t, "All layers mix by Mamba-3 ");
    }
    text_add(t,
             "(state N = %" PRId64 ", head dimension P = %" PRId64 ", expansion %" PRId64 ", %" PRId64
             " group%s, %g of the state rotated).",
             c->mamba_state, c->mamba_head_dim, c->mamba_expand, c->mamba_groups, c->mamba_groups == 1 ? "" : "s",
             c->mamba_rotary_fraction);
}

static void add_recurrence(const struct config *c, struct text *t) {
    if (!c->recurrence_layers.count) {
        text_add(t, " No layer is repeated.");
        return;
    }
    text_add(t, " Layers ");
    add_list(t, &c->recurrence_layers);
    text_add(t, " are inserted again %" PRId64 " time%s after the last of them, with %s MLPs, from %g of the steps on.",
             c->recurrence_repeats, c->recurrence_repeats == 1 ? "" : "s",
             c->recurrence_mlp == REPEAT_UNTIED ? "untied" : "shared", c->recurrence_start);
}

static void describe_model(const struct analysis *a, struct text *t) {
    static const char *const skips[] = {[SKIPS_PUBLISHED] =
                                            "U-Net skips over the inner half of the layers, as published",
                                        [SKIPS_ALL] = "U-Net skips over all layers",
                                        [SKIPS_NONE] = "no U-Net skips"};
    const struct config *c = &a->results->config;
    text_add(t, "A hybrid decoder of %" PRId64 " layers of width %" PRId64 " over a vocabulary of ", c->model_layers,
             c->model_dim);
    add_count(t, c->model_vocab_size);
    text_add(t, " pieces. ");
    add_mixers(c, t);
    text_add(t, " The MLPs are %" PRId64 " times as wide; the linear layers are %s. There are %s", c->model_mlp_mult,
             c->model_linear == LINEAR_TERNARY ? "ternary" : "in floating point", skips[c->model_skips]);
    text_add(t, c->model_smear ? ", a learned smear of each embedding with the one before it" : ", no smear");
    if (c->model_bigram_buckets) {
        text_add(t, ", and ");
        add_count(t, c->model_bigram_buckets);
        text_add(t, " hashed bigram embeddings of width %" PRId64 ".", c->model_bigram_dim);
    } else {
        text_add(t, ", and no bigram embeddings.");
    }
    text_add(t, " The logits are capped by %g tanh(x/%g).", c->model_softcap, c->model_softcap);
    add_recurrence(c, t);
    add_parameters(a, t);
    text_add(t, " This is the suite's configuration; what each variant changes of it is listed with the variants.");
}

static void describe_data(const struct analysis *a, struct text *t) {
    const struct results *r = a->results;
    text_add(t, "The prepared text %s (SHA-256 %.16s…, whole in the declared design). ",
             *r->dataset ? r->dataset : r->config.data_name, *r->dataset_sha256 ? r->dataset_sha256 : "not recorded");
    text_add(t, r->config.data_order == DATA_SHUFFLED
                    ? "Training windows are permuted by the seed, so that seeds differ in their initial weights and in "
                      "the order of the text."
                    : "Every seed reads the same stream, so that seeds differ in their initial weights alone.");
    if (!isfinite(r->unigram_bpb) || r->unigram_bpb <= 0.0) return;
    text_add(t, " An add-one unigram model of the training tokens reaches ");
    text_number(t, r->unigram_bpb, 4);
    text_add(t, " bits per byte on the validation text.");
}

static void add_schedule(const struct config *c, struct text *t) {
    double first = trainer_multiplier(c, 0);
    text_add(t, " The rates ");
    if (first < 1.0)
        text_add(t, "begin at %.3g of their full size and fall to 0 over all ", first);
    else
        text_add(t, "fall to 0 over the last ");
    add_count(t, c->train_warmdown < c->train_steps ? c->train_warmdown : c->train_steps);
    text_add(t, " steps (%s).", c->train_decay_shape == DECAY_COSINE ? "cosine" : "linear");
    if (c->train_ema > 0.0)
        text_add(t, " The averaged weights are a moving average with decay %g a step.", c->train_ema);
    else if (c->train_swa)
        text_add(
            t,
            " The averaged weights are the mean of every 50th step's once the rates are under 0.4 of their full size.");
    else
        text_add(t, " The weights are not averaged.");
    if (c->train_qat_below > 0.0)
        text_add(
            t,
            " Once the rates are under %g of their full size, large linear weights pass through fake quantisation to "
            "%" PRId64 " bits.",
            c->train_qat_below, c->train_qat_bits);
}

static void describe_training(const struct analysis *a, struct text *t) {
    const struct config *c = &a->results->config;
    add_count(t, c->train_steps);
    text_add(t, " steps of ");
    add_count(t, c->train_batch_tokens);
    text_add(t, " tokens in windows of T = ");
    add_count(t, c->train_sequence);
    text_add(t, ", ");
    add_count(t, c->train_steps * c->train_batch_tokens);
    text_add(t, " tokens in all. Every batch is cut into 8 micro-shards whose gradients are added as a fixed tree, so "
                "that the result does not depend on the number of threads.");
    if (c->train_seconds > 0.0)
        text_add(t, " Training stopped by the clock after %g s; such runs cannot be reproduced bit for bit.",
                 c->train_seconds);
    text_add(t,
             " Muon (rate %g, decoupled weight decay %g, momentum %g from %g, %" PRId64
             " Newton–Schulz steps) moves the linear weights; Adam (β = %g and %g) the embedding at rate %g and "
             "everything else at %g.",
             c->optim_muon_rate, c->optim_muon_decay, c->optim_muon_momentum, c->optim_muon_momentum_start,
             c->optim_muon_iterations, c->optim_adam_beta1, c->optim_adam_beta2, c->optim_embedding_rate,
             c->optim_adam_rate);
    if (c->optim_clip > 0.0) text_add(t, " Gradients are clipped at norm %g.", c->optim_clip);
    add_schedule(c, t);
}

/* What kernels/simulated draws from; no sentence about a training would be true. */
static void describe_simulation(const struct analysis *a, struct text *t) {
    const struct config *c = &a->results->config;
    text_add(t,
             "Nothing was trained, evaluated or quantised, and no text was read: every figure is drawn. Bits per byte "
             "are normal about %g plus the effect of the variant, with a standard deviation of %g over the seeds and a "
             "correlation of %g between two variants under one seed",
             c->simulated_bpb, c->simulated_seed_sd, c->simulated_correlation);
    if (c->simulated_node_sd > 0.0)
        text_add(t, "; each of %" PRId64 " machines adds its own shift, with a standard deviation of %g",
                 c->simulated_nodes, c->simulated_node_sd);
    if (c->simulated_failure_rate > 0.0) text_add(t, "; a run fails with probability %g", c->simulated_failure_rate);
    text_add(t, ". What each variant changes of this is listed with the variants.");
}

/* The first evaluation that there is: all score the same tokens. */
static const struct evaluation *an_evaluation(const struct results *r) {
    for (int i = 0; i < r->run_count; i++)
        if (r->runs[i].raw.present) return &r->runs[i].raw.value;
    return NULL;
}

static void describe_evaluation(const struct analysis *a, struct text *t) {
    const struct config *c = &a->results->config;
    const struct evaluation *e = an_evaluation(a->results);
    text_add(t, "Bits per byte are Σ nll / ln 2 over Σ bytes of the scored tokens, summed in float64 in the order of "
                "the text. ");
    if (c->eval_mode == EVAL_SLIDING)
        text_add(t, "Windows of T slide by %" PRId64 " tokens and score their last %" PRId64 ".", c->eval_stride,
                 c->eval_stride);
    else
        text_add(t, "Windows of T stand side by side; the tail is %s.",
                 c->eval_tail == TAIL_KEEP ? "scored" : "dropped");
    if (c->eval_mode == EVAL_TTT)
        text_add(t,
                 " After every %" PRId64 " tokens, once they are scored, all weights are updated on them %" PRId64
                 " times by %s at rate %g; no token is learnt from before it is scored.",
                 c->eval_ttt_chunk, c->eval_ttt_epochs, c->eval_ttt_optimizer == TTT_SGD ? "SGD" : "AdamW",
                 c->eval_ttt_rate);
    if (c->eval_temperature != 1.0) text_add(t, " Logits are divided by %g.", c->eval_temperature);
    if (!e) return;
    text_add(t, " ");
    add_count(t, e->tokens);
    text_add(t, " tokens, ");
    add_count(t, e->bytes);
    text_add(t, " bytes, of the validation text are scored.");
}

static bool every_variant_sets(const struct results *r, const char *key) {
    for (int v = 0; v < r->variant_count; v++)
        if (!strstr(r->variants[v].overrides, key)) return false;
    return true;
}

static void describe_strategy(const struct analysis *a, struct text *t) {
    static const char *const methods[] = {
        [METHOD_NONE] = "fp16",
        [METHOD_ROWWISE] = "rounding to the nearest",
        [METHOD_GPTQ] = "GPTQ",
        [METHOD_TERNARY] = "the trits of the linear layers, five in a byte, with one scale a tensor"};
    static const char *const calibrations[] = {[CALIBRATION_SELF] = "the model's own samples",
                                               [CALIBRATION_TRAIN] = "the training text",
                                               [CALIBRATION_NONE] = "no statistics"};
    const struct config *c = &a->results->config;
    if (every_variant_sets(a->results, "quant.strategy")) {
        text_add(t, "Each variant stores the averaged weights by a strategy of its own, listed with the variants");
        return;
    }
    text_add(t, "The strategy %s stores the averaged weights by %s", c->quant_strategy, methods[c->quant_method]);
    if (c->quant_method == METHOD_ROWWISE || c->quant_method == METHOD_GPTQ)
        text_add(t, " with %" PRId64 " bits and one fp16 scale a %s", c->quant_bits,
                 c->quant_group ? "group of columns" : "row");
    if (c->quant_method == METHOD_GPTQ) {
        text_add(t, ", calibrated on %s (%" PRId64 " sequences", calibrations[c->quant_calibration],
                 c->quant_calibration_sequences);
        if (c->quant_calibration == CALIBRATION_SELF)
            text_add(t, " at temperature %g", c->quant_calibration_temperature);
        text_add(t, ")");
    }
}

static void describe_quantisation(const struct analysis *a, struct text *t) {
    describe_strategy(a, t);
    text_add(t, ". The artifact is one .xz stream around a safetensors file; it is read back through its own decoder, "
                "and the decoded model is what is scored.");
}

static void warn_of_few_seeds(const struct analysis *a, struct text *t) {
    size_t fewest = 1000;
    for (int v = 1; v < a->table.count; v++)
        if (a->table.rows[v].pairs >= 2 && a->table.rows[v].pairs < fewest) fewest = a->table.rows[v].pairs;
    if (fewest < 6)
        text_add(t,
                 " With as few as %zu pairs, t rests on the assumption that the differences are normal, which so few "
                 "cannot check.",
                 fewest);
}

static void describe_test(const struct analysis *a, struct text *t) {
    static const char *const tests[TEST_KINDS] = {
        [TEST_PAIRED_T] = "the paired t test",
        [TEST_SIGN_FLIP] = "the sign-flip permutation test (all signings up to 20 pairs, 99,999 sampled above, 19,999 "
                           "above 200 pairs)",
        [TEST_WILCOXON] =
            "Wilcoxon's signed-rank test (exact given the ranks up to 200 pairs; zero differences left out)",
        [TEST_WELCH] = "Welch's t test",
        [TEST_MANN_WHITNEY] = "the Mann–Whitney test (exact given the ranks up to 100 values)",
    };
    const struct design *d = &a->design;
    text_add(t, "One seed is one unit: a variant and the baseline are %s. ",
             test_pairs(d->test) ? "paired by seed" : "compared as two samples of seeds");
    text_add(t, "Intervals are %s at %g %% each, not corrected, unless they are said to hold together (Bonferroni). ",
             test_pairs(d->test) ? "Student's t on the differences" : "Welch's", 100.0 * (1.0 - d->alpha));
    text_add(t, "p comes from %s, two-sided", tests[d->test]);
    if (d->correction == CORRECT_NONE)
        text_add(t, ", without a correction. ");
    else
        text_add(t, ", adjusted over %s%d comparison%s%s (%s). ", a->table.groups > 1 ? "the at most " : "",
                 a->table.family, a->table.family == 1 ? "" : "s",
                 a->table.groups > 1 ? " of each declared family" : "",
                 d->correction == CORRECT_HOLM ? "Holm" : "Benjamini–Hochberg");
}

static void describe_looks(const struct look_plan *plan, struct text *t) {
    if (!plan) return;
    text_add(t, "The comparisons were looked at after ");
    for (int k = 0; k < plan->count; k++)
        text_add(t, "%s%zu", !k ? "" : k + 1 == plan->count ? " and " : ", ", plan->n[k]);
    text_add(
        t,
        " seeds, as declared; a comparison stops where |t| reaches its boundary. The boundaries spend α = %.4g of "
        "each comparison by the %s function (Lan & DeMets) and are computed for t with its few degrees of freedom. "
        "Intervals that hold together hold over the looks too (Jennison & Turnbull); all others, and p, are of the "
        "seeds "
        "there are and take no account of the looks. ",
        plan->alpha, spending_name(plan->spending));
}

static void describe_failures_and_late(const struct analysis *a, struct text *t) {
    text_add(t, test_ranks(a->design.test) ? "Failed seeds are counted and rank as the worst; "
                                           : "Failed seeds are counted and cannot be compared; ");
    text_add(t, "what was added after the declaration was frozen is marked late%s.",
             a->design.looks ? ", and judged by the boundaries of the declared comparisons"
             : a->design.correction == CORRECT_NONE
                 ? ""
                 : ", and corrected over all comparisons, while declared ones are corrected among themselves");
    caveats_sentences(a->results, t);
}

static void describe_statistics(const struct analysis *a, struct text *t) {
    const struct design *d = &a->design;
    describe_test(a, t);
    describe_looks(d->looks, t);
    if (a->metric->timed)
        text_add(t,
                 "Times are compared seed by seed, and only where one machine trained both; the means of the variants "
                 "are over all their runs. ");
    if (d->margin > 0.0 && !d->looks)
        text_add(t,
                 "“By the margin” means that a one-sided t test against the margin of %g passes too; “equivalent” that "
                 "both one-sided tests place the difference inside ±%g (TOST). Both are adjusted in the same way. ",
                 d->margin, d->margin);
    text_add(t,
             "g is Hedges' g with the exact small-sample factor, of the pairs where there are pairs. MDE80 is the "
             "difference that the t test finds with 80 %% power at the observed spread, at α %s. The bootstrap is BCa "
             "(all resamples up to 10 pairs, 9,999 seeded ones above, 1,999 above 200). ",
             d->correction == CORRECT_HOLM ? "divided by the number of comparisons" : "as declared");
    describe_failures_and_late(a, t);
    warn_of_few_seeds(a, t);
}

struct topic {
    const char *title;
    void (*describe)(const struct analysis *a, struct text *t);
};

void methods_write(const struct analysis *a, struct text *latex) {
    static const struct topic measured[] = {{"Model", describe_model},
                                            {"Data", describe_data},
                                            {"Training", describe_training},
                                            {"Evaluation", describe_evaluation},
                                            {"Quantisation", describe_quantisation},
                                            {"Statistics", describe_statistics},
                                            {NULL, NULL}};
    static const struct topic drawn[] = {
        {"Simulation", describe_simulation}, {"Statistics", describe_statistics}, {NULL, NULL}};
    for (const struct topic *topic = simulated_note(a->results) ? drawn : measured; topic->title; topic++) {
        struct text plain = {0};
        topic->describe(a, &plain);
        paragraph(latex, topic->title, &plain);
    }
}
