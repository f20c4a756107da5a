# merge: databases of parts become one, to the bit; what differs is refused and named, and everything else is taken.
load ../fault/helpers

setup_file() {
    scratch
    little_suite little 6
    undisturbed little
    local arguments part
    for part in 1 2; do
        on "$folder/p$part/hinge.db" little --part $part/2
        hinge "${arguments[@]}" >"$folder/part$part.log" 2>&1 || return 1
    done
    make --no-print-directory -s build/tests/fault/kill_at.so
}

teardown_file() { rm -rf "$folder"; }

setup() {
    db=$folder/$BATS_TEST_NUMBER/hinge.db
    whole=$folder/undisturbed/hinge.db
    p1=$folder/p1/hinge.db p2=$folder/p2/hinge.db
}

# changed DATABASE SQL: a copy of it with its store in which something was changed; its path is in $other.
changed() {
    other=$folder/$BATS_TEST_NUMBER/other/hinge.db
    mkdir -p "$folder/$BATS_TEST_NUMBER"
    rm -rf "$(dirname "$other")"
    cp -r "$(dirname "$1")" "$(dirname "$other")"
    sqlite3 "$other" "$2"
}

# content DATABASE: every row.
content() { sqlite3 "$1" .dump; }

# figures DATABASE: what runs made, without numbers of rows and times.
figures() {
    sqlite3 "$1" "SELECT s.key, p.key, s.kind, s.status, s.weights_sha256, s.trace_sha256, e.nll, e.bpb, a.sha256
        FROM stages s LEFT JOIN stages p ON p.id = s.parent LEFT JOIN evaluations e ON e.stage = s.id
        LEFT JOIN artifacts a ON a.stage = s.id ORDER BY s.key;
        SELECT s.key, t.step, t.loss FROM steps t JOIN stages s ON s.id = t.stage ORDER BY s.key, t.step;
        SELECT s.key, b.block, b.nll FROM evaluation_blocks b JOIN stages s ON s.id = b.stage ORDER BY s.key, b.block;
        SELECT s.key, c.class, c.bytes FROM artifact_classes c JOIN stages s ON s.id = c.stage ORDER BY s.key, c.class;
        SELECT v.name, r.seed, r.key, r.late, o.name, o.value FROM runs r JOIN variants v ON v.id = r.variant
        JOIN run_options o ON o.run = r.id ORDER BY v.name, r.seed, o.name;
        SELECT v.name, r.seed, t.part, s.key FROM runs r JOIN variants v ON v.id = r.variant JOIN run_stages t ON t.run = r.id
        JOIN stages s ON s.id = t.stage ORDER BY v.name, r.seed, t.part;
        SELECT name, scale, question, head, declaration, declaration_sha256 FROM suites; SELECT * FROM datasets;
        SELECT position, name, declaration, late FROM variants ORDER BY position; SELECT position, seed, late FROM seeds"
}

state() { sqlite3 "$db" "SELECT status FROM stages WHERE $1"; }

@test "the parts share no stage, and merged they are the whole: rows, files, and nothing left to do" {
    [ -z "$(sqlite3 "$p1" "ATTACH '$p2' AS b; SELECT s.key FROM stages s JOIN b.stages t ON t.key = s.key AND t.status = 'done' WHERE s.status = 'done'")" ]
    succeeds hinge merge "$p1" "$p2" --db "$db"
    [[ $output == *"p1/hinge.db: 4 runs: 2 new, 2 unfinished; 8 stages taken"* ]]
    [[ $output == *"p2/hinge.db: 4 runs: 2 completed, 2 already here; 8 stages taken"* ]]
    as_undisturbed "$db"
    sound "$db"
    diff <(figures "$db") <(figures "$whole")
    diff -r "$(dirname "$db")/store" "$folder/undisturbed/store"
    hinge status little --db "$db" >"$folder/log"
    on "$db" little
    succeeds hinge "${arguments[@]}"
    [[ $output == *"4 of 4 runs done, 0 failed; 0 stages done now"* ]]
}

