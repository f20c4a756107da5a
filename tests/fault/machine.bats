# machine: a full disk, a quota, a read-only folder, limits on file size, file handles and memory: told with the file and
# the figure, nothing lost, and the same command goes on to the same result.
load helpers

setup_file() {
    scratch
    little_suite little 12
    undisturbed little
    mkdir "$folder/disk"
}

teardown_file() { rm -rf "$folder"; }

# own_mounts FUNCTION ARGUMENTS...: the function in a mount namespace of its own, as root or as root of a user namespace.
own_mounts() {
    local flags=-m
    [ "$(id -u)" -eq 0 ] || flags=-rm
    unshare $flags true 2>/dev/null || skip "neither root nor a user namespace: nothing can be mounted here"
    export HINGE
    unshare $flags bash -c 'set -euo pipefail; "$@"' - "$@" 3>&3
}

# remount OPTIONS: with its source, lest mount repeat the old options, of which a user namespace refuses the ids.
remount() { mount -o "remount,$1" tmpfs "$folder/disk"; }

# attempt DATABASE [LETTER VALUE]: runs the suite, with $flags, under a ulimit, maybe in vain: then with status 4 and a last
# line that names a file or a figure (or matches $tells).
attempt() {
    local arguments code=0
    on "$1" little ${flags:-}
    bash -c '[ -z "$1" ] || ulimit -S"$1" "$2"; shift 2; exec "$@"' - "${2:-}" "${3:-}" "$HINGE" "${arguments[@]}" 2>&1 3>&- |
        cat >"$folder/log" || code=$?
    [ $code -eq 0 ] && return 0
    if [ $code -ne 4 ] || ! tail -n 1 "$folder/log" | grep -Eq "^hinge: .*${tells:-(/|MB)}.*"; then
        cat "$folder/log"
        return 1
    fi
    refusals=$((refusals + 1))
    tail -n 1 "$folder/log" | sed -E 's|store/.*/|store/.../|; s|[0-9]{3,}|N|g' >>"$folder/reasons"
}

# finish DATABASE: nothing stands in the way any more.
finish() {
    local arguments
    on "$1" little
    hinge "${arguments[@]}" >"$folder/log" 2>&1 || { cat "$folder/log"; return 1; }
    if grep -E "again|damaged" "$folder/log"; then return 1; fi
    as_undisturbed "$1"
    sound "$1"
    no_leftovers "$(dirname "$1")"
}

reasons() { sort -u "$folder/reasons" | cut -c 1-150; }

fill_disks() { # kilobytes of the disks...
    local size refusals=0 tried=0
    : >"$folder/reasons"
    for size in "$@"; do
        mount -t tmpfs -o "size=${size}k" tmpfs "$folder/disk"
        tried=$((tried + 1))
        attempt "$folder/disk/hinge.db"
        remount size=64m
        finish "$folder/disk/hinge.db"
        umount "$folder/disk"
    done
    echo "# $tried small disks, $refusals full before the end" >&3
    reasons
    [ $refusals -ge $((tried / 2)) ]
}

@test "a full disk: told, and with more room the same command goes on" {
    seeded
    local sizes=(64) used
    used=$(du -sk "$folder/undisturbed" | cut -f 1)
    for _ in 1 2 3 4 5 6 7; do
        below "$used"
        sizes+=($((100 + random)))
    done
    export -f fill_disks remount attempt finish reasons on hinge hashes as_undisturbed sound no_leftovers
    own_mounts fill_disks "${sizes[@]}"
}

keep_checkpoint() { # a training stopped in the middle, then no room for its next checkpoint
    local checkpoint before refusals=0
    mount -t tmpfs -o size=64m tmpfs "$folder/disk"
    stop_in_training "$folder/disk/hinge.db"
    checkpoint=$(find "$folder/disk" -name checkpoint)
    before=$(sha256sum "$checkpoint")
    sqlite3 "$folder/disk/hinge.db" 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
    rm -f "$checkpoint.tmp"
    dd if=/dev/zero of="$folder/disk/ballast" bs=1k count=$(($(df -k --output=avail "$folder/disk" | tail -n 1) - $(stat -c %s "$checkpoint") / 1024 / 2 - 100)) 2>/dev/null
    attempt "$folder/disk/hinge.db"
    [ $refusals -eq 1 ]
    [ "$(sha256sum "$checkpoint")" = "$before" ]
    echo "# $(tail -n 1 "$folder/reasons")" >&3
    rm "$folder/disk/ballast"
    finish "$folder/disk/hinge.db"
    umount "$folder/disk"
}

