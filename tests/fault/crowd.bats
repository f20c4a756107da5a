# crowd: eight programs on one database and one suite; each stage is done once, none is lost, the dead are followed.
load helpers

setup_file() {
    scratch
    little_suite little 12
    undisturbed little
}

teardown_file() { rm -rf "$folder"; }

# start_eight DATABASE: their ids in processes, their words in DATABASE's folder.
start_eight() {
    local arguments i
    mkdir -p "$(dirname "$1")"
    on "$1" little
    processes=()
    for i in 1 2 3 4 5 6 7 8; do
        OMP_NUM_THREADS=1 "$HINGE" "${arguments[@]}" >"$1.$i.log" 2>&1 3>&- &
        processes+=($!)
    done
}

all_ended_well() {
    local process code
    for process in "${processes[@]}"; do
        code=0
        wait "$process" || code=$?
        [ $code -eq 0 ] || [ $code -eq "${1:-0}" ] || { tail -n 2 "$db".*.log; return 1; }
    done
    if grep -il "locked\|busy" "$db".*.log; then return 1; fi
}

stages_done_now() { sed -n 's/.*failed; \([0-9]*\) stages done now.*/\1/p' "$db".*.log | awk '{s += $1} END {print s + 0}'; }
stages() { sqlite3 "$db" "SELECT count(*) FROM stages WHERE status = 'done'"; }

@test "eight at once: every stage is done by exactly one" {
    db=$folder/eight/hinge.db
    start_eight "$db"
    all_ended_well
    [ "$(stages_done_now)" -eq "$(stages)" ]
    as_undisturbed "$db"
    note "8 programs did $(stages) stages, $(sqlite3 "$db" 'SELECT count(DISTINCT worker) FROM stages') of them at least one; each stage once"
}

@test "eight at once, three of them killed: what they held is taken over, and told" {
    seeded
    local before killed=0 taken=0 round
    for round in 1 2 3; do
        db=$folder/killed$round/hinge.db
        start_eight "$db"
        until [ "$(sqlite3 "$db" "SELECT count(*) FROM stages WHERE status = 'running'" 2>/dev/null)" -gt 0 ] 2>/dev/null; do
            kill -0 "${processes[@]}" 2>/dev/null || break
            sleep 0.01
        done
        for _ in 1 2 3; do
            # One that holds a stage, when there is one.
            local victim
            victim=$(sqlite3 "$db" "SELECT pid FROM stages WHERE status = 'running' ORDER BY random() LIMIT 1" 2>/dev/null)
            kill -KILL "${victim:-${processes[0]}}" 2>/dev/null && killed=$((killed + 1))
            sleep 0.05
        done
        all_ended_well 137 2>/dev/null
        taken=$((taken + $(cat "$db".*.log | grep -c "is taken over from a worker that ended" || true)))
        [ "$(sqlite3 "$db" "SELECT count(*) FROM stages WHERE status <> 'done'")" -eq 0 ]
        [ "$(stages_done_now)" -le "$(stages)" ]
        as_undisturbed "$db"
        sound "$db"
    done
    note "$killed of 24 programs killed, $taken stages taken over"
    [ $taken -ge 1 ]
}

@test "a worker of four jobs that is killed is told, and the others do its work: no failure" {
    local arguments process victim
    db=$folder/jobs/hinge.db
    on "$db" little --jobs 4
    "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1 3>&- &
    process=$!
    until victim=$(sqlite3 "$db" "SELECT pid FROM stages WHERE status = 'running' LIMIT 1" 2>/dev/null | grep .); do
        kill -0 $process
        sleep 0.01
    done
    kill -KILL "$victim"
    wait $process
    grep -q "ended by signal 9" "$folder/log"
    as_undisturbed "$db"
}
