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

# other_suite: of the same name, with other figures: its report has the same place, and nothing else in common.
other_suite() {
    mkdir -p "$folder/other"
    ln -sfn "$PWD/suites/presets" "$folder/other/presets"
    sed -e 's/^question: .*/question: Which of two reports is this?/' -e 's/{model.dim/{run.backend: simulated, model.dim/' \
        "$folder/little.yaml" >"$folder/other/little.yaml"
    hinge run "$folder/other/little.yaml" --db "$folder/other/hinge.db" >"$folder/log" 2>&1
}

# report WHICH FOLDER [KILL_AT]: the report of one of the two suites, killed at that call.
report() {
    local database=$folder/undisturbed/hinge.db suite=$folder/little.yaml
    [ "$1" = one ] || { database=$folder/other/hinge.db suite=$folder/other/little.yaml; }
    HINGE_KILL_AT=${3:-0} LD_PRELOAD=$PWD/build/tests/fault/kill_at.so \
        bash -c 'exec "$@" 3>&-' - "$HINGE" report "$suite" --db "$database" -o "$2" >"$folder/log" 2>&1
}

# killed_report WHICH KILL_AT: it is really killed, in $reports; 1: it came to its end before that call.
killed_report() {
    local code=0
    report "$1" "$reports" "$2" || code=$?
    [ $code -ne 0 ] || return 1
    [ $code -eq 137 ] || { cat "$folder/log"; exit 1; }
    killed=$((killed + 1))
}

# which_folder, which_pdf: whose report is there, whole.
which_folder() {
    local which
    for which in one two; do
        diff -rq -x '*.log' -x '*.png' -x '*.svg' -x '*.pdf' "$folder/$which/little" "$reports/little" >/dev/null || continue
        echo $which
    done
}
which_pdf() {
    local which
    for which in one two; do if cmp -s "$folder/$which/little.pdf" "$reports/little.pdf"; then echo $which; fi; done
}

# both_whole: folder and PDF are each one of the two reports, the same one unless the folder has its PDF yet.
both_whole() {
    local of pdf
    of=$(which_folder) pdf=$(which_pdf)
    if [ -z "$of" ] || [ -z "$pdf" ]; then
        echo "half a report: folder of '$of', PDF of '$pdf' after $(<"$folder/moment")"
        return 1
    fi
    [ "$of" = "$pdf" ] || cmp -s "$folder/$of/little.pdf" "$reports/little/document.pdf"
}

# two_reports: each of them undisturbed, in $folder/one and $folder/two, and the first in $reports.
two_reports() {
    other_suite
    reports=$folder/reports
    report one "$folder/one"
    report two "$folder/two"
    if cmp -s "$folder/one/little.pdf" "$folder/two/little.pdf"; then return 1; fi
    report one "$reports"
    : >"$folder/moment"
    [ "$(which_folder) $(which_pdf)" = "one one" ]
}

# refused_report: one that fails before it has made anything.
refused_report() {
    if "$HINGE" report "$folder/little.yaml" --db "$folder/undisturbed/hinge.db" -o "$reports" --templates "$folder/none" \
        >"$folder/log" 2>&1 3>&-; then return 1; fi
    grep -q "cannot read this template" "$folder/log"
}

@test "SIGKILL at each call that puts a report in place: never half a report, and the next one mends what disagrees" {
    local killed=0 reports at=0 apart=0
    two_reports
    export HINGE_KILL_LOG=$folder/moment HINGE_KILL_FILE=little
    while killed_report two $((++at)); do
        both_whole
        [ "$(which_folder)" = "$(which_pdf)" ] || apart=$((apart + 1))
        refused_report
        [ "$(which_folder)" = "$(which_pdf)" ]
        report one "$reports"
        [ "$(which_folder) $(which_pdf)" = "one one" ]
        no_leftovers "$reports"
    done
    note "$killed kills of reports, $apart between folder and PDF"
    [ $killed -ge 2 ] && [ $apart -eq 1 ]
}

@test "SIGKILL in the middle of a write, rename or removal of a report: the same" {
    seeded
    local killed=0 reports wanted=$((kills / 10)) whole
    two_reports
    HINGE_KILL_LOG=$folder/calls.log report two "$reports" 1000000000
    whole=$(sed -n 's/^end //p' "$folder/calls.log")
    export HINGE_KILL_LOG=$folder/moment
    while [ $killed -lt $wanted ]; do
        below "$whole"
        killed_report two $((random + 1))
        both_whole
    done
    report two "$reports"
    [ "$(which_folder) $(which_pdf)" = "two two" ]
    note "$killed kills of reports in $whole calls"
    no_leftovers "$reports"
}

@test "SIGKILL at random moments while a report is made: the same, and the next leaves nothing of it" {
    seeded
    local killed=0 reports wanted=$((kills / 20)) whole start process code
    two_reports
    start=$(date +%s%N)
    report two "$folder/timed"
    whole=$(since "$start")
    while [ $killed -lt $wanted ]; do
        below "$whole"
        "$HINGE" report "$folder/other/little.yaml" --db "$folder/other/hinge.db" -o "$reports" >"$folder/log" 2>&1 3>&- &
        process=$!
        sleep "$(printf '%d.%03d' $((random / 1000)) $((random % 1000)))"
        kill -KILL $process 2>/dev/null || true
        code=0
        wait $process 2>/dev/null || code=$?
        both_whole
        [ $code -eq 0 ] && continue
        [ $code -eq 137 ] || { cat "$folder/log"; return 1; }
        killed=$((killed + 1))
    done
    while [[ $(readlink /proc/[0-9]*/cwd) == *"$reports"* ]]; do sleep 0.1; done # LaTeX of the last one
    report two "$reports"
    [ "$(which_folder) $(which_pdf)" = "two two" ]
    note "$killed kills of reports"
    no_leftovers "$reports"
}
