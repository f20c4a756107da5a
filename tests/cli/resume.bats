# resume: interrupted, killed, with other threads or jobs: the same weights, losses, artifacts and scores to the bit.
load helpers

setup_file() {
    export folder=$BATS_FILE_TMPDIR
    prepare_text "$folder"
    ln -s "$PWD/suites/presets" "$folder/presets"
    cat >"$folder/small.yaml" <<'YAML'
name: small
question: Does the way in which runs are done change what comes out?
preset: tiny
set: {train.steps: 20}
seeds: [1, 2]
baseline: none
metric: bpb.artifact
test: {kind: paired-t, alpha: 0.05, correction: holm}
variants:
  none: {}
  recurrence: {recurrence.layers: [1, 2], recurrence.repeats: 1}
  int8: {quant.strategy: int8-rowwise}
YAML
    complete "$folder/whole.db" || return 1
    hashes "$folder/whole.db" >"$folder/expected"
    [ "$(wc -l <"$folder/expected")" -eq 6 ]
}

# The command under test; env gives Ctrl-C its usual effect back, which shells take from what runs in the background.
command_for() {
    command=(env --default-signal=INT "$HINGE" run "$folder/small.yaml" --db "$1" --data "$folder/data" --checkpoint 0.01 "${@:2}")
}

# complete DATABASE FLAGS...: from wherever the suite stands to its end.
complete() {
    local command
    command_for "$@"
    "${command[@]}" >"$1.log" 2>&1 || {
        cat "$1.log"
        return 1
    }
}

same_as_expected() { hashes "$1" | diff - "$folder/expected"; }

steps_in() { sqlite3 -readonly "$1" 'SELECT count(*) FROM steps' 2>/dev/null || echo 0; }

# start DATABASE STEPS FLAGS...: runs in the background until the database holds so many more steps; its id is in $process.
start() {
    local database=$1 command target
    target=$(($(steps_in "$database") + $2))
    command_for "$database" "${@:3}"
    "${command[@]}" >"$database.log" 2>&1 3>&- &
    process=$!
    while kill -0 "$process" 2>/dev/null && [ "$(steps_in "$database")" -lt "$target" ]; do sleep 0.01; done
}

# end_of_process: its exit status in $code.
end_of_process() {
    code=0
    wait "$process" 2>/dev/null || code=$?
}

@test "the same bits for 1, 2 and 4 threads" {
    for threads in 1 2 4; do
        OMP_NUM_THREADS=$threads complete "$folder/threads$threads.db"
        same_as_expected "$folder/threads$threads.db"
    done
}

@test "the same bits with two jobs on one database" {
    complete "$folder/jobs.db" --jobs 2
    same_as_expected "$folder/jobs.db"
}

@test "the same bits when two programs work on one database at the same time" {
    complete "$folder/two.db" &
    local other=$!
    complete "$folder/two.db"
    wait $other
    same_as_expected "$folder/two.db"
}

@test "Ctrl-C stops cleanly, says how to go on, and the same command ends with the same bits" {
    local stopped=0
    for steps in 1 17; do
        start "$folder/c.db" $steps
        kill -INT "$process" 2>/dev/null || true
        end_of_process
        [ "$code" -eq 130 ] || [ "$code" -eq 0 ]
        [ "$code" -eq 0 ] || {
            stopped=$((stopped + 1))
            tail -n 1 "$folder/c.db.log" | grep -q "^hinge: stopped: .* goes on" || {
                cat "$folder/c.db.log"
                return 1
            }
        }
    done
    [ "$stopped" -ge 1 ]
    succeeds hinge status small --db "$folder/c.db"
    [[ ${lines[0]} == *" interrupted"* && ${lines[0]} == *left* && ${lines[0]} != *"0.00 s left"* ]] || {
        echo "${lines[0]}"
        return 1
    }
    complete "$folder/c.db"
    same_as_expected "$folder/c.db"
}

@test "SIGKILL at random moments, then resumed: the same bits, and a whole database at any moment" {
    local killed=0 moments=""
    for _ in 1 2 3 4; do
        steps=$((1 + RANDOM % 25))
        moments="$moments $steps"
        start "$folder/k.db" $steps
        kill -KILL "$process" 2>/dev/null || true
        end_of_process
        [ "$code" -ne 137 ] || killed=$((killed + 1))
        [ "$(sqlite3 "$folder/k.db" 'PRAGMA integrity_check')" = ok ]
    done
    echo "killed after steps:$moments"
    [ "$killed" -ge 1 ]
    complete "$folder/k.db"
    same_as_expected "$folder/k.db"
}

@test "SIGKILL of two jobs and their workers, then resumed with one: the same bits" {
    set -m # a process group of its own
    start "$folder/j.db" 5 --jobs 2
    kill -KILL -- "-$process" 2>/dev/null || true
    set +m
    end_of_process
    complete "$folder/j.db"
    same_as_expected "$folder/j.db"
}

@test "a worker killed under two jobs does not lose its run" {
    start "$folder/w.db" 5 --jobs 2
    local worker
    worker=$(pgrep -P "$process" | head -n 1 || true)
    [ -z "$worker" ] || kill -KILL "$worker" 2>/dev/null || true
    end_of_process
    complete "$folder/w.db"
    same_as_expected "$folder/w.db"
}
