#!/usr/bin/env bats
# looks: seeds in batches; a comparison that is decided gets no further seeds. On simulated suites.

setup() {
    load helpers
    cd "$BATS_TEST_TMPDIR"
    cat >batch.yaml <<'YAML'
name: batch
question: Does it stop early?
set: {run.backend: simulated, train.steps: 10}
seeds: {first: 3, step: 2, most: 11}
looks: obrien-fleming
baseline: none
metric: bpb.raw
variants:
  none: {}
  better: {simulated.effect: -0.02}
  same: {}
YAML
    sed -i 's/  same: {}/  same: {simulated.effect: 0.00001}/' batch.yaml
}

@test "a decided comparison gets no further seeds, an open one gets all" {
    succeeds hinge run batch.yaml --db batch.db
    hinge compare batch --db batch.db --json >out.json
    [ "$(json 'd["variants"][1]["verdict"], d["variants"][1]["n"] < 11' <out.json)" = "('better', True)" ]
    [ "$(json 'd["variants"][1]["looks"][-1]["crossed"], d["variants"][1]["n"] == d["variants"][1]["looks"][-1]["n"]' <out.json)" = "(True, True)" ]
    [ "$(json 'd["variants"][2]["n"], [l["n"] for l in d["variants"][2]["looks"]]' <out.json)" = "(11, [3, 5, 7, 9, 11])" ]
    [ "$(json 'd["complete"]' <out.json)" = True ]
}

@test "the same command again finds everything decided" {
    hinge run batch.yaml --db batch.db 2>&1
    succeeds hinge run batch.yaml --db batch.db
    [[ $output == *"0 stages done now"* ]]
    seeds=$(hinge compare batch --db batch.db --json | json 'd["variants"][1]["n"]')
    succeeds hinge status batch --db batch.db
    [[ $output == *"0 pending, 0 deleted, $((11 - seeds)) not needed"* && $output != *"one job at a time"* ]]
    [ "$(hinge status batch --db batch.db --json | json '[r["status"] for r in d["runs"]].count("not needed"), d["seconds_left"]')" = "($((11 - seeds)), 0.0)" ]
}

@test "another alpha or spending on the command line moves the boundaries, and is no longer the declared design" {
    hinge run batch.yaml --db batch.db 2>&1
    boundary() { hinge compare batch --db batch.db --json "$@" | json 'd["variants"][2]["looks"][-1]["boundary"], d["declared"]'; }
    [[ $(boundary) == "(2.78"*", True)" ]]
    [[ $(boundary --alpha 0.001) == "(5.14"*", False)" ]]
    [[ $(boundary --spending pocock) == "(3.47"*", False)" ]]
}

@test "a test that has no boundaries is refused on looks" {
    hinge run batch.yaml --db batch.db 2>&1
    fails 2 "looks have the boundaries of paired-t; wilcoxon has none" hinge compare batch --db batch.db --test wilcoxon
}

@test "the looks are frozen with the suite" {
    hinge run batch.yaml --db batch.db 2>&1
    sed -i 's/obrien-fleming/pocock/' batch.yaml
    fails 2 "looks was obrien-fleming 3 5 7 9 11 and is pocock 3 5 7 9 11" hinge run batch.yaml --db batch.db
}

@test "batches and looks are declared together and checked" {
    sed '/^looks/d' batch.yaml >bad.yaml
    fails 2 "looks: missing" hinge plan bad.yaml --db none.db
    sed 's/^looks.*/looks: often/' batch.yaml >bad.yaml
    fails 2 "bad.yaml:5:8: looks: the spending function is obrien-fleming or pocock" hinge plan bad.yaml --db none.db
    sed 's/^seeds.*/seeds: [1, 2, 3]/' batch.yaml >bad.yaml
    fails 2 "looks: need seeds in batches" hinge plan bad.yaml --db none.db
    sed 's/^looks.*/&\ntest: {kind: sign-flip}/' batch.yaml >bad.yaml
    fails 2 "bad.yaml:5:8: looks: their boundaries are those of paired-t; the test is sign-flip" hinge plan bad.yaml --db none.db
    sed 's/^seeds.*/seeds: {first: 1, step: 2, most: 9}/' batch.yaml >bad.yaml
    fails 2 "bad.yaml:4:16: seeds: first must be a whole number from 2 to 1000" hinge plan bad.yaml --db none.db
    sed 's/^seeds.*/seeds: {first: 3, step: 2, mots: 9}/' batch.yaml >bad.yaml
    fails 2 "seeds: unknown key mots" hinge plan bad.yaml --db none.db
}

@test "a gate decides at the look at which a comparison stopped, and waits for the first" {
    hinge run batch.yaml --db batch.db 2>&1
    succeeds hinge gate batch --db batch.db --require "better better than none by 0.002"
    [[ $output == *"of look "* ]]
    fails 1 "does not hold" hinge gate batch --db batch.db --require "none better than better"
    [ "$(hinge gate batch --db batch.db --require "better better than none" --json | json 'd["requirements"][0]["look"], d["requirements"][0]["missing"]')" = \
        "($(hinge compare batch --db batch.db --json | json 'len(d["variants"][1]["looks"])'), 0)" ]
    fails 2 "cannot tell" hinge gate batch --db batch.db --require "same better than none"
    sqlite3 batch.db "UPDATE stages SET status = 'pending' WHERE seed = 2"
    fails 2 "have not reached the first declared look" hinge gate batch --db batch.db --require "better better than none"
}

@test "looks with two jobs on the CPU train the same seeds to the same weights as with one" {
    cd "$OLDPWD"
    folder=$BATS_TEST_TMPDIR
    prepare_text "$folder"
    ln -s "$PWD/suites/presets" "$folder/presets"
    cat >"$folder/real.yaml" <<'YAML'
name: real
question: Do declared looks work with several jobs on real trainings?
preset: tiny
set: {train.steps: 12, quant.strategy: fp16}
seeds: {first: 2, step: 2, most: 6}
looks: pocock
baseline: none
metric: bpb.raw
variants:
  none: {}
  frozen: {optim.muon_rate: 0.000001, optim.adam_rate: 0.000001, optim.embedding_rate: 0.000001}
  same: {train.warmdown: 11}
YAML
    for jobs in 1 2; do
        succeeds hinge run "$folder/real.yaml" --db "$folder/$jobs.db" --data "$folder/data" --jobs "$jobs"
        hinge compare real --db "$folder/$jobs.db" --json >"$folder/$jobs.json"
        hinge status real --db "$folder/$jobs.db" --json |
            json 'sorted((r["variant"], r["seed"], r["status"], r["weights_sha256"]) for r in d["runs"])' >"$folder/$jobs.txt"
    done
    diff "$folder/1.txt" "$folder/2.txt"
    diff "$folder/1.json" "$folder/2.json"
    [ "$(json '[(v["verdict"], v["n"] < 6) for v in d["variants"] if v["variant"] == "frozen"], d["complete"]' <"$folder/2.json")" = "([('worse', True)], True)" ]
    succeeds hinge run "$folder/real.yaml" --db "$folder/2.db" --data "$folder/data" --jobs 2
    [[ $output == *"0 stages done now"* ]]
}
