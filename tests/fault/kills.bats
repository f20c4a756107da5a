# kills: SIGKILL at random moments; every run ends as an undisturbed one, and nothing finished is done again.
load helpers

setup_file() {
    scratch
    little_suite little 6
    undisturbed little
    make --no-print-directory -s build/tests/fault/kill_at.so
    export kills=${KILLS:-200}
}

teardown_file() { rm -rf "$folder"; }

# Every real file is whole: what does not load is told, and made again.
nothing_was_damaged() {
    if grep -E "again|damaged|not a" "$1"; then return 1; fi
}

# after_death: the database is sound, what was finished still stands as it was, and $where tells what was at work.
after_death() {
    killed=$((killed + 1))
    nothing_was_damaged "$folder/log"
    [ -e "$db" ] || return 0
    sound "$db"
    done_stages "$db" >"$folder/after"
    LC_ALL=C comm -23 "$folder/before" "$folder/after" | diff - /dev/null
    mv "$folder/after" "$folder/before"
}

start_over() {
    databases=$((databases + 1))
    db=$folder/$databases/hinge.db
    : >"$folder/before"
}

# at_the_end: the database ends as the undisturbed one, and the next one begins.
at_the_end() {
    nothing_was_damaged "$folder/log"
    done_stages "$db" | LC_ALL=C comm -23 "$folder/before" - | diff - /dev/null
    as_undisturbed "$db"
    sound "$db"
    no_leftovers "$folder/$databases"
    rm -rf "${folder:?}/$databases"
    start_over
}

# begin DATABASE: starts a run, in $process.
begin() {
    local arguments
    on "$1" little
    : >"$folder/log"
    "$HINGE" "${arguments[@]}" >>"$folder/log" 2>&1 3>&- &
    process=$!
}

# announced: waits until the run tells its plan, before which it measures the machine and stores nothing; not once it ended.
announced() {
    until [[ $(<"$folder/log") == *"stages to do"* ]]; do
        kill -0 $process 2>/dev/null || return 1
        sleep 0.005
    done
}

since() { echo $((($(date +%s%N) - $1) / 1000000)); }

count() { moments[$1]=$((${moments[$1]:-0} + 1)); }

tell() {
    local text=""
    for moment in $(printf '%s\n' "${!moments[@]}" | sort); do text="$text, ${moments[$moment]} in $moment"; done
    note "$killed kills${text}; $((databases - 1)) databases came to their end"
}

# complete: the last database is run to its end without kills.
complete() {
    local arguments
    on "$db" little
    hinge "${arguments[@]}" >"$folder/log" 2>&1
    at_the_end
}

@test "SIGKILL at random moments of a run: the same hashes, nothing done twice, a sound database" {
    seeded
    local -A moments=()
    local killed=0 databases=0 wanted=$((kills * 45 / 100)) plan work start process code
    start_over
    start=$(date +%s%N)
    begin "$folder/timed/hinge.db"
    announced
    plan=$(since "$start")
    wait $process
    work=$(($(since "$start") - plan))
    while [ $killed -lt $wanted ]; do
        begin "$db"
        # One in ten may die before its plan is told, the others once they work.
        below 10
        if [ "$random" -eq 0 ]; then below "$plan"; else announced && below $((work / 2)); fi
        sleep "$(printf '%d.%03d' $((random / 1000)) $((random % 1000)))"
        kill -KILL $process 2>/dev/null || true
        code=0
        wait $process 2>/dev/null || code=$?
        [ $code -eq 0 ] && { at_the_end; continue; }
        [ $code -eq 137 ] || { cat "$folder/log"; return 1; }
        after_death
        count "$(sqlite3 "$db" "SELECT kind FROM stages WHERE status = 'running'" 2>/dev/null | head -n 1 | grep . || echo between)"
    done
    complete
    tell
    [ "${moments[between]:-0}" -lt $killed ]
}

# calls_on FILE: how many calls of an undisturbed run change files with that in their names.
calls_on() {
    local arguments
    on "$folder/counted-$1/hinge.db" little
    HINGE_KILL_AT=1000000000 HINGE_KILL_FILE=$1 HINGE_KILL_LOG=$folder/counted-$1.log \
        LD_PRELOAD=$PWD/build/tests/fault/kill_at.so hinge "${arguments[@]}" >"$folder/log" 2>&1
    sed -n 's/^end //p' "$folder/counted-$1.log"
}

@test "SIGKILL in the middle of a write, sync or rename: the same, and no half-written file becomes a real one" {
    seeded
    local -A moments=() whole=()
    local killed=0 databases=0 turn=0 wanted=$((kills * 45 / 100)) arguments code file
    local files=(artifact checkpoint weights hinge.db) # of quantising, training, both, and commits of the database
    for file in "${files[@]}"; do whole[$file]=$(calls_on $file); done
    start_over
    while [ $killed -lt $wanted ]; do
        on "$db" little
        file=${files[$((turn++ % 4))]}
        below $((whole[$file] / 2))
        : >"$folder/moment"
        code=0
        HINGE_KILL_AT=$((random + 1)) HINGE_KILL_FILE=$file HINGE_KILL_LOG=$folder/moment LD_PRELOAD=$PWD/build/tests/fault/kill_at.so \
            bash -c 'exec "$@" 3>&-' - "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1 || code=$?
        [ $code -eq 0 ] && { at_the_end; continue; }
        [ $code -eq 137 ] || { cat "$folder/log"; return 1; }
        after_death
        count "$(awk '{print $2}' "$folder/moment" | sed 's/\.tmp$//')"
    done
    complete
    tell
    for file in artifact.xz checkpoint weights.safetensors hinge.db-wal; do [ "${moments[$file]:-0}" -gt 0 ]; done
}

@test "SIGKILL while a report is made: the earlier report or the new one is there, whole, and no half of one" {
    seeded
    local killed=0 wanted=$((kills / 10)) whole start process code
    local command=("$HINGE" report little --db "$folder/undisturbed/hinge.db" -o "$folder/reports")
    start=$(date +%s%N)
    "${command[@]}" >"$folder/log" 2>&1
    whole=$((($(date +%s%N) - start) / 1000000))
    while [ $killed -lt $wanted ]; do
        below "$whole"
        "${command[@]}" >"$folder/log" 2>&1 3>&- &
        process=$!
        sleep "$(printf '%d.%03d' $((random / 1000)) $((random % 1000)))"
        kill -KILL $process 2>/dev/null || true
        code=0
        wait $process 2>/dev/null || code=$?
        [ $code -eq 0 ] || killed=$((killed + 1))
        pdfinfo "$folder/reports/little.pdf" >/dev/null
        [ -s "$folder/reports/little/facts.tex" ] && [ -s "$folder/reports/little/findings.tex" ]
    done
    while [[ $(readlink /proc/[0-9]*/cwd) == *"$folder/reports"* ]]; do sleep 0.1; done # LaTeX of the last one
    "${command[@]}" >"$folder/log" 2>&1
    note "$killed kills of reports"
    no_leftovers "$folder/reports"
}
