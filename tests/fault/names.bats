# names: paths and names out of files are text to every program that gets them: no shell, no LaTeX, no gnuplot runs them.
load helpers

setup_file() { scratch; }
teardown_file() { rm -rf "$folder"; }

@test "suite and variant names with quotes, \$(...), \\input{...}, UTF-8 and 300 characters come out as text" {
    local long database="$folder/a b'c\$(touch pwned)/h.db"
    long=$(printf 'x%.0s' $(seq 300))
    ln -sfn "$PWD/suites/presets" "$folder/presets"
    cat >"$folder/hostile.yaml" <<YAML
name: 'quote" tick\` \$(touch pwned) ; touch pwned | \\input{/etc/passwd} é 漢 %d #1 & $long'
question: 'What does \\write18{touch pwned} do, and \$x^2\$ 50%?'
preset: tiny
set: {run.backend: simulated}
seeds: [1, 2, 3]
baseline: 'none \$(touch pwned)'
metric: bpb.raw
variants:
  'none \$(touch pwned)': {}
  "it's \\\\input{x} \`touch pwned\` {}%": {simulated.effect: 0.01}
  '$long': {simulated.stream: 1}
  'set output "pwned"; !touch pwned': {simulated.stream: 2}
YAML
    cd "$folder"
    hinge run "$folder/hostile.yaml" --db "$database" >"$folder/log" 2>&1
    succeeds hinge status --db "$database"
    succeeds hinge compare "$folder/hostile.yaml" --db "$database"
    [[ $output == *"touch pwned"* ]]
    hinge compare "$folder/hostile.yaml" --db "$database" --json | is_json
    hinge export runs --format csv --db "$database" >"$folder/runs.csv"
    cd - >/dev/null
    succeeds hinge report "$folder/hostile.yaml" --db "$database" -o "$folder/out \$(touch pwned)"
    local pdf
    pdf=$(find "$folder" -maxdepth 2 -name '*.pdf' | head -n 1)
    pdftotext "$pdf" - | tr -d '\n ' >"$folder/text"
    grep -qF '$(touchpwned)' "$folder/text"
    grep -qF 'input{' "$folder/text"
    if grep -q "root:" "$folder/text"; then return 1; fi
    [ -z "$(find "$folder" . -maxdepth 3 -name pwned -not -path './build/*')" ]
}

@test "LaTeX runs without shell escape, and the program has no call of a shell" {
    grep -q '"-no-shell-escape"' harness/report/report.c
    if git grep -nE '\b(system|popen|wordexp|execl?p?) ?\(' -- 'harness/*.c' 'model/*.c' 'kernels/*.c' '*.cc'; then return 1; fi
    if nm -D "$HINGE" | grep -wE 'U (system|popen|wordexp)'; then return 1; fi
}
