#!/usr/bin/env bash
# helpers: what the command-line tests share. HINGE is the program under test; every file works in its own folder.

bats_require_minimum_version 1.5.0

HINGE=${HINGE:-build/hinge}
case $HINGE in /*) ;; *) HINGE=$PWD/$HINGE ;; esac
export NO_COLOR=1

hinge() { "$HINGE" "$@"; }

# fails CODE TEXT COMMAND...: the command ends with CODE, says one line on stderr that starts with "hinge: " and
# contains TEXT.
fails() {
    local code=$1 text=$2
    shift 2
    run --separate-stderr "$@"
    [ "$status" -eq "$code" ] || { echo "exit status $status, expected $code; stderr: $stderr"; return 1; }
    [ "${#stderr_lines[@]}" -eq 1 ] || { echo "expected one line on stderr: $stderr"; return 1; }
    [[ $stderr == "hinge: "* ]] || { echo "no 'hinge: ' before: $stderr"; return 1; }
    [[ $stderr == *"$text"* ]] || { echo "expected '$text' in: $stderr"; return 1; }
}

# succeeds COMMAND...: exit status 0; what it printed stays in $output.
succeeds() {
    run --separate-stderr "$@"
    [ "$status" -eq 0 ] || { echo "exit status $status: $stderr $output"; return 1; }
}

# said TEXT: the output holds it, whatever lines it was broken into.
said() { [[ ${output//$'\n'/ } == *"$1"* ]]; }

is_json() { python3 -m json.tool >/dev/null; }

# json EXPRESSION: value of a Python expression over d, the JSON on standard input.
json() { python3 -c 'import json, sys; d = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

# some_text: 240 kB of sentences over 700 words, the same every time, documents between blank lines.
some_text() {
    awk 'function next_number() { seed = (seed * 16807) % 2147483647; return seed }
         function word(number,   text, i) {
             text = ""
             for (i = 0; i < 2 + number % 3; i++) {
                 text = text substr("badefigohukalemonirupasetivowuzy", 1 + 2 * (number % 16), 2)
                 number = int(number / 5) + 7 * i + 3
             }
             return text
         }
         BEGIN {
             seed = 20240520
             for (document = 0; document < 800; document++) {
                 for (i = 0; i < 45; i++) printf "%s%s", word(int(700 * (next_number() / 2147483647) ^ 2)), i % 9 == 8 ? ".\n" : " "
                 printf "\n"
             }
         }'
}

# prepare_text FOLDER: a small dataset under the default name, as tests of suites need one.
prepare_text() {
    some_text >"$1/text.txt"
    hinge data prepare --text "$1/text.txt" --name gcide --data "$1/data" >"$1/prepare.log" 2>&1 || {
        cat "$1/prepare.log"
        return 1
    }
}

# peak COMMAND...: runs it and prints the most bytes of memory that it, or a process that it waited for, ever held.
peak() {
    python3 -c 'import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss * 1024 if status == 0 else "it failed")' "$@"
}

# hashes DATABASE: variant, seed and what each of its stages made.
hashes() {
    hinge export runs --format json --db "$1" | python3 -c '
import json, sys
for r in sorted(json.load(sys.stdin), key=lambda r: (r["variant"], r["seed"])):
    assert r["status"] == "done", r
    print(r["variant"], r["seed"], r["weights_sha256"], r["trace_sha256"], r["artifact_sha256"],
          r["bpb_raw"], r["bpb_averaged"], r["bpb_artifact"])'
}
