#!/usr/bin/env bats
# memory: what `hinge plan` announces a job to take is what it takes, whichever stage is the largest.

load helpers

setup_file() {
    export FOLDER
    FOLDER=$(mktemp -d)
    prepare_text "$FOLDER"
    cp -r suites/presets "$FOLDER"
}

teardown_file() { rm -rf "$FOLDER"; }

# announced SUITE FLAGS...: the plan's figures in $FOLDER/plan.json, the peak of the run in $seen.
announced() {
    hinge plan "$@" --db "$FOLDER/none.db" --data "$FOLDER/data" --json >"$FOLDER/plan.json"
    seen=$(peak "$HINGE" run "$@" --db "$FOLDER/hinge.db" --data "$FOLDER/data")
    rm "$FOLDER"/hinge.db*
    json "'announced %.1f MB, seen %.1f MB' % (d['estimate']['memory_bytes'] / 1e6, $seen / 1e6)" <"$FOLDER/plan.json"
    [ "$(json "1 / 1.5 < $seen / d['estimate']['memory_bytes'] < 1.5" <"$FOLDER/plan.json")" = True ]
}

# largest STAGE: the plan's largest stage is this, and what the run took beside the program is what it needs.
largest() {
    [ "$(json "max(d['estimate']['memory'].items(), key=lambda m: (m[0] != 'process') * m[1])[0]" \
        <"$FOLDER/plan.json")" = "$1" ]
    json "'beside the program: %.2f of the announced' % \
        (($seen - d['estimate']['memory']['process']) / d['estimate']['memory']['$1'])" <"$FOLDER/plan.json"
    [ "$(json "1 / 1.5 < ($seen - d['estimate']['memory']['process']) / d['estimate']['memory']['$1'] < 1.5" \
        <"$FOLDER/plan.json")" = True ]
}

suite() { # suite SETTINGS: two runs of the demo's model, of one step
    cat >"$FOLDER/memory.yaml" <<YAML
name: memory
question: How much memory?
preset: demo
set: {train.steps: 1, eval.tokens: 4096, quant.calibration_sequences: 8, $1}
seeds: [1, 2]
baseline: plain
metric: bpb.raw
variants: {plain: {}}
YAML
}

@test "suites at tiny take the memory that their plans announce" {
    for name in demo recurrence quantization; do announced $name --scale tiny --set train.steps=2; done
}

@test "training takes what its plan announces" {
    suite ""
    announced "$FOLDER/memory.yaml"
    largest train
}

@test "quantising takes what its plan announces: wide layers have large Hessians" {
    suite "model.mlp_mult: 8"
    announced "$FOLDER/memory.yaml"
    largest quantise
}

@test "test-time training takes what its plan announces: gradients, moments and a tape" {
    suite "eval.mode: ttt, eval.ttt_optimizer: adamw, eval.ttt_chunk: 2048, train.ema: 0, train.qat_below: 0"
    announced "$FOLDER/memory.yaml"
    [ "$(json 'd["estimate"]["memory"]["evaluate"] > 0.8 * d["estimate"]["memory"]["train"]' \
        <"$FOLDER/plan.json")" = True ]
    largest "$(json 'max(("train", "evaluate"), key=lambda k: d["estimate"]["memory"][k])' <"$FOLDER/plan.json")"
}
