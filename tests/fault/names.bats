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

# fits_the_page FOLDER: LaTeX found no line more than 2 pt too wide, and every character in its fonts.
fits_the_page() {
    grep -q "Output written" "$1/document.log"
    if grep -q "Missing character" "$1/document.log"; then return 1; fi
    awk -F'[(p]' '/^Overfull .hbox/ && $2 + 0 > 2 { print; wide = 1 } END { exit wide }' "$1/document.log"
}

# inside_the_page PDF: no word of it stands to the left or right of the paper.
inside_the_page() {
    pdftotext -bbox "$1" - | awk -F'"' '/<page/ { width = $2 } /<word/ && ($2 < 0 || $6 > width) { print; out = 1 } END { exit out }'
}

# apart PDF: no two words of a line cover each other.
apart() {
    pdftotext -bbox "$1" - | awk -F'"' '/<word/ { for (i = 0; i < n; i++)
        if ($4 == top[i] && $2 < right[i] - 1 && $6 > left[i] + 1) { print words[i], $0; over = 1 }
        left[n] = $2; top[n] = $4; right[n] = $6; words[n++] = $0 } END { exit over }'
}

@test "long names of Cyrillic, CJK and wide letters are shortened to what there is room for, in figures and tables" {
    local long figure
    long=$(printf 'я%.0s' $(seq 200)) # a name has 511 bytes at most
    ln -sfn "$PWD/suites/presets" "$folder/presets"
    cat >"$folder/letters.yaml" <<YAML
name: '漢字 Модель "quote" \$(touch pwned) \\input{/etc/passwd} $long'
question: 'Что с «кавычками» и 漢字?'
preset: tiny
set: {run.backend: simulated}
seeds: [1, 2, 3]
baseline: '漢字の名前はとても長くて幅が広い'
metric: bpb.raw
variants:
  '漢字の名前はとても長くて幅が広い': {}
  'Модель с длинным русским именем': {simulated.effect: 0.01}
  '$long': {simulated.effect: 0.02}
  'WWWWWWWWMMMMMMMM@@@@%%%%WWWWWWWW': {simulated.effect: 0.03}
  'ABCDEFGHIJKLNOPQRSTUVXYZABCDEFGH': {simulated.effect: 0.04}
  'a name of two dozen letters': {simulated.effect: 0.05}
  'größer als 漢 &\\input{x}': {simulated.effect: 0.06}
YAML
    hinge run "$folder/letters.yaml" --db "$folder/letters.db" >"$folder/log" 2>&1
    succeeds hinge report "$folder/letters.yaml" --db "$folder/letters.db" -o "$folder/letters"
    pdftotext "$folder"/letters/*.pdf - | tr -d '\n ' >"$folder/text"
    grep -qF '[U+6F22][U+5B57][U+041C]' "$folder/text"
    grep -qF '$(touchpwned)\input{/etc/passwd}' "$folder/text"
    grep -qF 'größerals[U+6F22]&\input{x}' "$folder/text"
    fits_the_page "$folder"/letters/*/
    inside_the_page "$folder"/letters/*.pdf
    for figure in differences slopes curves stages front; do
        inside_the_page "$folder"/letters/*/$figure.pdf
        apart "$folder"/letters/*/$figure.pdf
        pdftotext "$folder"/letters/*/$figure.pdf - | tr -d '\n ' | grep -qF '[U+041C][U+043E]…'
    done
    [ -z "$(find "$folder" . -maxdepth 3 -name pwned -not -path './build/*')" ]
}

@test "LaTeX runs without shell escape, and the program has no call of a shell" {
    grep -q '"-no-shell-escape"' harness/report/report.c
    if git grep -nE '\b(system|popen|wordexp|execl?p?) ?\(' -- 'harness/*.c' 'model/*.c' 'kernels/*.c' '*.cc'; then return 1; fi
    if nm -D "$HINGE" | grep -wE 'U (system|popen|wordexp)'; then return 1; fi
}