@test "merging again changes nothing, and nor does --dry-run" {
    hinge merge "$p1" --db "$db" >/dev/null
    content "$db" >"$folder/before"
    [ "$(hinge merge "$p1" "$p2" --db "$db" --dry-run --json | json '[(f["runs"]["already here"], f["runs"]["completed"], f["stages"], f["refused"]) for f in d]')" = \
        "[(2, 0, 0, None), (2, 2, 8, None)]" ]
    succeeds hinge merge "$p1" --db "$db"
    [[ $output == *"4 runs: 2 already here, 2 unfinished; 0 stages taken"* ]]
    content "$db" | cmp - "$folder/before"
    [ "$(find "$(dirname "$db")/store" -name artifact.xz | wc -l)" -eq 2 ]
}

@test "a run that is unfinished here is completed from there, and its checkpoint goes" {
    stop_in_training "$db"
    succeeds hinge merge "$whole" --db "$db"
    [[ $output == *"4 completed; 16 stages taken"* ]]
    as_undisturbed "$db"
    no_leftovers "$(dirname "$db")"
}

@test "a stage that a live worker holds here is left to it" {
    hinge merge "$p1" --db "$db" >/dev/null
    sqlite3 "$db" "UPDATE stages SET status = 'running', host = '$(hostname)', pid = $$,
        worker = '$(hostname):$$:$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20)' WHERE seed = 2 AND kind = 'train'"
    succeeds hinge merge "$p2" --db "$db"
    [[ $output == *"2 already here, 2 busy"* ]]
    [ "$(state "seed = 2 AND kind = 'train'")" = running ]
    [ "$(state "seed = 2 AND kind <> 'train'" | sort -u)" = pending ]
    sqlite3 "$db" "UPDATE stages SET pid = 0 WHERE status = 'running'"
    succeeds hinge merge "$p2" --db "$db"
    as_undisturbed "$db"
}

@test "other hashes under the same key are refused with both, nothing is built on them, and the rest is taken" {
    hinge merge "$p1" --db "$db" >/dev/null
    sqlite3 "$db" "UPDATE stages SET status = 'pending' WHERE seed = 1 AND kind = 'evaluate'"
    local here there=$(printf '7%.0s' $(seq 64))
    here=$(sqlite3 "$db" "SELECT weights_sha256 FROM stages WHERE seed = 1 AND kind = 'train'")
    changed "$whole" "UPDATE stages SET weights_sha256 = '$there' WHERE seed = 1 AND kind = 'train'"
    fails 6 "2 refusals, the first of them: $other: suite little, none seed 1: train made weights $there, and in $db weights $here" \
        hinge merge "$other" --db "$db"
    [[ $output == *"2 completed, 2 refused; 8 stages taken"* && $output == *"refused: $other: suite little, int8 seed 1: train made"* ]]
    [ "$(state "seed = 1 AND kind = 'evaluate'" | sort -u)" = pending ]
    [ "$(sqlite3 "$db" "SELECT weights_sha256 FROM stages WHERE seed = 1 AND kind = 'train'")" = "$here" ]
    [ "$(state "seed = 2" | sort -u)" = "done" ]
    local arguments
    on "$db" little
    hinge "${arguments[@]}" >/dev/null 2>&1
    as_undisturbed "$db"
}

@test "an artifact or a score that differs is refused, its own run alone" {
    hinge merge "$whole" --db "$db" >/dev/null
    changed "$whole" "UPDATE artifacts SET sha256 = 'abc' WHERE stage = (SELECT stage FROM run_stages WHERE run = 2 AND part = 4);
        UPDATE evaluations SET nll = 1.5 WHERE stage = (SELECT stage FROM run_stages WHERE run = 3 AND part = 5)"
    fails 6 "2 refusals" hinge merge "$other" --db "$db"
    [[ $output == *"2 already here, 2 refused"* ]]
    [[ $output == *"int8 seed 1: quantise made an artifact abc of "*" bytes, and in $db an artifact "* ]]
    [[ $output == *"none seed 2: evaluate artifact made 1.5 nats, and in $db "* ]]
}

