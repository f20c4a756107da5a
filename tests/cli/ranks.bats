# ranks: a suite under mpirun gives what one process gives, and is resumed by any number of ranks.
load helpers

setup() {
    command -v mpirun >/dev/null || skip "mpirun is not installed"
    folder=$(mktemp -d)
    prepare_text "$folder"
    mkdir -p "$folder/suites"
    cp -r suites/presets "$folder/suites/"
    cat >"$folder/suites/pair.yaml" <<'YAML'
# pair: four trainings.
name: pair
question: Do ranks change anything?
preset: tiny
set: {train.steps: 6, train.warmdown: 3, eval.tokens: 512}
seeds: [1, 2]
baseline: none
metric: bpb.raw
margin: 0.002
variants:
  none: {}
  repeated: {recurrence.layers: [1, 2], recurrence.repeats: 1}
YAML
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0
}

teardown() { [ -z "$folder" ] || rm -rf "$folder"; }

on_ranks() { mpirun --oversubscribe -np "$1" "$HINGE" run "$folder/suites/pair.yaml" --data "$folder/data" --db "$folder/$2.db" "${@:3}"; }

# count_in DATABASE TABLE: its rows; 0 while there is no database.
count_in() { sqlite3 -readonly "$folder/$1.db" "SELECT count(*) FROM $2" 2>/dev/null || echo 0; }

hashes() { hinge export runs pair --db "$folder/$1.db" --json | json "[(r['weights_sha256'], r['trace_sha256'], r['artifact_sha256']) for r in d]"; }

@test "1, 2 and 4 ranks leave the same weights, losses and artifacts" {
    succeeds hinge run "$folder/suites/pair.yaml" --data "$folder/data" --db "$folder/alone.db"
    for ranks in 2 4; do
        succeeds on_ranks "$ranks" "ranks$ranks"
        [[ $output == *"4 of 4 runs done, 0 failed"* ]]
        [ "$(hashes "ranks$ranks")" = "$(hashes alone)" ]
    done
}

@test "ranks that are interrupted are resumed by another number of them" {
    succeeds hinge run "$folder/suites/pair.yaml" --data "$folder/data" --db "$folder/alone.db" --set train.steps=60
    mpirun --oversubscribe -np 2 "$HINGE" run "$folder/suites/pair.yaml" --data "$folder/data" \
        --db "$folder/stopped.db" --set train.steps=60 --checkpoint 0.01 >"$folder/log" 2>&1 3>&- &
    local process=$! code=0
    while [ "$(count_in stopped 'steps')" -lt 3 ]; do kill -0 "$process"; sleep 0.05; done
    kill -TERM "$process"
    wait "$process" || code=$?
    [ "$code" -ne 0 ]
    [ "$(count_in stopped 'steps')" -lt 240 ]
    succeeds on_ranks 4 stopped --set train.steps=60
    [ "$(count_in stopped 'steps')" -eq 240 ]
    [ "$(hashes stopped)" = "$(hashes alone)" ]
}

@test "--jobs and ranks are refused together" {
    run on_ranks 2 both --jobs 2
    [ "$status" -ne 0 ]
    [[ $output == *"--jobs works with one rank"* ]]
}
