# parts: hinge run --part: together all of a suite, apart nothing twice; looks wait for all parts.
load helpers

setup() {
    cd "$BATS_TEST_TMPDIR"
    cat >many.yaml <<'YAML'
name: many
question: Is every run somebody's?
set: {run.backend: simulated, train.steps: 10}
seeds: [1, 2, 3, 4, 5]
baseline: none
metric: bpb.raw
variants:
  none: {}
  better: {simulated.effect: -0.5}
  int8: {quant.strategy: int8-rowwise}
YAML
    sed -e 's/^name: .*/name: batch/' -e 's/^seeds: .*/seeds: {first: 3, step: 3, most: 6}\nlooks: obrien-fleming/' \
        -e 's/  int8: .*/  same: {simulated.effect: 0.00001}/' many.yaml >batch.yaml
}

figures() { hinge export runs --format json --db "$1" | json 'sorted((r["variant"], r["seed"], r["status"], r["bpb_raw"], r["artifact_bytes"]) for r in d)'; }

finished() { sqlite3 "$1" "SELECT key FROM stages WHERE status = 'done' ORDER BY key"; }

@test "every stage is done by exactly one of N parts, for every N" {
    hinge run many.yaml --db whole.db 2>/dev/null
    local of part trainings
    trainings=$(sqlite3 whole.db "SELECT count(*) FROM stages WHERE kind = 'train'")
    for of in 2 7 "$trainings"; do
        for ((part = 1; part <= of; part++)); do
            hinge run many.yaml --part "$part/$of" --db "$of.$part.db" >"$of.$part.out" 2>/dev/null
            finished "$of.$part.db"
        done >all
        sort -u all | cmp - <(sort all)
        sort all | cmp - <(finished whole.db)
        hinge merge "$of".*.db --db "merged.$of.db" >/dev/null
        [ "$(figures "merged.$of.db")" = "$(figures whole.db)" ]
    done
    grep -q "runs done, 0 failed" 7.2.out
    grep -q "^next: the other parts, and hinge merge 7.2.db --db FILE" 7.2.out
}

@test "runs that share a training are in one part, which declares the whole suite" {
    hinge run many.yaml --part 2/5 --db part.db 2>/dev/null
    [ "$(hinge status many --db part.db --json | json 'sorted((r["seed"], r["status"]) for r in d["runs"]).count((2, "done")), len(d["runs"])')" = \
        "($(hinge plan many.yaml --db none.db --runs --part 2/5 --json | json 'len([r for r in d["runs"] if r["seed"] == 2])'), 15)" ]
    [ "$(hinge plan many.yaml --db none.db --json | json 'len(set(r["stages"]["train"]["key"] for r in d["runs"]))')" -lt 15 ]
    sed -i 's/train.steps: 10/train.steps: 11/' many.yaml
    fails 2 "train.steps was 10 and is 11" hinge run many.yaml --part 1/5 --db part.db
}

@test "a part that is none is refused" {
    for part in 0/2 3/2 2 x 1/2x -1/2 1/-2 /2 1/ 1/2/3 1.5/2 ""; do
        fails 2 "--part takes I/N, the Ith of N parts, such as 2/8; not '$part'" hinge run many.yaml --db none.db --part="$part"
    done
    fails 2 "part 900 of 900 is empty: suite many has " hinge run many.yaml --db none.db --part 900/900
    [ ! -e none.db ]
}

@test "at a look a part waits for the runs of all, and the parts come to what the whole comes to" {
    hinge run batch.yaml --db whole.db 2>/dev/null
    local round part
    for round in 1 2 3; do
        for part in 1 2; do hinge run batch.yaml --part $part/2 --db $part.db >$part.out 2>$part.err; done
        [ $round -gt 1 ] || grep -q "the next look waits for [0-9]* runs of other parts" 1.err
        hinge merge 1.db 2.db --db main.db >/dev/null
        for part in 1 2; do hinge merge main.db --db $part.db >/dev/null; done
    done
    grep -q " 0 stages done now" 1.out
    run ! grep "waits for" 1.err 2.err
    [ "$(figures main.db)" = "$(figures whole.db)" ]
    hinge compare batch --db main.db --json | json '{k: v for k, v in d.items() if k != "caveats"}' >main.txt
    hinge compare batch --db whole.db --json | json '{k: v for k, v in d.items() if k != "caveats"}' | diff main.txt -
    [ "$(hinge compare batch --db main.db --json | json 'd["complete"], d["variants"][1]["n"] < 6')" = "(True, True)" ]
    [ "$(hinge compare batch --db main.db --json | json 'd["caveats"]["peeks"]')" = "[]" ]
}
