# device: where a suite runs, what it then needs, and that a choice which cannot be had is refused. HINGE may be a build
# with CUDA, whose device works (the emulator's) or not.
load helpers

setup_file() {
    export shared=$BATS_FILE_TMPDIR
    prepare_text "$shared"
}

setup() {
    folder=$BATS_TEST_TMPDIR
    db="$folder/hinge.db"
    cp -r suites/presets "$folder/"
    cat >"$folder/little.yaml" <<'YAML'
# little: the smallest training that goes through every stage.
name: little
question: Does it run here?
preset: tiny
set: {train.steps: 2, train.warmdown: 1, eval.tokens: 64, quant.calibration_sequences: 1, recurrence.start: 0,
      train.batch_tokens: 128, train.sequence: 16, train.slice_tokens: 0, model.layers: 2, attention.layers: [1],
      mamba.head_dim: 64}
seeds: [1, 2]
baseline: plain
metric: bpb.artifact
margin: 0.01
variants:
  plain: {}
  int8: {quant.bits: 8}
YAML
    suite="$folder/little.yaml"
}

cuda_line() { hinge doctor --db "$db" --data "$shared/data" | grep -E '^[a-z]+ +CUDA '; }
has_cuda() { ! cuda_line | grep -q "this build has none"; }
works() { cuda_line | grep -Eq " devices? works?,"; }

# prints PATTERN COMMAND...: exit status 0, and the output has the pattern.
prints() {
    local pattern=$1
    shift
    succeeds "$@"
    grep -q -- "$pattern" <<<"$output" || { echo "no '$pattern' in: $output"; return 1; }
}

@test "on the CPU a plan names no device, and its key is that of an open slice settled to 1024 tokens" {
    succeeds hinge plan "$suite" --device cpu --db "$db" --data "$shared/data" --json
    open=$(json "d['device'], [r['key'] for r in d['runs']]" <<<"$output")
    succeeds hinge plan "$suite" --device cpu --set train.slice_tokens=1024 --db "$db" --data "$shared/data" --json
    [ "$open" = "$(json "d['device'], [r['key'] for r in d['runs']]" <<<"$output")" ]
    [[ $open == "(None, "* ]]
}

@test "a build without CUDA says so and how to get it" {
    has_cuda && skip "this build has CUDA"
    fails 2 "built without CUDA" hinge plan "$suite" --device cuda --db "$db" --data "$shared/data"
    fails 2 "built without CUDA" hinge run "$suite" --device cuda --db "$db" --data "$shared/data"
    fails 2 "built without CUDA" hinge verify --device cuda tests/golden/plain.safetensors
    succeeds hinge plan "$suite" --device auto --db "$db" --data "$shared/data"
}

@test "without a working device a plan says what it needs and why it cannot run, and a run is refused" {
    has_cuda || skip "this build has no CUDA"
    works && skip "the device works"
    prints "device *cuda: .* of its memory a job; it cannot be used here" \
        hinge plan "$suite" --device cuda --db "$db" --data "$shared/data"
    run --separate-stderr hinge run "$suite" --device cuda --db "$db" --data "$shared/data"
    [ "$status" -ne 0 ]
    [[ $stderr == "hinge: "* ]]
    [ ! -e "$db" ]
}

@test "a suite runs on CUDA through every stage, with keys of its own, and is reproduced bit for bit" {
    has_cuda || skip "this build has no CUDA"
    works || skip "no device works here"
    succeeds hinge plan "$suite" --device cuda --db "$db" --data "$shared/data" --json
    [ "$(json "d['device']['problem'], d['device']['free_bytes'] > 0" <<<"$output")" = "(None, True)" ]
    cuda=$(json "[r['key'] for r in d['runs']]" <<<"$output")
    cpu=$(hinge plan "$suite" --device cpu --db "$db" --data "$shared/data" --json | json "[r['key'] for r in d['runs']]")
    [ "$cuda" != "$cpu" ]
    prints "4 of 4 runs done, 0 failed" hinge run "$suite" --device cuda --db "$db" --data "$shared/data"
    prints "every loss equal to the last bit" hinge reproduce 1 --db "$db" --data "$shared/data"
    hinge export runs little --db "$db" --format csv | sed -n 2p | grep -q ",cuda,"
    prints "0 stages done now" hinge run "$suite" --db "$db" --data "$shared/data"
    fails 2 "backend" hinge run "$suite" --device cpu --db "$db" --data "$shared/data"
    fails 2 "made with backend cuda" hinge reproduce 1 --device cpu --db "$db" --data "$shared/data"
}

@test "a run that does not fit the device is refused with the figure before anything is written" {
    has_cuda || skip "this build has no CUDA"
    works || skip "no device works here"
    fails 4 "of its memory, of which" hinge run "$suite" --device cuda --db "$db" --data "$shared/data" \
        --set train.batch_tokens=16777216 --set train.slice_tokens=1048576 --set model.dim=2048
    [ ! -e "$db" ]
    succeeds hinge plan "$suite" --device cuda --db "$db" --data "$shared/data" \
        --set train.batch_tokens=16777216 --set train.slice_tokens=1048576 --set model.dim=2048
    [[ $(tr -s '\n ' ' ' <<<"$output") == *"warning"*"of its memory, of which"*" free; "* ]]
}

