/* places: the tables and columns behind a run's figures; see places.h. */
#include "harness/report/places.h"

#include <math.h>
#include <string.h>

#include "harness/plan.h"

struct place {
    const char *name;
    enum run_part part; /* the stage that holds it */
    const char *table, *key, *column;
    double (*value)(const struct result_run *run);
    enum tensor_class class; /* of artifact_classes */
};

static double bpb(const struct result_evaluation *e) { return e->present ? e->value.bpb : (double)NAN; }
static double raw(const struct result_run *r) { return bpb(&r->raw); }
static double averaged(const struct result_run *r) { return bpb(&r->averaged); }
static double artifact(const struct result_run *r) { return bpb(&r->artifact); }
static double size(const struct result_run *r) { return r->sizes.bytes ? (double)r->sizes.bytes : (double)NAN; }
static double raw_size(const struct result_run *r) { return r->sizes.bytes ? (double)r->sizes.raw_bytes : (double)NAN; }
static double train_seconds(const struct result_run *r) { return r->train_seconds; }
static double tokens_per_second(const struct result_run *r) { return r->tokens_per_second; }
static double final_loss(const struct result_run *r) { return r->final_loss; }
static double parameters(const struct result_run *r) { return (double)r->parameter_count; }
static double quantise_seconds(const struct result_run *r) { return r->quantise_seconds; }
static double calibration_seconds(const struct result_run *r) { return r->calibration_seconds; }

#define EVALUATED(name, part, value) \
    { name, part, "evaluations", "stage", "bpb", value, 0 }
#define STAGE(name, part, column, value) \
    { name, part, "stages", "id", column, value, 0 }
#define ARTIFACT(name, column, value) \
    { name, PART_QUANTISE, "artifacts", "stage", column, value, 0 }
#define CLASS(class) \
    { NULL, PART_QUANTISE, "artifact_classes", "stage", "bytes", NULL, class }
static const struct place places[] = {
    EVALUATED("bpb.raw", PART_RAW, raw),
    EVALUATED("bpb.averaged", PART_AVERAGED, averaged),
    EVALUATED("bpb.artifact", PART_ARTIFACT, artifact),
    ARTIFACT("artifact_bytes", "bytes", size),
    ARTIFACT("before_compression", "raw_bytes", raw_size),
    STAGE("train_seconds", PART_TRAIN, "seconds", train_seconds),
    STAGE("tokens_per_second", PART_TRAIN, "tokens_per_second", tokens_per_second),
    STAGE("loss.final", PART_TRAIN, "final_loss", final_loss),
    STAGE("parameters", PART_TRAIN, "parameter_count", parameters),
    STAGE("quantise_seconds", PART_QUANTISE, "quantise_seconds", quantise_seconds),
    STAGE("calibration_seconds", PART_QUANTISE, "calibration_seconds", calibration_seconds),
    CLASS(CLASS_EMBEDDING),
    CLASS(CLASS_BIGRAM),
    CLASS(CLASS_MAMBA),
    CLASS(CLASS_ATTENTION),
    CLASS(CLASS_MLP),
    CLASS(CLASS_CONTROL),
};

const char *place_name(const struct place *place) {
    return place->name ? place->name : tensor_class_name(place->class);
}

const struct place *place_find(const char *name) {
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(place_name(&places[i]), name) == 0) return &places[i];
    return NULL;
}

double place_value(const struct place *place, const struct result_run *run) {
    if (place->value) return place->value(run);
    return run->sizes.bytes ? (double)run->sizes.class_bytes[place->class] : (double)NAN;
}

void place_column(const struct place *place, struct text *sql) {
    text_add(sql, "(SELECT m.%s FROM run_stages s JOIN %s m ON m.%s = s.stage WHERE s.run = r.id AND s.part = %d",
             place->column, place->table, place->key, (int)place->part);
    if (!place->value) text_add(sql, " AND m.class = '%s'", place_name(place));
    text_add(sql, ") AS \"%s\"", place_name(place));
}
