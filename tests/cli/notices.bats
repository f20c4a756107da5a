#!/usr/bin/env bats
# notices: early looks, refused changes, late, failed and deleted runs are told beside every figure.

setup() {
    load helpers
    cd "$BATS_TEST_TMPDIR"
    cat >noted.yaml <<'YAML'
name: noted
question: What must be read with it?
set: {run.backend: simulated, train.steps: 10}
seeds: [1, 2, 3, 4]
baseline: none
metric: bpb.raw
variants:
  none: {}
  better: {simulated.effect: -0.02}
YAML
    hinge run noted.yaml --db noted.db 2>/dev/null
}

unfinish() { sqlite3 noted.db "UPDATE stages SET status = 'pending' WHERE seed = 4"; }

@test "a complete suite has nothing to read with it" {
    hinge compare noted --db noted.db >out.txt
    run ! grep "Read with" out.txt
    [ "$(hinge compare noted --db noted.db --json | json 'd["caveats"]["peeks"]')" = "[]" ]
}

@test "every verb that shows figures early is noted, once, and told from then on" {
    unfinish
    for verb in compare status trace calibrate; do
        hinge $verb noted --db noted.db >/dev/null
        hinge $verb noted --db noted.db --json >/dev/null
    done
    hinge export runs noted --db noted.db --format csv >/dev/null
    run hinge gate noted --db noted.db --require "better better than none"
    [[ $output == *"Read with: 6 peeks (first: compare at 6 of 8 runs)"* ]]
    hinge run noted.yaml --db noted.db 2>/dev/null
    hinge compare noted --db noted.db | grep -q "Read with: 6 peeks"
    verbs=$(hinge gate noted --db noted.db --require "better better than none" --json | json 'sorted(p["verb"] for p in d["caveats"]["peeks"])')
    [ "$verbs" = "['calibrate', 'compare', 'export', 'gate', 'status', 'trace']" ]
}

@test "a peek is told when it is noted, and only then" {
    unfinish
    run --separate-stderr hinge status noted --db noted.db
    [[ $stderr == "hinge: noted as a peek: figures of 6 of 8 runs"*"hinge status without a suite shows none" ]]
    run --separate-stderr hinge status noted --db noted.db
    [ -z "$stderr" ]
}

@test "a verb that could show nothing took no peek" {
    unfinish
    fails 2 "unknown metric" hinge compare noted --db noted.db --metric bpb.rwa
    fails 2 "whole numbers separated by commas" hinge compare noted --db noted.db --looks x
    fails 2 "has no variant 'nobody'" hinge calibrate noted --db noted.db --variant nobody
    fails 2 "no variant 'besser'" hinge trace noted besser.p --db noted.db
    fails 64 "no variant 'besser'" hinge gate noted --db noted.db --require "besser better than none"
    hinge status --db noted.db >/dev/null
    [ "$(sqlite3 noted.db 'SELECT count(*) FROM peeks')" = 0 ]
}

@test "too few runs to compare are said to be too few yet" {
    sqlite3 noted.db "UPDATE stages SET status = 'pending' WHERE seed > 1"
    fails 2 "noted, with 2 of 8 runs done so far: the baseline 'none' has 1 seed" hinge compare noted --db noted.db
}

@test "figures of a database that cannot be written are shown, with a word about it" {
    unfinish
    sqlite3 noted.db "CREATE TRIGGER no BEFORE INSERT ON peeks BEGIN SELECT RAISE(ABORT, 'not here'); END"
    run hinge compare noted --db noted.db
    [ "$status" -eq 0 ]
    [[ $output == *"could not be noted"*"not here"* && $output == *"better"* ]]
}

@test "a run of a changed suite is refused and noted, a plan of it leaves no trace" {
    sed -i 's/-0.02/-0.03/' noted.yaml
    fails 2 "simulated.effect was -0.02 and is -0.03" hinge plan noted.yaml --db noted.db
    [ "$(sqlite3 noted.db 'SELECT count(*) FROM refusals')" = 0 ]
    fails 2 "simulated.effect was -0.02 and is -0.03" hinge run noted.yaml --db noted.db
    hinge compare noted --db noted.db | grep -q "Read with: 1 refused change"
}