@test "the checkpoint that is being replaced stays as it was when there is no room for the next" {
    export -f keep_checkpoint stop_in stop_in_training attempt finish on hinge hashes as_undisturbed sound no_leftovers
    own_mounts keep_checkpoint
    grep -q "writing stopped after .*the file that was there before is whole" "$folder/reasons"
}

# as_far_as_it_came: what lies on the disk is as in the undisturbed run, but for checkpoints and what was being written.
# The database is asked in a copy, since even to read takes room.
as_far_as_it_came() {
    local file
    while read -r file; do
        cmp "$folder/disk/own/$file" "$folder/undisturbed/$file"
    done < <(cd "$folder/disk/own" && find . -path './store/*' -type f ! -name checkpoint ! -name '*.tmp')
    rm -f "$folder"/copy.db*
    [ ! -e "$folder/disk/own/hinge.db" ] || cp "$folder/disk/own/hinge.db" "$folder/copy.db"
    [ ! -e "$folder/disk/own/hinge.db-wal" ] || cp "$folder/disk/own/hinge.db-wal" "$folder/copy.db-wal"
    sound "$folder/copy.db"
}

under_quotas() { # kilobytes of the quotas...
    local size refusals=0 tried=0 tells='/.*quota.* and repeat'
    : >"$folder/reasons"
    quota_disk
    for size in "$@"; do
        fresh_volume
        tried=$((tried + 1))
        quota "$size"
        attempt "$folder/disk/own/hinge.db"
        as_far_as_it_came
        quota none
        finish "$folder/disk/own/hinge.db"
    done
    umount "$folder/disk"
    echo "# $tried quotas, $refusals used up before the end" >&3
    reasons
    [ $refusals -ge $((tried / 2)) ]
}

# The first three are used up by the database: its file, its tables, and the -shm file, whose pages are not written but
# mapped.
@test "a quota: told, and with a higher one the same command goes on" {
    seeded
    quotas_or_skip
    local sizes=(60 140 220)
    for _ in 1 2 3; do
        below 1600
        sizes+=($((300 + random)))
    done
    export -f under_quotas as_far_as_it_came attempt finish reasons on hinge hashes as_undisturbed sound no_leftovers
    own_mounts under_quotas "${sizes[@]}"
    grep -q "hinge.db: .*Disk quota exceeded" "$folder/reasons"
    grep -q "checkpoint: .*Disk quota exceeded" "$folder/reasons"
}

# used_up_by FILE N KILOBYTES...: a run that is stopped at its Nth call on that file goes on with as much of the quota left.
used_up_by() {
    local file=$1 number=$2 left refusals checkpoint before tells='/.*quota.* and repeat'
    : >"$folder/reasons"
    for left in "${@:3}"; do
        refusals=0
        fresh_volume
        stop_in "$folder/disk/own/hinge.db" "$file" "$number"
        sqlite3 "$folder/disk/own/hinge.db" 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
        find "$folder/disk/own" -name '*.tmp' -delete
        checkpoint=$(find "$folder/disk/own" -name checkpoint)
        before=$([ -z "$checkpoint" ] || sha256sum "$checkpoint")
        quota $(($(taken) + left))
        attempt "$folder/disk/own/hinge.db"
        [ $refusals -eq 1 ]
        as_far_as_it_came
        [ -z "$before" ] || [ "$(sha256sum "$checkpoint")" = "$before" ]
        quota none
        finish "$folder/disk/own/hinge.db"
    done
    reasons
    grep -q "/$file[^/]*: .*Disk quota exceeded; .*the file that was there before is whole" "$folder/reasons"
}

each_used_up() {
    quota_disk
    used_up_by checkpoint 14 250 400
    used_up_by artifact 1 120 200
    umount "$folder/disk"
}

@test "a quota that has no room for the next checkpoint or artifact: the old checkpoint stays as it was" {
    quotas_or_skip
    export -f each_used_up used_up_by as_far_as_it_came stop_in attempt finish reasons on hinge hashes as_undisturbed sound no_leftovers
    own_mounts each_used_up
}

