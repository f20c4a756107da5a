# reports: what a report is told to have failed of, and what it leaves, where the machine refuses.
load helpers

setup_file() {
    scratch
    drawn_suite
    mkdir "$folder/disk"
}

teardown_file() { rm -rf "$folder"; }

# drawn_suite: two variants whose figures are drawn, in $folder/h.db.
drawn_suite() {
    ln -sfn "$PWD/suites/presets" "$folder/presets"
    cat >"$folder/drawn.yaml" <<YAML
name: drawn
question: Does the report say what it lacked?
preset: tiny
set: {run.backend: simulated}
seeds: [1, 2, 3]
baseline: none
metric: bpb.raw
variants:
  none: {}
  other: {simulated.effect: 0.01}
YAML
    hinge run "$folder/drawn.yaml" --db "$folder/h.db" >"$folder/log" 2>&1
}

# report FOLDER: with no more than $files file handles, of which the program is left none by its parents.
report() {
    bash -c 'for ((at = 3; at < 64; at++)); do eval "exec $at>&-"; done; ulimit -Sn "$1"; exec "${@:2}"' - "${files:-256}" \
        "$HINGE" report "$folder/drawn.yaml" --db "$folder/h.db" -o "$1"
}

# refused FOLDER REASON: the report fails with status 4 and that reason, and what was made is kept.
refused() {
    local code=0
    report "$1" >"$folder/log" 2>&1 || code=$?
    if [ $code -ne 4 ] || ! tail -n 1 "$folder/log" | grep -Eq "$2" || [ ! -d "$1/drawn.failed" ]; then
        echo "status $code: $(cat "$folder/log")"
        return 1
    fi
}

on_full_disks() {
    local size
    mount -t tmpfs -o size=10m tmpfs "$folder/disk"
    for size in 100 200 350 500 700 900; do
        mount -o "remount,size=${size}k" tmpfs "$folder/disk"
        refused "$folder/disk/out" 'No space left on device; make room and repeat$'
    done
    mount -o remount,size=10m tmpfs "$folder/disk"
    report "$folder/disk/out"
    [ "$(ls -A "$folder/disk/out")" = $'drawn\ndrawn.pdf' ]
}

@test "a report on a full disk says so, and the next with more room leaves nothing of it" {
    export HINGE
    local flags=-m
    [ "$(id -u)" -eq 0 ] || flags=-rm
    unshare $flags true 2>/dev/null || skip "neither root nor a user namespace: nothing can be mounted here"
    export -f on_full_disks refused report
    unshare $flags bash -c 'set -euo pipefail; on_full_disks' 3>&3
}

# What cannot even be renamed to drawn.failed is taken away.
under_quotas() {
    local size code before
    quota_disk
    for size in 60 150 300 600 900 1300; do
        quota $size
        code=0
        report "$folder/disk/own/out" >"$folder/log" 2>&1 || code=$?
        if [ $code -ne 4 ] || ! tail -n 1 "$folder/log" | grep -q "$folder/disk/own/out.*: Disk quota exceeded; .* and repeat$"; then
            echo "quota $size, status $code: $(cat "$folder/log")"
            return 1
        fi
        [ -z "$(ls -A "$folder/disk/own/out" 2>/dev/null | grep -v '^drawn\.failed$')" ]
    done
    quota none
    report "$folder/disk/own/out"
    before=$(find "$folder/disk/own/out" -type f -exec sha256sum {} + | sort)
    quota $(($(taken) + 300))
    if report "$folder/disk/own/out" >"$folder/log" 2>&1; then return 1; fi
    tail -n 1 "$folder/log" | grep -q "Disk quota exceeded"
    [ "$(find "$folder/disk/own/out" -type f ! -path '*/drawn.failed/*' -exec sha256sum {} + | sort)" = "$before" ]
    quota none
    report "$folder/disk/own/out"
    [ "$(ls -A "$folder/disk/own/out")" = $'drawn\ndrawn.pdf' ]
    umount "$folder/disk"
}

@test "a report under a quota says so, the earlier one stays, and the next with more room leaves nothing of it" {
    quotas_or_skip
    export HINGE
    export -f under_quotas report
    unshare -m bash -c 'set -euo pipefail; under_quotas' 3>&3
}

@test "a report with few file handles says so, and the next with more leaves nothing of it" {
    local files
    for files in 6 7 8 10 12; do
        refused "$folder/few" "no more than $files files may be open at once .ulimit -n.$"
    done
    unset files
    grep -q "pdflatex: .*: Too many open files" "$folder/log"
    report "$folder/few"
    [ "$(ls -A "$folder/few")" = $'drawn\ndrawn.pdf' ]
}

@test "a report that cannot put its PDF in place leaves the earlier folder as it was" {
    report "$folder/blocked"
    rm "$folder/blocked/drawn.pdf"
    mkdir -p "$folder/blocked/drawn.pdf/in the way"
    touch "$folder/blocked/drawn/earlier"
    refused "$folder/blocked" "drawn.pdf: cannot be put in place"
    [ -e "$folder/blocked/drawn/earlier" ]
    [ -e "$folder/blocked/drawn.failed/document.pdf" ]
}
