#!/usr/bin/env bats
# trace: from a number of a comparison to its runs, on a simulated suite.

setup_file() {
    load helpers
    export HINGE
    cd "$BATS_FILE_TMPDIR"
    cat >drawn.yaml <<'YAML'
name: drawn
question: Do the numbers lead back to their runs?
set: {run.backend: simulated, train.steps: 10}
seeds: [1, 2, 3, 4]
baseline: none
metric: bpb.raw
margin: 0.002
variants:
  none: {}
  better: {simulated.effect: -0.02}
YAML
    hinge run drawn.yaml --db drawn.db 2>&1
}

setup() {
    load helpers
    cd "$BATS_FILE_TMPDIR"
}

@test "trace lists every number of the comparison with its runs" {
    succeeds hinge trace drawn --db drawn.db
    [[ $output == *"none.mean"*"1, 3 … 7 (by 2)"* ]]
    [[ $output == *"better.verdict"*"better by the margin"*"1–8"* ]]
}

@test "the query of a cell reads the values that its figure was made of" {
    hinge trace drawn better.delta --db drawn.db --json >cell.json
    query=$(json 'd["query"]' <cell.json)
    delta=$(sqlite3 drawn.db "$query" | awk -F'|' '{ sum += $2 == "better" ? $4 : -$4 } END { printf "%.9f", sum / 4 }')
    [ "$(json "abs(float(d['value']) - ($delta)) < 1e-8" <cell.json)" = True ]
    [ "$(json '[r["run"] for r in d["runs"]]' <cell.json)" = "[1, 2, 3, 4, 5, 6, 7, 8]" ]
}

@test "an unknown cell is refused with the nearest one" {
    fails 2 "did you mean 'delta'?" hinge trace drawn better.delt --db drawn.db
    fails 2 "did you mean 'better'?" hinge trace drawn beter.delta --db drawn.db
}
