# fuzz: libFuzzer on everything that reads a file from a stranger; FUZZ_SECONDS for each target, two at a time.
load helpers

setup_file() {
    scratch
    make --no-print-directory -s -j"${JOBS:-$(nproc)}" FUZZ=1 fuzzers
    export fuzz_seconds=${FUZZ_SECONDS:-20}
}

teardown_file() { rm -rf "$folder"; }

# What reads suites uses OpenMP's library and SentencePiece's, whose start is nobody's leak; leaks of inputs are found.
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 OMP_NUM_THREADS=1

fuzz_one() { # target, its seed
    local program=build/fuzz/tests/fault/fuzz_$1 corpus=$folder/$1
    mkdir -p "$corpus"
    HINGE_FUZZ_SEEDS=$corpus "$program" >"$corpus.log" 2>&1 || return 1
    for file in tests/fault/corpus/"$1"-*; do [ ! -e "$file" ] || cp "$file" "$corpus"; done
    "$program" -max_total_time="$fuzz_seconds" -seed="$2" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
        -max_len=65536 -print_final_stats=1 -artifact_prefix="$corpus-" "$corpus" >"$corpus.log" 2>&1
}

@test "suites, artifacts, safetensors, shards, checkpoints and CSV: no crash, no leak, no memory beyond the declared" {
    seeded
    local target targets=(suite artifact safetensors shards checkpoint csv)
    export -f fuzz_one
    printf '%s\n' "${targets[@]}" | xargs -P "${JOBS:-2}" -I '{}' bash -c 'fuzz_one "$1" "$2" || touch "$folder/$1.failed"' - '{}' "$SEED"
    for target in "${targets[@]}"; do
        note "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$target.log") inputs in $fuzz_seconds s, $(ls "$folder/$target" | wc -l) kept"
        [ ! -e "$folder/$target.failed" ] || {
            tail -n 40 "$folder/$target.log"
            for file in "$folder/$target"-*; do [ -e "$file" ] && echo "$file:" && base64 "$file"; done
        }
    done
    [ -z "$(ls "$folder"/*.failed 2>/dev/null)" ]
}

@test "the memory that a target may hold is a bound that can fail" {
    printf 'x' >"$folder/one"
    run env HINGE_FUZZ_SPARE=16 build/fuzz/tests/fault/fuzz_csv "$folder/one"
    [ "$status" -ne 0 ]
    [[ $output == *"bytes of memory at once; declared are 16 +"* ]]
}