@test "what is no whole database of this version is refused by name; nothing of it is taken, the next file is" {
    local bad=$folder/bad
    hinge merge "$p1" --db "$db" >/dev/null
    content "$db" >"$folder/before"
    refused() { # CODE TEXT FILE
        fails "$1" "$2" hinge merge "$3" --db "$db"
        [[ $stderr == *"$3"* ]]
        content "$db" | cmp - "$folder/before"
    }
    refused 3 "no such database" "$folder/missing.db"
    echo "a text" >"$bad.txt"
    refused 3 "file is not a database" "$bad.txt"
    : >"$bad.empty"
    refused 3 "nothing was ever run in it" "$bad.empty"
    sqlite3 "$bad.foreign" "CREATE TABLE stages (id)"
    refused 3 "another program" "$bad.foreign"
    for version in 2 4; do
        changed "$p2" "PRAGMA user_version = $version"
        refused 3 "has version $version, this program merges version 3" "$other"
    done
    changed "$p2" "DROP TABLE steps"
    refused 3 "its tables are not those of this version: steps" "$other"
    changed "$p2" "CREATE TRIGGER more AFTER INSERT ON steps BEGIN DELETE FROM runs; END"
    refused 3 "foreign more" "$other"
    changed "$p2" "UPDATE stages SET key = '../../../escaped' WHERE kind = 'train' AND seed = 2"
    refused 3 "no content key but ../../../escaped" "$other"
    changed "$p2" ""
    printf '%4096s' x | dd of="$other" bs=4096 seek=$(($(stat -c %s "$other") / 8192)) conv=notrunc status=none
    fails 3 "$other" hinge merge "$other" --db "$db"
    refused 2 "is the database that it would be merged into" "$db"
    fails 3 "$bad.txt" hinge merge "$bad.txt" "$p2" --db "$db"
    as_undisturbed "$db"
}

@test "a suite that was declared otherwise is refused with the difference, which is noted; other suites are taken" {
    hinge merge "$p1" --db "$db" >/dev/null
    changed "$whole" "UPDATE suites SET head = replace(head, 'train.steps: 6', 'train.steps: 7');
        UPDATE suites SET head = replace(head, 'metric: bpb.artifact', 'metric: bpb.raw')"
    sed -e 's/^name: .*/name: drawn/' -e 's/{model.dim/{run.backend: simulated, model.dim/' "$folder/little.yaml" >"$folder/drawn.yaml"
    hinge run "$folder/drawn.yaml" --db "$other" >/dev/null 2>&1
    fails 6 "suite little: was declared otherwise in $db on " hinge merge "$other" --db "$db"
    [[ $stderr == *"metric was bpb.artifact and is bpb.raw"* && $output == *"8 runs: 4 new, 4 refused"* ]]
    [ "$(sqlite3 "$db" "SELECT difference FROM refusals")" = "metric was bpb.artifact and is bpb.raw" ]
    [ "$(hinge status drawn --db "$db" --json | json '[r["status"] for r in d["runs"]].count("done")')" = 4 ]
    changed "$whole" "UPDATE suites SET question = 'Another?'"
    fails 6 "and is Another?" hinge merge "$other" --db "$db"
    changed "$whole" "UPDATE variants SET declaration = declaration || '  model.dim: 8' WHERE name = 'int8'"
    fails 6 "variant int8: model.dim is 8 and was not set" hinge merge "$other" --db "$db"
}

