# change: the clock, the program, the data or the suite changed between stop and resume: noticed, explained, not mixed.
load helpers

setup_file() {
    scratch
    little_suite little 12
    undisturbed little
    # Another build of the same source: one byte more behind its end.
    cp "$HINGE" "$folder/hinge"
    echo >>"$folder/hinge"
}

teardown_file() { rm -rf "$folder"; }

setup() { db=$BATS_TEST_TMPDIR/hinge.db; }

go_on() { # PROGRAM FLAGS...
    local arguments
    on "$db" little "${@:2}"
    "$1" "${arguments[@]}" >"$folder/log" 2>&1
}

@test "another build does not go on with a checkpoint: it says so, and the training starts again" {
    stop_in_training "$db"
    go_on "$folder/hinge"
    grep -q "checkpoint comes from another build or machine: program was .* and is .*; the training starts again" "$folder/log"
    as_undisturbed "$db"
}

@test "another build does not add to a suite that one has begun, unless it is told to" {
    stop_in "$db" artifact 2
    local arguments before
    on "$db" little
    before=$(done_stages "$db")
    run --separate-stderr "$folder/hinge" "${arguments[@]}"
    [ "$status" -eq 2 ]
    [[ $stderr == *"were made by another build: program was"*"--mix-builds"* ]]
    [ "$(done_stages "$db")" = "$before" ]
    go_on "$folder/hinge" --mix-builds
    as_undisturbed "$db"
}

@test "of two builds at once the second is refused, and the first goes on undisturbed" {
    local arguments process
    on "$db" little
    "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1 3>&- &
    process=$!
    until [ "$(sqlite3 -readonly "$db" "SELECT count(*) FROM stages WHERE environment IS NOT NULL" 2>/dev/null || echo 0)" -gt 0 ]; do
        kill -0 $process
        sleep 0.01
    done
    # It stands still between two of its transactions: within one it would hold the other up, not be seen at work.
    while kill -STOP $process && ! sqlite3 -cmd ".timeout 200" "$db" "BEGIN IMMEDIATE; ROLLBACK" 2>/dev/null; do
        kill -CONT $process
        sleep 0.01
    done
    run --separate-stderr "$folder/hinge" "${arguments[@]}"
    kill -CONT $process
    [ "$status" -eq 2 ]
    [[ $stderr == *"were made by another build: program was"*"--mix-builds"* ]]
    wait $process
    as_undisturbed "$db"
    [ "$(sqlite3 "$db" "SELECT count(DISTINCT environment) FROM stages")" -eq 1 ]
}

@test "another build finds a complete suite complete: there is nothing left to mix" {
    go_on "$HINGE"
    go_on "$folder/hinge"
    grep -q "0 stages done now" "$folder/log"
}

@test "other data under the same name are refused, with both hashes" {
    stop_in_training "$db"
    local arguments
    cp -r "$folder/data" "$BATS_TEST_TMPDIR/data"
    some_text | sed 's/a/o/' >"$BATS_TEST_TMPDIR/other.txt"
    hinge data prepare --text "$BATS_TEST_TMPDIR/other.txt" --name gcide --data "$BATS_TEST_TMPDIR/other" >/dev/null 2>&1
    fails 2 "dataset" hinge run "$folder/little.yaml" --db "$db" --data "$BATS_TEST_TMPDIR/other"
    [[ $stderr == *"declared otherwise"*" was "*" and is "* ]]
    go_on "$HINGE"
    as_undisturbed "$db"
}

@test "a changed suite is refused with what changed, and the old one goes on" {
    stop_in_training "$db"
    cp "$folder/little.yaml" "$folder/before.yaml"
    sed -i 's/train.steps: 12/train.steps: 13/' "$folder/little.yaml"
    fails 2 "train.steps was 12 and is 13" hinge run "$folder/little.yaml" --db "$db" --data "$folder/data"
    mv "$folder/before.yaml" "$folder/little.yaml"
    go_on "$HINGE"
    as_undisturbed "$db"
}

@test "a clock that was set back since the last entry is told, and changes nothing" {
    stop_in_training "$db"
    local arguments
    on "$db" little
    DONT_FAKE_MONOTONIC=1 faketime -f -30d "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1
    grep -q "this machine's clock stands .* s before the last entry" "$folder/log"
    as_undisturbed "$db"
}

@test "a clock that jumps while a suite runs is told, and changes nothing" {
    local arguments process jumped
    cat >"$BATS_TEST_TMPDIR/clock" <<<"+0"
    sed 's/^name: little/name: long/; s/train.steps: 12/train.steps: 60/' "$folder/little.yaml" >"$folder/long.yaml"
    on "$db" long
    DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE=$BATS_TEST_TMPDIR/clock FAKETIME_NO_CACHE=1 \
        LD_PRELOAD=$(dpkg -L libfaketime | grep 'libfaketimeMT\.so\.1$') "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1 3>&- &
    process=$!
    until [ "$(sqlite3 -readonly "$db" 'SELECT count(*) FROM steps' 2>/dev/null || echo 0)" -gt 3 ]; do kill -0 $process; sleep 0.01; done
    echo "+5000" >"$BATS_TEST_TMPDIR/clock"
    wait $process
    grep -q "this machine's clock was set by +" "$folder/log" || { cat "$folder/log"; return 1; }
    [ "$(sqlite3 "$db" "SELECT count(*) FROM stages WHERE seconds < 0 OR seconds > 1000")" -eq 0 ]
    local jumped
    jumped=$(hashes "$db")
    on "$BATS_TEST_TMPDIR/steady.db" long
    hinge "${arguments[@]}" >/dev/null 2>&1
    [ "$(hashes "$BATS_TEST_TMPDIR/steady.db")" = "$jumped" ]
}

@test "a worker of another host counts as dead when its last sign is old, or comes from a future clock" {
    stop_in_training "$db"
    for age in 1000 -1000; do
        sqlite3 "$db" "UPDATE stages SET host = 'elsewhere', heartbeat = unixepoch() - $age WHERE status = 'running'"
        [ "$(hinge status little --db "$db" --json | json "d['runs'][0]['status'] if 'runs' in d else 'interrupted'")" != running ]
    done
    go_on "$HINGE"
    grep -q "taken over from a worker that ended" "$folder/log"
    as_undisturbed "$db"
}
