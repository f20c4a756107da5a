# rot: one flipped bit in any file that results rest on is found, and the file named, before it changes a result.
load helpers

setup_file() {
    scratch
    little_suite little 6
    undisturbed little
}

teardown_file() { rm -rf "$folder"; }

# flip FILE PLACE: a bit of the byte at that place, given in thousandths of the file.
flip() {
    python3 - "$@" "$RANDOM" <<'PYTHON'
import os, sys
path, place, bit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) % 8
at = min(os.path.getsize(path) * place // 1000, os.path.getsize(path) - 1)
with open(path, "r+b") as file:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1 << bit]))
PYTHON
}

# Ends, the header's first bytes, and the body.
places() {
    places=(0 1 999 1000)
    for _ in $(seq "${1:-4}"); do
        below 1000
        places+=("$random")
    done
}

run_suite() {
    local arguments
    on "$1" little
    "$HINGE" "${arguments[@]}" >"$folder/log" 2>&1
}

@test "a shard or the tokenizer with a flipped bit is refused and named" {
    seeded
    local found=0 file place
    cp -r "$folder/data" "$folder/sound"
    for file in gcide_train_000000.bin gcide_val_000000.bin tokenizer.model; do
        places 4
        for place in "${places[@]}"; do
            flip "$folder/data/gcide/$file" "$place"
            fails 3 "$file" hinge run "$folder/little.yaml" --db "$folder/none/hinge.db" --data "$folder/data"
            [ ! -e "$folder/none" ]
            cp "$folder/sound/gcide/$file" "$folder/data/gcide/$file"
            found=$((found + 1))
        done
    done
    note "$found flipped bits in shards and tokenizer, $found found"
}

@test "weights and artifacts with a flipped bit are found, named and made again" {
    seeded
    local flips=0 name stage place file
    for name in weights.safetensors averaged.safetensors artifact.xz; do
        # What reads the file is to be done once more: the stages behind it.
        case $name in
            weights.*) stage="kind = 'evaluate' AND parent IN (SELECT id FROM stages WHERE kind = 'train')" ;;
            averaged.*) stage="kind = 'quantise'" ;;
            artifact.*) stage="kind = 'evaluate' AND parent IN (SELECT id FROM stages WHERE kind = 'quantise')" ;;
        esac
        places 3
        for place in "${places[@]}"; do
            rm -rf "$folder/rot"
            cp -r "$folder/undisturbed" "$folder/rot"
            file=$(find "$folder/rot" -name "$name" | sort | head -n 1)
            flip "$file" "$place"
            sqlite3 "$folder/rot/hinge.db" "UPDATE stages SET status = 'pending' WHERE $stage"
            run_suite "$folder/rot/hinge.db"
            grep -q "$name.*made again" "$folder/log" || { echo "$name at $place"; cat "$folder/log"; return 1; }
            as_undisturbed "$folder/rot/hinge.db"
            flips=$((flips + 1))
        done
    done
    note "$flips flipped bits in stored weights and artifacts, $flips found"
}

@test "a checkpoint with a flipped bit is found and named, and the training starts again" {
    seeded
    local flips=0 place
    stop_in_training "$folder/stopped/hinge.db"
    places 3
    for place in "${places[@]}"; do
        rm -rf "$folder/rot"
        cp -r "$folder/stopped" "$folder/rot"
        flip "$(find "$folder/rot" -name checkpoint)" "$place"
        run_suite "$folder/rot/hinge.db"
        grep -q "/checkpoint: .*starts again" "$folder/log" || { cat "$folder/log"; return 1; }
        as_undisturbed "$folder/rot/hinge.db"
        flips=$((flips + 1))
    done
    note "$flips flipped bits in checkpoints, $flips found"
}

@test "a damaged database is refused and named" {
    cp -r "$folder/undisturbed" "$folder/rot2"
    sqlite3 "$folder/rot2/hinge.db" 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
    flip "$folder/rot2/hinge.db" 0
    fails 3 "hinge.db" hinge status --db "$folder/rot2/hinge.db"
}
