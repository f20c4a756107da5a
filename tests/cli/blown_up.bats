#!/usr/bin/env bats
# blown_up: a training that ends worse than it was is told when it ends, and beside every figure from then on.

setup_file() {
    load helpers
    ln -s "$PWD/suites/presets" "$BATS_FILE_TMPDIR/presets"
    cd "$BATS_FILE_TMPDIR"
    prepare_text .
    cat >rising.yaml <<'YAML'
name: rising
question: What is said of a training that blows up?
preset: tiny
set:
  train.steps: 60
  train.warmdown: 1
  train.qat_below: 0
  train.batch_tokens: 512
  eval.tokens: 512
  quant.calibration_sequences: 1
seeds: [1, 2]
baseline: none
metric: bpb.raw
variants:
  none: {}
  wild: {optim.muon_rate: 3}
YAML
    hinge run rising.yaml --device cpu --db rising.db --checkpoint 0.01 2>run.err
}

setup() {
    load helpers
    cd "$BATS_FILE_TMPDIR"
}

@test "a run that blows up is told once while it trains and when its training ends, with what can be done; no other is" {
    for seed in 1 2; do
        [ "$(grep -Ec "^hinge: wild seed $seed: after step [0-9]+ of 60 the loss rose: .*; lower optim.muon_rate" run.err)" = 1 ]
        [ "$(grep -Ec "^hinge: wild seed $seed: the loss rose: [0-9.]+ nats .* over steps [0-9]+ to [0-9]+; every figure" run.err)" = 1 ]
    done
    [ "$(grep -c "the loss rose" run.err)" = 4 ]
}

@test "compare and gate say so before their figures, and compare --json counts them" {
    succeeds hinge compare rising --db rising.db
    said "Read with: 2 blown-up runs."
    said "Of 4 runs 2 blew up (wild 2): over the last fifth of the steps the mean training loss is more than 0.25 nats"
    run hinge gate rising --db rising.db --require "wild better than none on bpb.raw by 0.1"
    said "Read with: 2 blown-up runs."
    [ "$(hinge compare rising --db rising.db --json | json 'd["caveats"]["blown_up"]')" = 2 ]
}

@test "show has the figures of the run, export those of all, and both agree with the trace" {
    [ "$(hinge show 1 --db rising.db --json | json 'd["training_note"]')" = None ]
    hinge show 2 --db rising.db | grep -q "the loss rose: "
    hinge export runs rising --db rising.db --format json >runs.json
    hinge export steps rising --db rising.db --format json >steps.json
    python3 - <<'PY'
import json, re
runs, steps = (json.load(open(name)) for name in ("runs.json", "steps.json"))
assert [run["variant"] for run in runs if run["training_note"]] == ["wild", "wild"]
assert all(run["read_with"] == "2 blown-up runs" for run in runs)
for run in runs:
    losses = [s["loss"] for s in steps if s["run"] == run["run"]]
    fifths = [sum(losses[i:i + 12]) / 12 for i in range(0, 60, 12)]
    assert (fifths[-1] - min(fifths) > 0.25) == bool(run["training_note"]), (run, fifths)
    if run["training_note"]:
        last, lowest, first = re.findall(r"[0-9.]+", run["training_note"])[:3]
        assert abs(float(last) - fifths[-1]) < 0.006 and abs(float(lowest) - min(fifths)) < 0.006, (run, fifths)
        assert int(first) == 12 * fifths.index(min(fifths)), (run, fifths)
PY
}

@test "a merged database says so as well" {
    hinge merge rising.db --db merged.db
    succeeds hinge compare rising --db merged.db
    said "Read with: 2 blown-up runs."
}