@test "another build is refused unless that is asked for, and keeps its provenance and its host" {
    hinge merge "$p1" --db "$db" >/dev/null
    changed "$p2" "UPDATE provenance SET value = 'another' WHERE name = 'program';
        UPDATE environments SET sha256 = 'another'; UPDATE stages SET host = 'elsewhere', node = 'elsewhere' WHERE status = 'done'"
    fails 6 "was made there by another build than in $db: program was " hinge merge "$other" --db "$db"
    [[ $stderr == *"--mix-builds"* ]]
    succeeds hinge merge "$other" --db "$db" --mix-builds
    as_undisturbed "$db"
    [ "$(sqlite3 "$db" "SELECT DISTINCT s.seed, s.host, s.node, p.value = 'another' FROM stages s JOIN provenance p
        ON p.environment = s.environment AND p.name = 'program' ORDER BY s.seed")" = "1|$(hostname)|$(hostname)|0
2|elsewhere|elsewhere|1" ]
}

@test "seeds and variants that were not declared here come late" {
    hinge merge "$p1" --db "$db" >/dev/null
    sed -e 's/^seeds: .*/seeds: [1, 2, 3]/' "$folder/little.yaml" >"$folder/more.yaml"
    echo "  int4: {quant.bits: 4}" >>"$folder/more.yaml"
    mkdir -p "$folder/more"
    hinge run "$folder/more.yaml" --db "$folder/more/hinge.db" --data "$folder/data" >/dev/null 2>&1
    succeeds hinge merge "$folder/more/hinge.db" --db "$db"
    [[ $output == *"9 runs: 5 new, 2 completed, 2 already here"* ]]
    [ "$(sqlite3 "$db" "SELECT v.name, r.seed, r.late FROM runs r JOIN variants v ON v.id = r.variant ORDER BY r.late, r.seed, v.position" | tr '\n' ' ')" = \
        "none|1|0 int8|1|0 none|2|0 int8|2|0 int4|1|1 int4|2|1 none|3|1 int8|3|1 int4|3|1 " ]
    hinge compare little --db "$db" | grep -q "late"
}

@test "a run that failed there has failed here, with its reason, until it is done somewhere" {
    changed "$p2" "UPDATE stages SET status = 'failed', error = 'loss became infinite' WHERE kind = 'train' AND status = 'done'"
    hinge merge "$p1" --db "$db" >/dev/null
    succeeds hinge merge "$other" --db "$db"
    [[ $output == *"2 failed"* ]]
    [ "$(sqlite3 "$db" "SELECT seed, error FROM stages WHERE status = 'failed'")" = "2|loss became infinite" ]
    succeeds hinge merge "$p2" --db "$db"
    as_undisturbed "$db"
    succeeds hinge merge "$other" --db "$db"
    as_undisturbed "$db"
}

@test "files that are missing there are told, and made again when something needs them" {
    changed "$whole" "UPDATE stages SET status = 'pending' WHERE kind = 'evaluate'"
    rm -r "$(dirname "$other")/store"
    succeeds hinge merge "$other" --db "$db"
    [[ $output == *"8 stages taken, 8 files of them missing there"* ]]
    local arguments
    on "$db" little
    hinge "${arguments[@]}" >"$folder/log" 2>&1 || { cat "$folder/log"; return 1; }
    as_undisturbed "$db"
}

@test "peeks and replicates come along" {
    changed "$p1" ""
    hinge status little --db "$other" >/dev/null 2>&1
    hinge reproduce 1 --db "$other" --data "$folder/data" >/dev/null
    succeeds hinge merge "$other" --db "$db"
    [ "$(sqlite3 "$db" "SELECT verb, done FROM peeks; SELECT equal FROM replicates")" = "status|2
1" ]
}

@test "SIGKILL in the middle of a merge: the database is as before or whole, and repeating completes it" {
    local n code=0 before after runs kills=0
    hinge merge "$p1" --db "$folder/start/hinge.db" >/dev/null
    before=$(figures "$folder/start/hinge.db" | sha256sum)
    cp -r "$folder/start" "$folder/end"
    hinge merge "$p2" --db "$folder/end/hinge.db" >/dev/null
    after=$(figures "$folder/end/hinge.db" | sha256sum)
    [ "$before" != "$after" ]
    seeded
    below 3
    for ((n = 1 + random; ; n += 3)); do
        rm -rf "$(dirname "$db")"
        cp -r "$folder/start" "$(dirname "$db")"
        code=0
        HINGE_KILL_AT=$n LD_PRELOAD=$PWD/build/tests/fault/kill_at.so \
            bash -c 'exec "$@" 3>&-' - "$HINGE" merge "$p2" --db "$db" >"$folder/log" 2>&1 || code=$?
        [ $code -ne 0 ] || break
        [ $code -eq 137 ]
        kills=$((kills + 1))
        sound "$db"
        runs=$(figures "$db" | sha256sum)
        [ "$runs" = "$before" ] || [ "$runs" = "$after" ]
        hinge merge "$p2" --db "$db" >/dev/null
        [ "$(figures "$db" | sha256sum)" = "$after" ]
        no_leftovers "$(dirname "$db")"
    done
    note "a merge was killed at $kills of its calls that change a file, every third from one to the last"
    [ $kills -gt 10 ]
}
