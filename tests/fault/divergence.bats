# divergence: a training whose numbers stop being finite stops, is marked, keeps its last good step, and is counted.
load helpers

setup_file() {
    scratch
    little_suite little 12
    sed "s/^  int8: .*/  wild: {optim.muon_rate: 10, optim.adam_rate: 10, optim.embedding_rate: 10, optim.muon_decay: 10}/; s/^name: .*/name: wild/" \
        "$folder/little.yaml" >"$folder/wild.yaml"
    sed -i 's/^metric: .*/metric: bpb.raw/' "$folder/wild.yaml"
}

teardown_file() { rm -rf "$folder"; }

# Muon's decay of 10 at a rate of 10 multiplies every weight by -99 a step.
@test "a diverging variant fails, its finite steps stay, the others end, and the comparison says so" {
    local arguments code=0 kept
    on "$folder/wild.db" wild --set optim.clip=0
    hinge "${arguments[@]}" >"$folder/log" 2>&1 || code=$?
    [ $code -eq 5 ] || { cat "$folder/log"; return 1; }
    grep -q "2 of 4 runs failed" "$folder/log"
    [ "$(sqlite3 "$folder/wild.db" "SELECT count(*) FROM stages WHERE status = 'failed' AND error LIKE '%step %'")" -eq 2 ]
    kept=$(sqlite3 "$folder/wild.db" "SELECT count(*) FROM steps t JOIN stages s ON s.id = t.stage WHERE s.status = 'failed'")
    [ "$kept" -ge 2 ]
    [ "$(sqlite3 "$folder/wild.db" "SELECT count(*) FROM steps WHERE loss IS NULL OR abs(loss) > 1e300")" -eq 0 ]
    [ "$(find "$folder/store" -name checkpoint | wc -l)" -eq 2 ]
    succeeds hinge compare wild --db "$folder/wild.db"
    [[ $output == *failed* ]]
    hinge compare wild --db "$folder/wild.db" --json | json "[v.get('failed', v.get('failures')) for v in d['variants']]" >"$folder/failed"
    note "diverged: $kept steps kept, failures counted $(cat "$folder/failed")"
    # Again: nothing is tried again unless asked, and then it goes on from the last good step to the same end.
    code=0
    hinge "${arguments[@]}" --retry >"$folder/log" 2>&1 || code=$?
    [ $code -eq 5 ]
    [ "$(sqlite3 "$folder/wild.db" "SELECT count(*) FROM steps t JOIN stages s ON s.id = t.stage WHERE s.status = 'failed'")" -eq "$kept" ]
}
