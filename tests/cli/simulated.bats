# simulated: suites on drawn figures, and the verbs that say what a design shows: power, gate, calibrate.
load helpers

setup() {
    folder=$(mktemp -d)
    mkdir -p "$folder/suites"
    cp -r suites/presets "$folder/suites/"
    db="$folder/hinge.db"
    cat >"$folder/suites/drawn.yaml" <<'YAML'
# drawn: one real difference and one that is none.
name: drawn
question: Does the harness find what is there?
preset: tiny
set: {run.backend: simulated}
seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
baseline: none
metric: bpb.artifact
margin: 0.002
variants:
  none: {}
  better: {simulated.effect: -0.01}
  same: {simulated.stream: 1}
YAML
    suite="$folder/suites/drawn.yaml"
}

teardown() { rm -rf "$folder"; }

@test "a simulated suite needs no data, finds what is there, and says everywhere that it is simulated" {
    succeeds hinge plan "$suite" --db "$db" --data "$folder/none"
    [[ $output == *"simulated"* ]]
    succeeds hinge run "$suite" --db "$db" --data "$folder/none"
    [[ $output == *"30 of 30 runs done, 0 failed"* ]]
    succeeds hinge compare "$suite" --db "$db"
    [[ $output == *"simulated: figures drawn"* ]]
    hinge compare "$suite" --db "$db" --json >"$folder/compared.json"
    [ "$(json "d['simulated'], [v['verdict'] for v in d['variants'][:2]]" <"$folder/compared.json")" = \
        "(True, ['baseline', 'better by the margin'])" ]
    [ "$(json "d['variants'][2]['verdict'] in ('inconclusive', 'equivalent')" <"$folder/compared.json")" = True ]
    succeeds hinge status --db "$db"
    [[ $output == *"drawn (simulated)"* ]]
    succeeds hinge status "$suite" --db "$db"
    [[ $output == *"simulated: figures drawn"* ]]
    succeeds hinge show 1 --db "$db"
    [[ $output == *"simulated: figures drawn"* ]]
    hinge export runs drawn --db "$db" --format csv | sed -n 2p | grep -q ",simulated,"
    fails 2 "is simulated" hinge reproduce 1 --db "$db"
}

@test "the same simulated suite gives the same figures, and is not done twice" {
    hinge run "$suite" --db "$db" 2>/dev/null
    hinge run "$suite" --db "$folder/other.db" 2>/dev/null
    [ "$(hinge compare "$suite" --db "$db" --json)" = "$(hinge compare "$suite" --db "$folder/other.db" --json)" ]
    succeeds hinge run "$suite" --db "$db"
    [[ $output == *"0 stages done now, 180 before"* ]]
}

@test "what comes next is a command that a shell can run, on the same database" {
    sed -i "s/^name: .*/name: it's drawn/" "$suite"
    succeeds hinge run "$suite" --db "$folder/my results.db"
    next=$(sed -n 's/^next: //p' <<<"$output")
    [[ $next == "hinge compare "*", hinge report "* ]]
    (cd "$folder" && eval "${next%%, hinge report*}") | grep -q "better by the margin"
    [ ! -e "$folder/results" ]
}

@test "a report that Ctrl-C ends while gnuplot draws is interrupted, not failed, and leaves nothing" {
    hinge run "$suite" --db "$db" 2>/dev/null
    mkdir "$folder/bin"
    printf '#!/bin/sh\nmkdir "%s/once" 2>/dev/null && kill -INT $PPID\nexit 1\n' "$folder" >"$folder/bin/gnuplot"
    chmod +x "$folder/bin/gnuplot"
    PATH="$folder/bin:$PATH" fails 130 "the report was interrupted" hinge report drawn --db "$db" -o "$folder/out"
    [ -z "$(ls -A "$folder/out")" ]
}

@test "a simulated variant may name another text" {
    sed -i 's/  same: .*/  same: {data.name: other}/' "$suite"
    succeeds hinge plan "$suite" --db "$db"
    succeeds hinge run "$suite" --db "$db"
    succeeds hinge compare "$suite" --db "$db"
}

@test "the same settings in another order, or given twice, are the same declaration" {
    succeeds hinge run "$suite" --db "$db" --set eval.tokens=5 --set train.steps=11
    succeeds hinge run "$suite" --db "$db" --set train.steps=10 --set train.steps=11 --set eval.tokens=5
    [[ $output == *"0 stages done now, 180 before"* ]]
    fails 2 "command line was" hinge run "$suite" --db "$db" --set train.steps=11
}

@test "a database without a name is refused before anything is announced" {
    fails 2 "'' names no file" hinge run "$suite" --db ""
    fails 2 "':memory:' names no file" hinge run "$suite" --db :memory:
    fails 2 "'' names no file" hinge compare drawn --db ""
}

