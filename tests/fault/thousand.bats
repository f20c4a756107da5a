# thousand: a suite of many drawn runs, killed about each second, ends complete and equal to the undisturbed one.
load helpers

setup_file() { scratch; }
teardown_file() { rm -rf "$folder"; }

figures() { hinge export runs --format json --db "$1" | python3 -c '
import json, sys
for r in json.load(sys.stdin):
    assert r["status"] == "done", r
    print(r["variant"], r["seed"], r["bpb_raw"], r["bpb_artifact"], r["loss_final"], r["steps"], r["artifact_bytes"])' | sort; }

@test "runs on the simulated backend with a random kill each second: complete, and equal to the undisturbed ones" {
    seeded
    local runs=${RUNS:-300} kills=0 lives=0 code process again
    ln -sfn "$PWD/suites/presets" "$folder/presets"
    {
        echo "name: thousand"
        echo "preset: tiny"
        echo "set: {run.backend: simulated, simulated.trace: 1000, simulated.blocks: true}"
        echo "seeds: [$(seq -s ', ' $((runs / 10)))]"
        echo "baseline: v0"
        echo "metric: bpb.artifact"
        echo "variants:"
        for i in $(seq 0 9); do echo "  v$i: {simulated.effect: 0.00$i}"; done
    } >"$folder/thousand.yaml"
    hinge run "$folder/thousand.yaml" --db "$folder/whole/hinge.db" >/dev/null 2>&1
    figures "$folder/whole/hinge.db" >"$folder/expected"
    [ "$(wc -l <"$folder/expected")" -eq "$runs" ]
    for again in 1 2 3 4 5 6 7 8 9 10; do # as often as it takes to have been killed at all
        rm -rf "$folder/killed"
        code=137
        while [ $code -eq 137 ]; do
            "$HINGE" run "$folder/thousand.yaml" --db "$folder/killed/hinge.db" >"$folder/log" 2>&1 3>&- &
            process=$!
            # Exponential of mean one second: sometimes long enough for any machine.
            sleep "$(awk -v u=$RANDOM 'BEGIN {printf "%.3f", -log((u + 0.5) / 32768)}')"
            kill -KILL $process 2>/dev/null || true
            code=0
            wait $process 2>/dev/null || code=$?
            lives=$((lives + 1))
            [ $code -ne 137 ] || kills=$((kills + 1))
        done
        [ $code -eq 0 ] || { tail -n 3 "$folder/log"; return 1; }
        figures "$folder/killed/hinge.db" | diff -q - "$folder/expected"
        sound "$folder/killed/hinge.db"
        [ $kills -lt 3 ] || break
    done
    [ $kills -ge 1 ]
    note "$runs runs, $kills kills, $lives lives, $again times to the end: equal to the undisturbed"
}
