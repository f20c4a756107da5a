#!/usr/bin/env bash
# helpers: what the fault tests share: a suite of a second, its hashes when nothing disturbs it, folders, figures.
#
# SEED sets the randomness of a file's tests (it is printed); KILLS, FUZZ_SECONDS and RUNS set their extent.

load ../cli/helpers
set -o pipefail

note() { echo "# $*" >&3; }

# scratch: a folder of its own, in memory where there is such a place: a test of kills is not one of the disk's speed.
scratch() {
    folder=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/hinge-fault-XXXXXX")
    export folder
}

# seeded: starts bash's random numbers, and says from which seed.
seeded() {
    SEED=${SEED:-$((RANDOM * 32768 + RANDOM))}
    RANDOM=$SEED
    note "seed $SEED"
}

# below N: a random number from 0 to N-1, in $random.
below() { random=$(((RANDOM * 32768 + RANDOM) % $1)); }

# little_suite NAME STEPS: two variants that share their trainings, two seeds, and the text that they learn from.
little_suite() {
    [ -e "$folder/data" ] || prepare_text "$folder"
    ln -sfn "$PWD/suites/presets" "$folder/presets"
    cat >"$folder/$1.yaml" <<YAML
name: $1
question: Does what happens to the machine change anything?
preset: tiny
set:
  {model.dim: 16, model.layers: 2, attention.layers: [1], mamba.state: 8, model.bigram_buckets: 64, model.bigram_dim: 8,
   train.steps: $2, train.warmdown: 3, train.batch_tokens: 128, train.sequence: 16, train.slice_tokens: 16,
   quant.calibration_sequences: 2, eval.tokens: 256}
seeds: [1, 2]
baseline: none
metric: bpb.artifact
variants:
  none: {}
  int8: {quant.strategy: int8-rowwise}
YAML
}

# on DATABASE SUITE FLAGS...: the arguments of a run with a checkpoint after every step, in $arguments.
on() { arguments=(run "$folder/$2.yaml" --db "$1" --data "$folder/data" --checkpoint 0.001 "${@:3}"); }

# undisturbed SUITE: runs it alone; what came out stays in $folder/expected.
undisturbed() {
    local arguments
    on "$folder/undisturbed/hinge.db" "$1"
    hinge "${arguments[@]}" >"$folder/undisturbed.log" 2>&1 || {
        cat "$folder/undisturbed.log"
        return 1
    }
    hashes "$folder/undisturbed/hinge.db" >"$folder/expected"
    [ "$(wc -l <"$folder/expected")" -ge 4 ]
}

as_undisturbed() { hashes "$1" | diff - "$folder/expected"; }

sound() { [ "$(sqlite3 "$1" 'PRAGMA integrity_check' 2>&1)" = ok ]; }

# done_stages DATABASE: a line for each finished stage, which names it, who did it and when; none before there are tables.
done_stages() {
    { sqlite3 "$1" "SELECT id, key, worker, finished, seconds FROM stages WHERE status = 'done'" 2>/dev/null || true; } |
        LC_ALL=C sort
}

# no_leftovers FOLDER: nothing begun lies there, neither temporary files nor checkpoints.
no_leftovers() {
    local left
    left=$(find "$1" -name '*.tmp' -o -name checkpoint -o -name '.*.??????')
    [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# stop_in DATABASE FILE N: a run that is killed at its Nth call that changes a file of that name.
stop_in() {
    local arguments code=0
    make --no-print-directory -s build/tests/fault/kill_at.so
    on "$1" little
    HINGE_KILL_AT=$3 HINGE_KILL_FILE=$2 LD_PRELOAD=$PWD/build/tests/fault/kill_at.so \
        bash -c 'exec "$@" 3>&-' - "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1 || code=$?
    [ $code -eq 137 ]
}

# stop_in_training DATABASE: one checkpoint is whole, the second half-written.
stop_in_training() { stop_in "$1" checkpoint 14 && [ -n "$(find "$(dirname "$1")" -name checkpoint)" ]; }

# --- quotas: a btrfs on a file, at $folder/disk; what they hold for lies in $folder/disk/own -----------------------------

# quota_disk: to be called in a mount namespace of its own, with whose end the disk goes, however that comes.
quota_disk() {
    truncate -s 256M "$folder/btrfs"
    mkfs.btrfs -qf "$folder/btrfs" >/dev/null
    mount -o loop "$folder/btrfs" "$folder/disk"
    btrfs -q quota enable "$folder/disk"
    fresh_volume
}

fresh_volume() {
    [ ! -e "$folder/disk/own" ] || btrfs -q subvolume delete -c "$folder/disk/own"
    btrfs -q subvolume create "$folder/disk/own"
    volume=0/$(btrfs inspect-internal rootid "$folder/disk/own")
}

# quota KILOBYTES|none: asked of the whole disk; of the volume, that would itself be subject to the quota.
quota() { btrfs qgroup limit "${1/%[0-9]/&k}" "$volume" "$folder/disk"; }

# taken: the kilobytes that count against the quota, once all is on the disk.
taken() {
    sync -f "$folder/disk"
    btrfs qgroup show --raw "$folder/disk" | awk -v volume="$volume" '$1 == volume {print int($2 / 1024)}'
}

# quotas_or_skip: whether there can be such a disk here.
quotas_or_skip() {
    local said
    command -v mkfs.btrfs >/dev/null || skip "no mkfs.btrfs (Debian package btrfs-progs) to make a disk with quotas"
    [ "$(id -u)" -eq 0 ] || skip "not root: a file cannot be mounted as a disk with quotas"
    export -f quota_disk fresh_volume quota taken
    said=$(unshare -m bash -c 'set -euo pipefail; quota_disk; quota 1000; quota none' 2>&1) ||
        skip "no disk with quotas can be mounted here: $(tail -n 1 <<<"$said")"
}
