/* caveats: what must be read with every figure of a suite; see caveats.h. */
#include "harness/report/caveats.h"

#include <string.h>

#include "harness/loss_rise.h"

/* Runs of a late variant are late too: a seed is, when a declared variant's run of it is. Runs lie seed by seed. */
static int count_late_seeds(const struct results *r) {
    int count = 0;
    for (int i = 0, last = -1; i < r->run_count; i++) {
        if (!r->runs[i].late || r->variants[r->runs[i].variant].late) continue;
        count += last < 0 || r->runs[last].seed != r->runs[i].seed;
        last = i;
    }
    return count;
}

void caveats_count(const struct results *r, struct caveats *out) {
    *out = (struct caveats){.late_seeds = count_late_seeds(r), .peeks = r->peek_count, .refusals = r->refusal_count};
    for (int v = 0; v < r->variant_count; v++) out->late_variants += r->variants[v].late;
    for (int i = 0; i < r->run_count; i++) {
        out->failed += strcmp(r->runs[i].status, "failed") == 0;
        out->blown_up += *r->runs[i].training_note != '\0';
        out->deleted += strcmp(r->runs[i].status, "deleted") == 0;
    }
}

static void add(struct text *t, int count, const char *what, const char *plural) {
    if (count) text_add(t, "%s%d %s%s", t->size ? ", " : "", count, what, count > 1 ? plural : "");
}

static void add_peek(const struct result_peek *peek, struct text *t) {
    text_add(t, "%s at %d of %d runs", peek->verb, peek->done, peek->declared);
}

void caveats_line(const struct results *r, struct text *t) {
    struct caveats c;
    caveats_count(r, &c);
    add(t, c.late_seeds, "late seed", "s");
    add(t, c.late_variants, "late variant", "s");
    add(t, c.failed, "failed run", "s");
    add(t, c.blown_up, "blown-up run", "s");
    add(t, c.deleted, "deleted run", "s");
    add(t, c.peeks, "peek", "s");
    if (c.peeks) {
        text_add(t, c.peeks > 1 ? " (first: " : " (");
        add_peek(&r->peeks[0], t);
        text_add(t, ")");
    }
    add(t, c.refusals, "refused change", "s");
}

static void say_peeks(const struct results *r, struct text *t) {
    if (!r->peek_count) return;
    text_add(t, " Peeks: no looks were declared, yet figures were shown before all declared runs had ended (");
    for (int i = 0; i < r->peek_count; i++) {
        text_add(t, "%s", i ? "; " : "");
        add_peek(&r->peeks[i], t);
        text_add(t, ", %s", r->peeks[i].at);
    }
    text_add(t, "). A decision to stop or to go on that was taken from them makes the error rate larger than α.");
}

static void say_refusals(const struct results *r, struct text *t) {
    for (int i = 0; i < r->refusal_count; i++)
        text_add(t, " A changed declaration was refused (%s: %s); all figures are of the one that was frozen.",
                 r->refusals[i].name, r->refusals[i].value);
}

static int blown_up_of(const struct results *r, int variant) {
    int count = 0;
    for (int i = 0; i < r->run_count; i++) count += r->runs[i].variant == variant && *r->runs[i].training_note;
    return count;
}

void caveats_blown_up(const struct results *r, struct text *t) {
    struct caveats c;
    caveats_count(r, &c);
    if (!c.blown_up) return;
    text_add(t, "Of %d runs %d blew up (", r->run_count, c.blown_up);
    for (int v = 0, said = 0; v < r->variant_count; v++) {
        int count = blown_up_of(r, v);
        if (count) text_add(t, "%s%s %d", said++ ? ", " : "", r->variants[v].name, count);
    }
    text_add(t,
             "): over the last fifth of the steps the mean training loss is more than %.2f nats per token above the "
             "lowest over a fifth. A difference from such a run says nothing of trained models.",
             LOSS_RISE);
}

void caveats_sentences(const struct results *r, struct text *t) {
    struct caveats c;
    caveats_count(r, &c);
    if (c.late_seeds || c.late_variants)
        text_add(t, " Added after the declaration was frozen, and marked late: %d seed%s and %d variant%s.",
                 c.late_seeds, c.late_seeds == 1 ? "" : "s", c.late_variants, c.late_variants == 1 ? "" : "s");
    if (c.failed) text_add(t, " Failed: %d run%s.", c.failed, c.failed == 1 ? "" : "s");
    if (c.blown_up) text_add(t, " ");
    caveats_blown_up(r, t);
    if (c.deleted)
        text_add(t, " Deleted from the database: %d run%s, missing in every figure.", c.deleted,
                 c.deleted == 1 ? "" : "s");
    say_peeks(r, t);
    say_refusals(r, t);
}