@test "late, deleted and failed runs and what was refused stand under every table of the report and in its methods" {
    sed -i 's/seeds: .*/seeds: [1, 2, 3, 4, 5]/' noted.yaml
    echo "  frail: {simulated.failure_rate: 0.9}" >>noted.yaml
    run hinge run noted.yaml --db noted.db
    sqlite3 noted.db "DELETE FROM runs WHERE id = 1"
    hinge report noted --db noted.db -o out --templates "$BATS_TEST_DIRNAME/../../reports"
    pdftotext -layout out/noted.pdf out.txt
    grep -q "Read with: 1 late seed, 1 late variant, [0-9]* failed runs, 1 deleted run" out.txt
    tables=$(grep -cE "^ *Table [0-9]+\." out.txt)
    notes=$(grep -c "Read with:" out.txt)
    [ "$notes" -ge "$tables" ]
    for table in out/noted/*.csv; do
        [ "$(sed -n 1p "$table" | grep -c ",read_with$")" = 1 ]
        grep -q "1 late seed, 1 late variant, [0-9]* failed runs, 1 deleted run" "$table"
        grep -q "Read with: 1 late seed, 1 late variant, [0-9]* failed runs, 1 deleted run" "${table%.csv}.tex"
    done
    grep -q "Deleted from the database: 1 run" out.txt
}

@test "a deleted run of a late seed stays in sight" {
    sed -i 's/seeds: .*/seeds: [1, 2, 3, 4, 5]/' noted.yaml
    hinge run noted.yaml --db noted.db 2>/dev/null
    sqlite3 noted.db "DELETE FROM runs WHERE seed = 5 AND variant = (SELECT min(id) FROM variants)"
    hinge compare noted --db noted.db | grep -q "Read with: 1 late seed, 1 deleted run"
    [ "$(hinge status noted --db noted.db --json | json '[r["status"] for r in d["runs"]].count("deleted")')" = 1 ]
    [ "$(hinge status --db noted.db --json | json '(d[0]["runs"], d[0]["done"], d[0]["deleted"])')" = "(9, 9, 1)" ]
    hinge power noted.yaml --db noted.db | grep -q "Read with: 1 late seed, 1 deleted run"
    [ "$(hinge power noted.yaml --db noted.db --json | json 'd["caveats"]["deleted"]')" = 1 ]
    [ "$(hinge export evaluations noted --db noted.db --format csv | grep -c "1 late seed, 1 deleted run")" = 27 ]
}

@test "a variant whose runs are all deleted has its row and its place in the correction" {
    echo "  same: {simulated.stream: 1}" >>noted.yaml
    sed -i 's/^name: noted/name: three/' noted.yaml
    hinge run noted.yaml --db three.db 2>/dev/null
    before=$(hinge compare three --db three.db --json | json 'd["variants"][1]["holm_p_paired_t"]')
    sqlite3 three.db "DELETE FROM runs WHERE variant = (SELECT max(id) FROM variants)"
    hinge compare three --db three.db --json >three.json
    [ "$(json '[v["variant"] for v in d["variants"]], d["variants"][2]["verdict"]' <three.json)" = \
        "(['none', 'better', 'same'], 'too few seeds')" ]
    [ "$(json 'd["variants"][1]["holm_p_paired_t"]' <three.json)" = "$before" ]
}

@test "a suite whose runs have all ended, some of them failed, is not preliminary" {
    sed -i 's/^name: noted/name: frail/; s/-0.02}/-0.02, simulated.failure_rate: 0.4}/' noted.yaml
    run hinge run noted.yaml --db frail.db
    [ "$status" -eq 5 ]
    hinge compare frail --db frail.db >out.txt
    grep -q "failed run" out.txt
    run ! grep preliminary out.txt
}
