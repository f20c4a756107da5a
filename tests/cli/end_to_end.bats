# end_to_end: text to numbers to report, on the tiny scale of the demo suite.
load helpers

# One database for all tests of this file; each test stands on what the first one ran.
setup_file() {
    export folder=$BATS_FILE_TMPDIR
    prepare_text "$folder"
    hinge run suites/demo.yaml --scale tiny --db "$folder/r.db" --data "$folder/data" >"$folder/run.out" 2>"$folder/run.err" || {
        cat "$folder/run.err"
        return 1
    }
}

reads() { hinge "$@" --db "$folder/r.db"; }

@test "the tiny demo does at least 6 runs and says what comes next" {
    [ "$(reads export runs | wc -l)" -ge 7 ]
    [ "$(reads export runs demo --scale tiny --format json | json 'all(r["status"] == "done" for r in d)')" = True ]
    grep -q "hinge compare demo --scale tiny" "$folder/run.out"
}

@test "the log of a run names run, seed, stage, steps, loss and time left" {
    grep -Eq "run [0-9]+ of [0-9]+ · .* · seed -?[0-9]+ · train" "$folder/run.err"
    grep -q "left: run" "$folder/run.err"
}

@test "the CSV has every promised column, and results/README.md explains each" {
    local header column
    for topic in runs steps evaluations; do
        header=$(reads export $topic | head -n 1)
        for column in ${header//,/ }; do
            grep -q "^| \`$column\` |" results/README.md || { echo "$column is not explained"; return 1; }
        done
    done
    header=,$(reads export runs | head -n 1),
    for column in suite variant seed status steps train_seconds tokens_per_second bpb_raw bpb_averaged bpb_artifact \
        artifact_bytes weights_sha256 trace_sha256; do
        [[ $header == *",$column,"* ]] || { echo "no $column in $header"; return 1; }
    done
}

@test "CSV and JSON hold the same rows and figures" {
    for topic in runs steps evaluations; do
        reads export $topic >"$folder/$topic.csv"
        reads export $topic --format json -o "$folder/$topic.json"
        reads export $topic --json | cmp - "$folder/$topic.json"
        python3 - "$folder/$topic" <<'PY'
import csv, json, sys
rows = list(csv.DictReader(open(sys.argv[1] + ".csv")))
objects = json.load(open(sys.argv[1] + ".json"))
assert len(rows) == len(objects) > 0
for row, obj in zip(rows, objects):
    assert list(row) == list(obj)
    for key, value in obj.items():
        text = row[key]
        assert (value is None and text == "") or (type(value) is str and text == value) or float(text) == value, (key, text, value)
PY
    done
}

@test "figures are plausible: BPB above 0 and under that of random guessing, hashes are SHA-256, artifact smaller than floats" {
    reads export runs --format json >"$folder/r.json"
    [ "$(json 'all(0.2 < r["bpb_raw"] < 8 and 0.2 < r["bpb_artifact"] < 8 for r in d)' <"$folder/r.json")" = True ]
    [ "$(json 'all(len(r["weights_sha256"]) == 64 and len(r["trace_sha256"]) == 64 for r in d)' <"$folder/r.json")" = True ]
    [ "$(json 'all(0 < r["artifact_bytes"] < 4 * r["parameters"] for r in d)' <"$folder/r.json")" = True ]
    [ "$(json 'len(set(r["trace_sha256"] for r in d)) >= 6' <"$folder/r.json")" = True ]
}

@test "every BPB is (nll / ln 2) / bytes of its evaluation, and the columns of runs agree with the evaluations and steps" {
    for topic in runs steps evaluations; do reads export $topic --format json >"$folder/$topic.json"; done
    python3 - "$folder" <<'PY'
import json, math, sys
runs, steps, evaluations = (json.load(open(f"{sys.argv[1]}/{t}.json")) for t in ("runs", "steps", "evaluations"))
assert len(evaluations) == 3 * len(runs)
for e in evaluations:
    run = next(r for r in runs if r["run"] == e["run"])
    assert math.isclose(e["bpb"], e["nll"] / math.log(2) / e["bytes"], rel_tol=1e-12), e
    assert math.isclose(e["nll_per_token"], e["nll"] / e["tokens"], rel_tol=1e-12), e
    assert run["bpb_" + e["evaluation"]] == e["bpb"], (run, e)
for run in runs:
    mine = [s for s in steps if s["run"] == run["run"]]
    assert len(mine) == run["steps"] and mine[-1]["loss"] == run["loss_final"]
    seconds = sum(s["milliseconds"] for s in mine) / 1000
    assert math.isclose(run["train_seconds"], seconds, rel_tol=1e-6), (run["train_seconds"], seconds)
    assert math.isclose(run["tokens_per_second"], sum(s["tokens"] for s in mine) / seconds, rel_tol=1e-6)
PY
}

@test "strategies share a training: equal keys, equal weights" {
    reads export runs --format json >"$folder/r.json"
    [ "$(json 'len(set(r["train_key"] for r in d)) < len(d)' <"$folder/r.json")" = True ]
    [ "$(json 'len(set((r["train_key"], r["weights_sha256"]) for r in d)) == len(set(r["train_key"] for r in d))' <"$folder/r.json")" = True ]
}

@test "each step has a loss, and the losses fall" {
    reads export steps --format json >"$folder/s.json"
    [ "$(json 'all(s["loss"] > 0 and s["tokens"] > 0 for s in d)' <"$folder/s.json")" = True ]
    python3 - "$folder/s.json" <<'PY'
import json, sys
runs = {}
for step in json.load(open(sys.argv[1])):
    runs.setdefault(step["run"], []).append(step)
for steps in runs.values():
    assert [s["step"] for s in steps] == list(range(len(steps)))
    assert steps[-1]["loss"] < steps[0]["loss"], steps
PY
}

@test "a second run does nothing and changes nothing" {
    reads export runs >"$folder/before.csv"
    succeeds hinge run demo --scale tiny --db "$folder/r.db" --data "$folder/data"
    [[ $output == *" 0 stages done now"* ]]
    reads export runs | cmp - "$folder/before.csv"
}

@test "plan says that everything is done" {
    succeeds hinge plan demo --scale tiny --db "$folder/r.db" --data "$folder/data"
    [[ $output == *"everything is done"* ]]
    hinge plan demo --scale tiny --db "$folder/r.db" --data "$folder/data" --json >"$folder/p.json"
    is_json <"$folder/p.json"
    [ "$(json 'd["estimate"]["runs"] == d["estimate"]["runs_done"] >= 6' <"$folder/p.json")" = True ]
    [ "$(json 'd["estimate"]["seconds_left"] == 0' <"$folder/p.json")" = True ]
}

@test "run --dry-run prints the plan and changes nothing" {
    succeeds hinge run demo --scale tiny --dry-run --db "$folder/dry.db" --data "$folder/data"
    [[ $output == *"variants x 2 seeds"* && $output == *"own trainings"* ]]
    [ ! -e "$folder/dry.db" ]
}

@test "plan warns before anything is computed when nothing could be significant" {
    succeeds hinge plan demo --scale tiny --db "$folder/other.db" --data "$folder/data"
    [ "$(hinge plan demo --scale tiny --db "$folder/other.db" --data "$folder/data" --json | json 'd["estimate"]["runs_done"]')" -eq 0 ]
    [ ! -e "$folder/other.db" ]
    sed 's/kind: paired-t/kind: sign-flip/' suites/demo.yaml >"$folder/flip.yaml"
    ln -sfn "$PWD/suites/presets" "$folder/presets"
    succeeds hinge plan "$folder/flip.yaml" --scale tiny --db "$folder/other.db" --data "$folder/data"
    [[ $output == *"no difference can be significant"* ]]
}

@test "status lists the suites, and the runs of one" {
    succeeds reads status
    [[ $output == *demo*tiny* ]]
    succeeds reads status demo --scale tiny
    [[ $output == *recurrence* && $output == *" done"* ]]
    reads status --json | is_json
    [ "$(reads status demo --scale tiny --json | json 'd["done"] == len(d["runs"]) and d["seconds_left"] == 0')" = True ]
    fails 2 "demo" reads status dmo
}

@test "show tells everything of a run, and refuses a run that there is not" {
    local run
    run=$(reads export runs --format json | json 'd[0]["run"]')
    succeeds reads show "$run"
    for part in options stages evaluations artifact provenance train.steps compiler; do
        [[ $output == *"$part"* ]] || { echo "no $part in: $output"; return 1; }
    done
    reads show "$run" --json >"$folder/show.json"
    is_json <"$folder/show.json"
    [ "$(json 'len(d["options"])' <"$folder/show.json")" -ge "$(hinge list --options --json | json 'len(d)-1')" ]
    [ "$(json 'sorted(d["evaluations"])' <"$folder/show.json")" = "['artifact', 'averaged', 'raw']" ]
    [ "$(json 'sum(c["bytes"] for c in d["artifact"]["classes"].values()) <= d["artifact"]["raw_bytes"]' <"$folder/show.json")" = True ]
    fails 2 "999999" reads show 999999
}

# weights_of FILE: the hash of a file's tensors as the database has it, read by Python alone.
weights_of() {
    python3 - "$1" <<'PYTHON'
import hashlib, json, struct, sys
data = open(sys.argv[1], "rb").read()
length = struct.unpack("<Q", data[:8])[0]
header, data = json.loads(data[8:8 + length]), data[8 + length:]
options = header.pop("__metadata__")
assert options["train.sequence"] and "seed" in options["case"]
digest = hashlib.sha256()
for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
    assert name.startswith("param.") and tensor["dtype"] == "F32"
    rows, cols = (tensor["shape"] + [1])[:2]
    digest.update(name[6:].encode() + b"\0" + struct.pack("<QQ", rows, cols))
    digest.update(data[slice(*tensor["data_offsets"])])
print(digest.hexdigest())
PYTHON
}

@test "export weights gives the trained and the initial weights under the names of the golden files" {
    local run steps trained
    run=$(reads export runs --format json | json 'd[0]["run"]')
    steps=$(reads export runs --format json | json 'd[0]["steps"]')
    succeeds reads export weights "$run" -o "$folder/trained.safetensors"
    trained=$(weights_of "$folder/trained.safetensors")
    [ "$trained" = "$(reads export runs --format json | json 'd[0]["weights_sha256"]')" ]
    succeeds reads export weights "$run" --step "$steps" -o "$folder/last.safetensors"
    cmp "$folder/trained.safetensors" "$folder/last.safetensors"
    succeeds reads export weights "$run" --step 0 -o "$folder/initial.safetensors"
    [ "$(weights_of "$folder/initial.safetensors")" != "$trained" ]
    fails 3 "input_ids" hinge verify "$folder/initial.safetensors" # it takes the config and asks for what is not there
    fails 2 "--step 1" reads export weights "$run" --step 1 -o "$folder/no.safetensors"
    fails 2 "999999" reads export weights 999999 -o "$folder/no.safetensors"
    fails 2 "takes a RUN" reads export weights -o "$folder/no.safetensors"
    fails 2 "-o FILE" reads export weights "$run"
    fails 2 "--step" reads export runs --step 0
    [ ! -e "$folder/no.safetensors" ]
}

# shapes FILE: a line for each parameter of a safetensors file; the vocabulary, which is the text's, is left out.
shapes() {
    python3 - "$1" <<'PYTHON'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
for name in sorted(name for name in header if name.startswith("param.")):
    shape = header[name]["shape"]
    print(name, header[name]["dtype"], shape[1:] if name == "param.tok_emb.weight" else shape)
PYTHON
}

# golden_suite FILE: a suite of the golden file's model, in its options' own words.
golden_suite() {
    python3 - "$1" <<'PYTHON'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
options = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
print("name: golden\nquestion: Which names?\npreset: tiny\nseeds: [1, 2]\nbaseline: none\nmetric: bpb.raw\nset:")
for key, value in options.items():
    if "." in key and key != "model.vocab_size":
        print(f"  {key}: {'[' + value + ']' if key.endswith('.layers') and key != 'model.layers' else value}")
print("  train.steps: 1\nvariants: {none: {}}")
PYTHON
}

@test "exported weights have the names and shapes of the golden files, tensor for tensor" {
    [ -e "$folder/presets" ] || cp -r suites/presets "$folder"
    for case in plain untied-23; do
        golden_suite tests/golden/$case.safetensors >"$folder/golden.yaml"
        succeeds hinge run "$folder/golden.yaml" --db "$folder/$case.db" --data "$folder/data"
        for step in 0 1; do
            succeeds hinge export weights 1 --step $step -o "$folder/golden.safetensors" --db "$folder/$case.db"
            diff <(shapes tests/golden/$case.safetensors) <(shapes "$folder/golden.safetensors")
        done
    done
}

@test "reproduce trains a run again to the same bits" {
    local run
    run=$(reads export runs --format json | json 'd[0]["run"]')
    succeeds hinge reproduce "$run" --db "$folder/r.db" --data "$folder/data"
    [[ $output == *"every loss equal"* ]]
    [ "$(hinge reproduce "$run" --json --db "$folder/r.db" --data "$folder/data" 2>/dev/null | json 'd["reproduced"]')" = True ]
    [ "$(sqlite3 "$folder/r.db" "SELECT DISTINCT equal FROM replicates")" = 1 ]
}

@test "reproduce names the first step that differs, with status 6" {
    local run
    cp "$folder/r.db" "$folder/bent.db"
    cp -r "$folder/store" "$folder/bent-store" 2>/dev/null || true
    run=$(reads export runs --format json | json 'd[0]["run"]')
    sqlite3 "$folder/bent.db" "UPDATE steps SET loss = loss + 1e-9 WHERE step = 2"
    run --separate-stderr hinge reproduce "$run" --db "$folder/bent.db" --data "$folder/data"
    [ "$status" -eq 6 ]
    [[ $output == *"first at step 2"* ]]
}

@test "compare prints the table, as text and as JSON" {
    succeeds reads compare demo --scale tiny
    [[ $output == *none* && $output == *recurrence* ]]
    reads compare demo --scale tiny --json | is_json
}

@test "report leaves a PDF" {
    command -v pdflatex >/dev/null || skip "no pdflatex"
    case $HINGE in *address*) skip "once is enough" ;; esac
    succeeds reads report demo --scale tiny -o "$folder/out"
    pdf=$(ls "$folder"/out/*.pdf)
    pdfinfo "$pdf" | grep -Eq "Pages: +[1-9]"
}

@test "doctor finds runs possible, and says what stops them where there is no data" {
    succeeds hinge doctor --db "$folder/r.db" --data "$folder/data"
    [[ $output == *"data gcide"* && $output == *"GPU"* && $output == *"sqlite"* ]]
    [ "$(hinge doctor --json --db "$folder/r.db" --data "$folder/data" | json 'd["runs_possible"]')" = True ]
    fails 4 "hinge data prepare" hinge doctor --db "$folder/r.db" --data "$folder/nowhere"
}

@test "a --set that differs from the declaration is refused, and nothing changes" {
    reads export runs | cut -d, -f -29 >"$folder/before.csv" # but for the column read_with
    fails 2 "demo" hinge run demo --scale tiny --set train.ema=0.9 --db "$folder/r.db" --data "$folder/data"
    reads export runs | cut -d, -f -29 | cmp - "$folder/before.csv"
    reads export runs | sed -n 2p | grep -q ",1 refused change$"
}

@test "a run that diverges is marked with its step, the others are done, and the exit status is 5" {
    ln -sfn "$PWD/suites/presets" "$folder/presets"
    cat >"$folder/diverging.yaml" <<'YAML'
name: diverging
question: Does the suite go on when a variant's numbers stop being finite?
preset: tiny
set: {train.steps: 4}
seeds: [1, 2]
baseline: none
metric: bpb.raw
test: {kind: paired-t, alpha: 0.05, correction: holm}
variants:
  none: {}
  bad: {optim.muon_rate: 10, optim.muon_decay: 10, train.steps: 64, train.warmdown: 0}
YAML
    run --separate-stderr hinge run "$folder/diverging.yaml" --db "$folder/d.db" --data "$folder/data"
    [ "$status" -eq 5 ]
    [[ $stderr == *"2 of 4 runs failed"* && $output == *"2 of 4 runs done"* ]]
    succeeds hinge status diverging --db "$folder/d.db"
    [[ $output == *"2 done"*"2 failed"*"step "*": the loss is"* ]]
    [ "$(hinge export runs --db "$folder/d.db" --format json | json '[r["status"] for r in d if r["variant"] == "bad"]')" = "['failed', 'failed']" ]
    succeeds hinge compare diverging --db "$folder/d.db"
    hinge compare diverging --db "$folder/d.db" --json | is_json
}