read_only() {
    local refusals=0 before
    mount -t tmpfs -o size=64m tmpfs "$folder/disk"
    stop_in "$folder/disk/hinge.db" artifact 2
    hinge status --db "$folder/disk/hinge.db" >/dev/null # leaves no write-ahead log open
    before=$(find "$folder/disk" -type f -exec sha256sum {} + | sort)
    remount ro,size=64m
    attempt "$folder/disk/hinge.db"
    [ $refusals -eq 1 ]
    hinge status little --db "$folder/disk/hinge.db" >/dev/null
    [ "$(find "$folder/disk" -type f -exec sha256sum {} + | sort)" = "$before" ]
    remount rw,size=64m
    finish "$folder/disk/hinge.db"
    umount "$folder/disk"
    reasons
}

@test "a read-only folder: refused, still readable, unchanged; writable again it goes on" {
    export -f read_only remount stop_in attempt finish reasons on hinge hashes as_undisturbed sound no_leftovers
    own_mounts read_only
}

# under_limits LETTER VALUES...: one attempt on the same database under each value of ulimit, then none.
under_limits() {
    local letter=$1 value
    refusals=0
    shift
    : >"$folder/reasons"
    for value in "$@"; do
        rm -rf "$folder/limits"
        attempt "$folder/limits/hinge.db" "$letter" "$value"
        finish "$folder/limits/hinge.db"
    done
    note "ulimit -$letter $*: $refusals of $# refused"
    reasons
}

@test "a limit on the size of files" {
    under_limits f 0 8 20 40 80 120 160 200
    [ "$refusals" -ge 4 ]
    grep -q "File too large" "$folder/reasons"
}

@test "a limit on open files" {
    under_limits n 7 8 9 10 11
    grep -q "Too many open files" "$folder/reasons"
}

@test "a limit on memory" {
    under_limits v 250000 200000 300000 400000 500000 600000
    grep -q "address space" "$folder/reasons"
    sed 's/^name: little/name: large/; s/model.dim: 16/model.dim: 4096/; s/train.batch_tokens: 128/train.batch_tokens: 4096/; s/train.sequence: 16/train.sequence: 64/; s/train.slice_tokens: 16/train.slice_tokens: 64/' \
        "$folder/little.yaml" >"$folder/large.yaml"
    fails_by_memory() { (ulimit -Sv 900000 && exec "$HINGE" run "$folder/large.yaml" --db "$folder/large/hinge.db" --data "$folder/data"); }
    OMP_NUM_THREADS=1 run --separate-stderr fails_by_memory
    [ "$status" -eq 4 ] || { echo "status $status: $stderr"; return 1; }
    [[ $stderr == *" MB of memory"* ]] || { echo "$stderr"; return 1; }
    note "$(tail -n 1 <<<"$stderr")"
}

# Which allocation is refused is drawn; a run that can do without goes on.
@test "an allocation that is refused in the middle of a run" {
    seeded
    local arguments all refusals=0 tells=memory flags="--device cpu"
    make --no-print-directory -s build/tests/fault/refuse_memory.so
    refusing() { HINGE_REFUSE_AT=$1 HINGE_REFUSE_LOG=$folder/refused LD_PRELOAD=$PWD/build/tests/fault/refuse_memory.so "${@:2}"; }
    on "$folder/refused-none/hinge.db" little --device cpu
    refusing 1000000000 "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1
    all=$(sed -n 's/^end //p' "$folder/refused" | sort -n | tail -n 1)
    [ "$all" -gt 300 ]
    : >"$folder/reasons"
    for turn in $(seq "$((${KILLS:-200} / 10))"); do
        below "$all"
        export HINGE_REFUSE_AT=$((random + 1))
        rm -rf "$folder/refused" "$folder/refusing"
        HINGE_REFUSE_LOG=$folder/refused LD_PRELOAD=$PWD/build/tests/fault/refuse_memory.so \
            attempt "$folder/refusing/hinge.db"
        unset HINGE_REFUSE_AT
        finish "$folder/refusing/hinge.db"
    done
    note "$((${KILLS:-200} / 10)) runs of $all allocations, one of them refused: $refusals ended, the others did without it"
    reasons
}