@test "what does not fit the device as it is, but in smaller slices, is told which" {
    has_cuda || skip "this build has no CUDA"
    works || skip "no device works here"
    local wide=(--device cuda --db "$db" --data "$shared/data" --set train.batch_tokens=16384 --set train.sequence=64)
    export EMULATOR_MEMORY=1000 # which a GPU does not read; nothing is timed where nothing fits
    needs=$(hinge plan "$suite" "${wide[@]}" --json | json "d['device']['memory_bytes']")
    export EMULATOR_MEMORY=$((needs / 2))
    [ "$(hinge plan "$suite" "${wide[@]}" --json | json "d['device']['free_bytes'] < $needs")" = True ] || skip "a GPU has more"
    [ "$(hinge plan "$suite" "${wide[@]}" --json | json "d['device']['fits']")" = False ]
    succeeds hinge plan "$suite" "${wide[@]}"
    slice=$(grep -o 'train.slice_tokens=[0-9]*' <<<"$(tr -s '\n ' ' ' <<<"$output")")
    [ -n "$slice" ]
    succeeds hinge plan "$suite" "${wide[@]}" --set "$slice"
    [[ $output != *warning* ]]
}

# jobs_planned ARGUMENT...
jobs_planned() { hinge plan "$suite" "$@" --db "$db" --data "$shared/data" --json | json "d['estimate']['jobs']"; }

@test "small trainings share the devices, as cores and memory allow; --jobs, a CPU and a timed metric decide otherwise" {
    has_cuda || skip "this build has no CUDA"
    works || skip "no device works here"
    EMULATOR_DEVICES=3 hinge doctor --db "$db" --data "$shared/data" | grep -q " 3 devices work" ||
        skip "a machine's own devices are not known here"
    [ "$(EMULATOR_DEVICES=1 jobs_planned --device cuda)" -eq "$(($(nproc) < 4 ? $(nproc) : 4))" ]
    [ "$(EMULATOR_DEVICES=3 EMULATOR_MEMORY=800000000 jobs_planned --device cuda)" -eq 3 ]
    [ "$(EMULATOR_DEVICES=9 jobs_planned --device cuda)" -eq 4 ] # two variants, two seeds
    [ "$(EMULATOR_DEVICES=3 jobs_planned --device cuda --jobs 1)" -eq 1 ]
    sed -i 's/^metric: .*/metric: train_seconds/' "$suite"
    [ "$(EMULATOR_DEVICES=1 jobs_planned --device cuda)" -eq 1 ]
    [ "$(jobs_planned --device cpu)" -eq 1 ]
}

@test "a suite that was declared on the CPU stays there" {
    hinge run "$suite" --device cpu --db "$db" --data "$shared/data" 2>/dev/null >&2
    succeeds hinge plan "$suite" --db "$db" --data "$shared/data" --json
    [ "$(json "d['device'], d['estimate']['runs_done']" <<<"$output")" = "(None, 4)" ]
    has_cuda || return 0
    fails 2 "was declared otherwise" hinge plan "$suite" --device cuda --db "$db" --data "$shared/data"
}

@test "a simulated suite has no device to choose" {
    fails 2 "is simulated" hinge plan "$suite" --set run.backend=simulated --device cuda --db "$db"
}

# A machine with two devices, as nvidia-smi would tell of it.
pretend_gpus() {
    mkdir -p "$folder/bin"
    cat >"$folder/bin/nvidia-smi" <<'SH'
#!/bin/sh
case "$1" in
nvlink) printf 'GPU 0: NVIDIA H200 (UUID: GPU-1)\n\t Link 0: 26.562 GB/s\n\t Link 1: 26.562 GB/s\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n' ;;
*) printf 'NVIDIA H200, 570.1, 143771, 143000\nNVIDIA H200, 570.1, 143771, 1000\n' ;;
esac
SH
    chmod +x "$folder/bin/nvidia-smi"
}

@test "doctor shows devices, memory, links and driver, and what runs make of them" {
    run hinge doctor --db "$db" --data "$shared/data"
    [[ $output == *CUDA* ]]
    [[ $output == *"nvidia-smi shows none"* ]] || [ -e /dev/nvidia0 ]
    pretend_gpus
    PATH="$folder/bin:$PATH" run hinge doctor --db "$db" --data "$shared/data"
    [[ $output == *"NVIDIA H200, 149.9 GB free of 150.8 GB, 2 NVLinks of 26.6 GB/s, driver 570.1"* ]]
    [[ $output == *"NVIDIA H200, 1.0 GB free of 150.8 GB, no NVLink, driver 570.1"* ]]
    has_cuda || [[ $output == *"runs use the CPU"* ]]
}
