# resume: interrupted, killed, with other threads or jobs: the same weights and losses to the bit.
load helpers

setup_file() {
    export folder=$BATS_FILE_TMPDIR
    prepare_text "$folder"
    tiny "$folder/whole.db" || return 1
    hashes "$folder/whole.db" >"$folder/expected"
    [ "$(wc -l <"$folder/expected")" -ge 6 ]
}

# tiny DATABASE FLAGS...: the suite under test, from wherever it stands to its end.
tiny() {
    local database=$1
    shift
    hinge run suites/demo.yaml --scale tiny --db "$database" --data "$folder/data" --checkpoint 0.01 "$@" >"$database.log" 2>&1
}

# hashes DATABASE: variant, seed and what each of its stages made.
hashes() {
    hinge export runs --format json --db "$1" | python3 -c '
import json, sys
for r in sorted(json.load(sys.stdin), key=lambda r: (r["variant"], r["seed"])):
    assert r["status"] == "done", r
    print(r["variant"], r["seed"], r["weights_sha256"], r["trace_sha256"], r["artifact_sha256"],
          r["bpb_raw"], r["bpb_averaged"], r["bpb_artifact"])'
}

same_as_expected() { hashes "$1" | diff - "$folder/expected"; }

@test "the same hashes for 1, 2 and 4 threads" {
    for threads in 1 2 4; do
        OMP_NUM_THREADS=$threads tiny "$folder/threads$threads.db"
        same_as_expected "$folder/threads$threads.db"
    done
}

@test "the same hashes with two jobs on one database" {
    tiny "$folder/jobs.db" --jobs 2
    same_as_expected "$folder/jobs.db"
}

@test "Ctrl-C stops cleanly, says how to go on, and the same command ends with the same hashes" {
    local stopped=0
    for pause in 0.3 0.6 1.0; do
        hinge run suites/demo.yaml --scale tiny --db "$folder/c.db" --data "$folder/data" >"$folder/c.log" 2>&1 &
        local process=$!
        sleep "$pause"
        kill -INT "$process" 2>/dev/null || true
        local code=0
        wait "$process" || code=$?
        if [ "$code" -eq 130 ]; then
            stopped=$((stopped + 1))
            grep -q "^hinge: .*hinge run" "$folder/c.log"
        else
            [ "$code" -eq 0 ]
        fi
    done
    [ "$stopped" -ge 1 ]
    tiny "$folder/c.db"
    same_as_expected "$folder/c.db"
}

@test "SIGKILL at random moments, then resumed: the same hashes" {
    local killed=0
    for pause in 0.21 0.37 0.55 0.83 1.1; do
        hinge run suites/demo.yaml --scale tiny --checkpoint 0.01 --db "$folder/k.db" --data "$folder/data" >"$folder/k.log" 2>&1 &
        local process=$!
        sleep "$pause"
        kill -KILL "$process" 2>/dev/null || true
        local code=0
        wait "$process" 2>/dev/null || code=$?
        [ "$code" -ne 137 ] || killed=$((killed + 1))
        [ ! -e "$folder/k.db" ] || [ "$(sqlite3 "$folder/k.db" 'PRAGMA integrity_check')" = ok ]
    done
    [ "$killed" -ge 1 ]
    tiny "$folder/k.db"
    same_as_expected "$folder/k.db"
}

@test "SIGKILL of two jobs and their workers, then resumed with one: the same hashes" {
    setsid "$HINGE" run suites/demo.yaml --scale tiny --jobs 2 --checkpoint 0.01 --db "$folder/j.db" --data "$folder/data" >"$folder/j.log" 2>&1 &
    local process=$!
    sleep 0.7
    kill -KILL -- "-$process" 2>/dev/null || kill -KILL "$process"
    wait "$process" 2>/dev/null || true
    tiny "$folder/j.db"
    same_as_expected "$folder/j.db"
}

@test "a finished stage is not done again after a kill" {
    tiny "$folder/again.db"
    tiny "$folder/again.db"
    grep -q " 0 stages done now" "$folder/again.db.log"
}