@test "a suite without traces has a report, and no curves in it" {
    sed -i 's/run.backend: simulated/run.backend: simulated, simulated.trace: 0/' "$suite"
    hinge run "$suite" --db "$db" 2>/dev/null
    succeeds hinge report drawn --db "$db" -o "$folder/out"
    [ -s "$folder/out/drawn.pdf" ]
    [ -s "$folder/out/drawn/slopes.pdf" ]
    [ ! -e "$folder/out/drawn/curves.pdf" ]
}

@test "some variants drawn and others measured are refused" {
    sed -i 's/same: .*/same: {run.backend: cpu}/' "$suite"
    fails 2 "variant same: run.backend differs" hinge plan "$suite" --db "$db"
}

@test "drawn failures are failures: counted, kept, and the exit status is 5" {
    run --separate-stderr hinge run "$suite" --db "$db" --set simulated.failure_rate=0.3
    [ "$status" -eq 5 ]
    [[ $stderr == *"of 30 runs failed"* ]]
    succeeds hinge status "$suite" --db "$db"
    [[ $output == *"simulated.failure_rate"* ]]
}

@test "gate exits 0, 1 or 2 and says why" {
    hinge run "$suite" --db "$db" 2>/dev/null
    succeeds hinge gate "$suite" --db "$db" --require "better better than none on bpb.artifact by 0.002"
    [[ $output == *"holds: better better than none"* ]]
    fails 1 "does not hold" hinge gate "$suite" --db "$db" --require "none better than better"
    fails 2 "cannot tell" hinge gate "$suite" --db "$db" --require "same better than none"
    fails 1 "does not hold" hinge gate "$suite" --db "$db" --require "same better than none" \
        --require "none better than better"
    fails 64 "--require" hinge gate "$suite" --db "$db" --require "nonsense"
    fails 64 "no variant 'non'" hinge gate "$suite" --db "$db" --require "better better than non"
    fails 64 "gate needs --require" hinge gate "$suite" --db "$db"
    fails 64 "no flag --requires" hinge gate "$suite" --db "$db" --requires x
    fails 64 "no results of suite" hinge gate nothing --db "$db" --require "a better than b"
    fails 64 "gate needs SUITE" hinge gate
    hinge gate "$suite" --db "$db" --require "better better than none" --json | is_json
}

@test "power tells seeds for a margin from a given or the stored sd, and draws it" {
    fails 2 "give --sd" hinge power "$suite" --db "$db"
    [ "$(hinge power "$suite" --db "$db" --sd 0.002 --json | json "d['seeds_for_margin'], d['family']")" = "(13, 2)" ]
    hinge run "$suite" --db "$db" 2>/dev/null
    succeeds hinge power "$suite" --db "$db" --figure "$folder/figure"
    [[ $output == *"pooled over 2 stored variants (simulated)"* ]]
    [ -s "$folder/figure/power.pdf" ] && [ -s "$folder/figure/power.svg" ]
}

@test "power fits a terminal of 80 columns" {
    local lines
    lines=$(script -qec "stty cols 80; '$HINGE' power '$suite' --sd 0.002" /dev/null </dev/null | tr -d '\r')
    [[ $lines == *"power for the margin"* ]]
    [ "$(LC_ALL=C.UTF-8 wc -L <<<"$lines")" -le 80 ]
}

@test "power draws only where the figures' templates are, and says so elsewhere" {
    cd "$folder"
    fails 2 "reports/power.gp" hinge power "$suite" --sd 0.002 --figure "$folder/p"
    [[ $stderr == *"run hinge in the folder that has reports/" ]]
}

@test "calibrate finds about alpha on runs of one variant, and refuses too few" {
    hinge run "$suite" --db "$db" 2>/dev/null
    hinge calibrate "$suite" --db "$db" --json | json "0 <= d['false_positives_paired_t'] <= 0.12 and d['pairs'] == 5 and d['verdict_paired_t'] == 'as promised'" |
        grep -q True
    sed -i 's/^name: drawn/name: few/; s/^seeds: .*/seeds: [1, 2, 3]/' "$suite"
    hinge run "$suite" --db "$db" 2>/dev/null
    fails 3 "at least 4" hinge calibrate "$suite" --db "$db"
    fails 2 "no variant 'x'" hinge calibrate "$suite" --db "$db" --variant x
}

@test "plan and run warn before any compute when nothing could be significant, and say how many seeds would do" {
    sed -i 's/^metric/test: {kind: sign-flip}\nmetric/; s/^seeds: .*/seeds: [1, 2, 3, 4]/' "$suite"
    succeeds hinge plan "$suite" --db "$db"
    [[ $output == *"warning"*"no difference can be significant"*"7 seeds are needed"* ]]
    run --separate-stderr hinge run "$suite" --db "$db"
    [[ $stderr == *"warning: no difference can be significant"*"7 seeds are needed"* ]]
}
