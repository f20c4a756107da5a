# bad_input: what is wrong gets one line that names the file, line, key or figure, an exit code, and nothing changes.
load helpers

setup_file() {
    export folder=$BATS_FILE_TMPDIR
    ln -s "$PWD/suites/presets" "$folder/presets"
    prepare_text "$folder"
}

# suite KEY VALUE...: a sound tiny suite at $folder/s.yaml in which the given keys have other values; "-" leaves it out.
suite() {
    local -A line=(
        [name]=s [question]="Does it matter?" [preset]=tiny [set]="{train.steps: 2}" [seeds]="[1, 2]" [baseline]=none
        [metric]=bpb.raw [test]="{kind: paired-t, alpha: 0.05, correction: holm}"
        [variants]="{none: {}, other: {train.ema: 0.5}}"
    )
    while [ $# -gt 1 ]; do
        line[$1]=$2
        shift 2
    done
    for key in name question preset set seeds baseline metric test variants; do
        [ "${line[$key]}" = - ] || echo "$key: ${line[$key]}"
    done >"$folder/s.yaml"
}

# refused TEXT: plan, run and run --dry-run refuse the suite with status 2, and no database appears.
refused() {
    for verb in "plan" "run" "run --dry-run"; do
        # shellcheck disable=SC2086
        fails 2 "$1" hinge $verb "$folder/s.yaml" --db "$folder/none.db" --data "$folder/data"
        [ ! -e "$folder/none.db" ] && [ ! -e "$folder/store" ]
    done
}

@test "a list of options takes no name" {
    fails 2 "list --options lists all of them" hinge list --options quant.bits
}

@test "the suite that the other tests bend is sound" {
    suite
    succeeds hinge plan "$folder/s.yaml" --db "$folder/none.db" --data "$folder/data"
    [ ! -e "$folder/none.db" ]
}

@test "a quoted line with many escapes is read, which libfyaml loses some memory over" {
    local quotes
    quotes=$(printf "''%.0s" $(seq 80))
    suite question "'it${quotes}s'"
    succeeds hinge plan "$folder/s.yaml" --db "$folder/none.db" --data "$folder/data"
}

@test "a misspelt option is refused with file, line and the nearest one" {
    suite set "{train.stps: 2}"
    refused "s.yaml:4:"
    [[ $stderr == *"train.stps"* && $stderr == *"train.steps"* ]]
    suite variants "{none: {}, other: {recurence.layers: [1]}}"
    refused "recurrence.layers"
}

@test "a misspelt key of the suite is refused with the nearest one" {
    suite
    echo "sedes: [1, 2]" >>"$folder/s.yaml"
    refused "seeds"
    [[ $stderr == *"s.yaml:10:1"* ]]
}

@test "a value of the wrong type is refused with key and place" {
    suite set "{train.steps: many}"
    refused "train.steps"
    [[ $stderr == *"s.yaml:4:"* && $stderr == *many* ]]
    suite seeds "[1, two]"
    refused "two"
}

@test "a value out of bounds is refused with the bounds" {
    suite set "{model.layers: 1000}"
    refused "model.layers"
    [[ $stderr == *1000* && $stderr == *256* ]]
    suite test "{kind: paired-t, alpha: 5, correction: holm}"
    refused "alpha"
}

@test "heads that do not divide are refused with both figures" {
    suite variants "{none: {}, other: {attention.heads: 5}}"
    refused "attention.heads = 5 does not divide"
    [[ $stderr == *other* ]]
}

@test "recurrence of a layer that does not exist is refused" {
    suite variants "{none: {}, other: {recurrence.layers: [77]}}"
    refused "recurrence.layers names layer 77"
}

@test "an empty suite, a missing file and a suite without variants are refused" {
    : >"$folder/s.yaml"
    refused "s.yaml"
    suite variants "{}"
    refused "variants"
    suite variants -
    refused "variants"
    fails 2 "$folder/absent.yaml: there is no such file" hinge plan "$folder/absent.yaml"
}

@test "a suite that is not UTF-8 is refused with its line" {
    suite
    { printf '# Gr\374n\n'; cat "$folder/s.yaml"; } >"$folder/latin.yaml"
    mv "$folder/latin.yaml" "$folder/s.yaml"
    refused "s.yaml:1:1: not UTF-8"
    # The YAML library alone would read these bytes for ever.
    cp "tests/fault/corpus/suite-directive-without-end.yaml" "$folder/s.yaml"
    refused "s.yaml:1:1: not UTF-8"
}

@test "a duplicate variant, seed or key is refused" {
    suite variants "{none: {}, other: {}, other: {}}"
    refused "other"
    suite seeds "[1, 2, 1]"
    refused "seeds"
    suite
    echo "metric: bpb.raw" >>"$folder/s.yaml"
    refused "metric"
}

@test "a missing baseline is refused with the nearest variant" {
    suite baseline non
    refused "none"
    [[ $stderr == *"s.yaml:6:"* ]]
    suite baseline -
    refused "baseline"
}

@test "an unknown metric, test or preset is refused" {
    suite metric bpb.rw
    refused "bpb.raw"
    suite test "{kind: paired-q, alpha: 0.05, correction: holm}"
    refused "paired-t"
    suite preset tinny
    refused "tinny"
}

@test "one seed for a test that needs two is refused" {
    suite seeds "[1]"
    refused "seed"
    [[ $stderr == *"s.yaml:5:"* ]]
}

@test "--set refuses what a suite refuses" {
    suite
    local files=(--db "$folder/none.db" --data "$folder/data")
    fails 2 "train.steps" hinge plan "$folder/s.yaml" "${files[@]}" --set train.step=3
    fails 2 "train.steps" hinge plan "$folder/s.yaml" "${files[@]}" --set train.steps=0
    fails 2 "key=value" hinge plan "$folder/s.yaml" "${files[@]}" --set train.steps
    fails 2 "attention.heads" hinge plan "$folder/s.yaml" "${files[@]}" --set attention.heads=5
}

@test "an unknown scale or suite is refused with what there is" {
    fails 2 "tiny" hinge plan demo --scale tinny
    fails 2 "nearest is 'demo'" hinge plan dmo
}

@test "data that is not prepared is refused with the command that prepares it" {
    suite
    fails 3 "hinge data prepare" hinge run "$folder/s.yaml" --db "$folder/none.db" --data "$folder/nowhere"
    [ ! -e "$folder/none.db" ]
}

@test "a missing or damaged shard is refused by name, also when one bit changed" {
    suite
    cp -r "$folder/data" "$folder/broken"
    local shard
    shard=$(ls "$folder"/broken/gcide/*_train_000000.bin)
    chmod u+w "$shard"
    printf '\001' | dd of="$shard" bs=1 seek=5000 conv=notrunc status=none
    if cmp -s "$shard" "$folder/data/gcide/$(basename "$shard")"; then
        printf '\002' | dd of="$shard" bs=1 seek=5000 conv=notrunc status=none
    fi
    fails 3 "train_000000.bin" hinge run "$folder/s.yaml" --db "$folder/none.db" --data "$folder/broken"
    truncate -s 3000 "$shard"
    fails 3 "train_000000.bin" hinge run "$folder/s.yaml" --db "$folder/none.db" --data "$folder/broken"
    rm "$shard"
    fails 3 "train_000000.bin" hinge run "$folder/s.yaml" --db "$folder/none.db" --data "$folder/broken"
    [ ! -e "$folder/none.db" ]
    rm -rf "$folder/broken"
}

@test "a tokenizer of another size than the model's is refused with both figures" {
    suite set "{train.steps: 2, model.vocab_size: 2048}"
    refused "2048"
    [[ $stderr == *1024* ]]
}

@test "a results folder that cannot be written is refused and nothing is left" {
    local open_folder ordinary=()
    suite
    open_folder=$(mktemp -d) # the folders that bats makes are closed to others
    cp -r "$HINGE" "$folder/s.yaml" "$folder/data" "$(readlink "$folder/presets")" "$open_folder"
    mkdir "$open_folder/sealed"
    chmod -R a+rX,a-w "$open_folder"
    if [ "$(id -u)" -eq 0 ]; then # root may write everywhere
        ordinary=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    fi
    fails 4 "$open_folder/sealed" "${ordinary[@]}" "$open_folder/${HINGE##*/}" run "$open_folder/s.yaml" \
        --db "$open_folder/sealed/hinge.db" --data "$open_folder/data"
    [ -z "$(ls -A "$open_folder/sealed")" ]
    chmod -R u+w "$open_folder"
    rm -rf "$open_folder"
}

@test "a results folder that is a file, or on a file system without files, is refused" {
    suite
    echo text >"$folder/file"
    fails 4 "$folder/file" hinge run "$folder/s.yaml" --db "$folder/file/hinge.db" --data "$folder/data"
    [ "$(cat "$folder/file")" = text ]
    fails 4 "/proc/hinge" hinge run "$folder/s.yaml" --db /proc/hinge/hinge.db --data "$folder/data"
}

@test "a database of a newer schema or of another program, or a file that is none, is refused and left as it was" {
    suite
    sqlite3 "$folder/newer.db" "CREATE TABLE t(a); PRAGMA application_id = $((0x48696e67)); PRAGMA user_version = 99;"
    sqlite3 "$folder/foreign.db" "CREATE TABLE t(a)"
    head -c 20000 /dev/zero | tr '\0' 'x' >"$folder/noise.db"
    sha256sum "$folder"/{newer,foreign,noise}.db >"$folder/sums"
    for verb in "run $folder/s.yaml --data $folder/data" "status" "export runs"; do
        # shellcheck disable=SC2086
        fails 3 "99" hinge $verb --db "$folder/newer.db"
        # shellcheck disable=SC2086
        fails 3 "another program" hinge $verb --db "$folder/foreign.db"
        # shellcheck disable=SC2086
        fails 3 "noise.db" hinge $verb --db "$folder/noise.db"
    done
    sha256sum --quiet -c "$folder/sums"
}

@test "reading verbs on a database that does not exist say so and make none" {
    for verb in status "status demo" "show 1" "reproduce 1" "export runs" "compare demo" "report demo"; do
        # shellcheck disable=SC2086
        run --separate-stderr hinge $verb --db "$folder/absent.db"
        [ "$status" -ge 2 ] && [ "${#stderr_lines[@]}" -eq 1 ] && [[ $stderr == *absent.db* ]] || {
            echo "$verb: $status $stderr"
            return 1
        }
        [ ! -e "$folder/absent.db" ]
    done
}

@test "a run is its number" {
    fails 2 "not 'first'" hinge show first
    fails 2 "not '0'" hinge reproduce 0
}

@test "compare --csv names file and line of what is wrong" {
    printf 'variant,seed,value\na,1,2.0\na,2,x\n' >"$folder/v.csv"
    run --separate-stderr hinge compare --csv "$folder/v.csv" --baseline a
    [ "$status" -ne 0 ] && [[ $stderr == *"v.csv:3"* ]]
    printf 'variant,seed,value\na,1,2.0\nb,1,3.0\na,2,2.0\nb,2,3.5\n' >"$folder/v.csv"
    fails 2 "baseline 'c'" hinge compare --csv "$folder/v.csv" --baseline c
}
