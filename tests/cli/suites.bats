#!/usr/bin/env bats
# suites: every published suite at tiny from end to end, all variants and two seeds; and what their plans promise.

load helpers

setup_file() {
    export FOLDER
    FOLDER=$(mktemp -d)
    prepare_text "$FOLDER"
}

teardown_file() { rm -rf "$FOLDER"; }

# runs SUITE VARIANTS [FIGURE...]: all variants and two seeds of a suite at tiny; nothing fails. No two variants agree in
# all of the figures: each does what it says.
runs() {
    succeeds hinge run "$1" --scale tiny --jobs 2 --db "$FOLDER/hinge.db" --data "$FOLDER/data"
    local rows
    rows=$(hinge export runs "$1" --scale tiny --format json --db "$FOLDER/hinge.db")
    [ "$(json 'sum(r["bpb_artifact"] is not None and r["bpb_raw"] is not None for r in d)' <<<"$rows")" -eq $((2 * $2)) ]
    [ "$(json 'len({r["variant"] for r in d})' <<<"$rows")" -eq "$2" ]
    local figures="${*:3}"
    [ -z "$figures" ] ||
        [ "$(json "len({tuple(r[f] for f in '$figures'.split()) for r in d})" <<<"$rows")" -eq $((2 * $2)) ]
}

@test "a submission is a folder with figures, a log for each seed, and a claim that its test carries" {
    runs recurrence 9
    local run
    run=$(hinge export runs recurrence --scale tiny --format json --db "$FOLDER/hinge.db" |
        json '[r["run"] for r in d if r["variant"] == "hinge-34x2"][0]')
    fails 2 "needs -o DIR" hinge submission "$run" --db "$FOLDER/hinge.db"
    fails 2 "did you mean block-23?" \
        hinge submission "$run" --baseline blok-23 -o "$FOLDER/record" --db "$FOLDER/hinge.db"
    [ ! -e "$FOLDER/record" ]
    echo 12345 >"$FOLDER/code"
    fails 2 "no name that the folder has" hinge submission "$run" -o "$FOLDER/record" --code README.md --db "$FOLDER/hinge.db"
    succeeds hinge submission "$run" -o "$FOLDER/record" --code "$FOLDER/code" --author Me --db "$FOLDER/hinge.db"
    cmp "$FOLDER/code" "$FOLDER/record/code"
    # Keys and lines as in the folders of records/ in openai/parameter-golf.
    local keys='author github_id name blurb date val_loss val_bpb bytes_total bytes_code'
    [ "$(json "all(k in d for k in '$keys'.split()) and d['author'] == 'Me'" <"$FOLDER/record/submission.json")" = True ]
    [ "$(json 'd["date"][10] + d["date"][-1]' <"$FOLDER/record/submission.json")" = TZ ]
    local log=$FOLDER/record/train_seed42.log
    grep -q '^model_params:[0-9]*$' "$log"
    grep -q '^train_batch_tokens:256 train_seq_len:32 iterations:4$' "$log"
    grep -q '^seed:42$' "$log"
    grep -q '^step:4/4 val_loss:[0-9.]* val_bpb:[0-9.]* train_time:[0-9]*ms step_avg:[0-9.]*ms$' "$log"
    grep -q '^Code size: 6 bytes$' "$log"
    grep -Eq '^Serialized model int6-gptq\+xz: [0-9]+ bytes \(payload:[0-9]+ payload_ratio:[0-9.]+x\)$' "$log"
    grep -Eq '^Total submission size int6-gptq\+xz: [0-9]+ bytes$' "$log"
    grep -Eq '^final_int6-gptq_xz_roundtrip val_loss:[0-9.]+ val_bpb:[0-9.]+ eval_time:[0-9]+ms$' "$log"
    local fields='d["seeds"] == [1337, 42] and d["bytes_code"] == 6 and d["name"] == "hinge-34x2"'
    [ "$(json "$fields" <"$FOLDER/record/submission.json")" = True ]
    local total='d["bytes_total"] == 6 + max(r["artifact_bytes"] for r in d["seed_results"].values())'
    [ "$(json "$total" <"$FOLDER/record/submission.json")" = True ]
    local mean='abs(d["val_loss"] - sum(r["val_loss"] for r in d["seed_results"].values()) / 2) < 1e-12'
    [ "$(json "$mean" <"$FOLDER/record/submission.json")" = True ]
    grep -q '^step:4/4 train_loss:[0-9.]* train_time:[0-9]*ms step_avg:[0-9.]*ms$' "$FOLDER/record/train_seed42.log"
    grep -q '^final_int6-gptq_xz_roundtrip_exact val_loss:[0-9.]* val_bpb:[0-9.]*$' "$FOLDER/record/train_seed42.log"
    grep -q 'The rule is not met' "$FOLDER/record/README.md"
    [ -z "$(find "$FOLDER" -maxdepth 1 -name 'record.*')" ]
    fails 2 "is there already" hinge submission "$run" -o "$FOLDER/record" --db "$FOLDER/hinge.db"
    succeeds hinge submission "$run" -o "$FOLDER/sources" --db "$FOLDER/hinge.db"
    [ "$(json 'd["bytes_code"]' <"$FOLDER/sources/submission.json")" -gt 500000 ]
    run ! grep -q "Another code" "$FOLDER/sources/README.md"
    # When the code that is counted is not the code that trained, it says so.
    sqlite3 "$FOLDER/hinge.db" ".backup '$FOLDER/older.db'"
    sqlite3 "$FOLDER/older.db" "UPDATE provenance SET value = 'older' WHERE name = 'revision'"
    succeeds hinge submission "$run" -o "$FOLDER/older" --db "$FOLDER/older.db"
    [[ $output == *"Another code: revision "*" is counted, older trained the run"* ]]
    grep -q "Another code.*Revision older trained this" "$FOLDER/older/README.md"
}

@test "a variant that is better by far, seed for seed, meets the rule" {
    ln -sfn "$PWD/suites/presets" "$FOLDER/presets"
    cat >"$FOLDER/longer.yaml" <<'YAML'
name: longer
question: Does a longer training give a lower loss?
preset: tiny
seeds: [1, 2, 3]
baseline: short
metric: bpb.artifact
test: {kind: paired-t, alpha: 0.05, correction: holm}
set: {train.warmdown: 0, train.ema: 0, train.swa: off, quant.strategy: int8-rowwise}
variants:
  short: {train.steps: 1}
  long: {train.steps: 24}
YAML
    succeeds hinge run "$FOLDER/longer.yaml" --jobs 2 --db "$FOLDER/longer.db" --data "$FOLDER/data"
    local run
    run=$(hinge export runs longer --format json --db "$FOLDER/longer.db" |
        json '[r["run"] for r in d if r["variant"] == "long"][0]')
    succeeds hinge submission "$run" -o "$FOLDER/better" --db "$FOLDER/longer.db"
    grep -q '^\*\*The rule is met\.\*\* Over 3 seeds' "$FOLDER/better/README.md"
    [ "$(json '0 < d["p_value"] < 0.01' <"$FOLDER/better/submission.json")" = True ]
}

@test "a suite lies anywhere: presets and includes are looked for beside it, then in suites/" {
    mkdir -p "$FOLDER/els where"
    sed '/^scales:/,$d; s/^preset: .*/preset: demo\ninclude: common\/scales/' suites/demo.yaml >"$FOLDER/els where/mine.yaml"
    succeeds hinge list "$FOLDER/els where/mine.yaml" --scale laptop
    [[ $output == *"published long small laptop tiny"* ]]
    mkdir "$FOLDER/els where/presets"
    echo "model.dim: 8" >"$FOLDER/els where/presets/demo.yaml"
    fails 2 "attention" hinge list "$FOLDER/els where/mine.yaml"
    sed -i 's/^preset: .*/preset: dmeo/' "$FOLDER/els where/mine.yaml"
    fails 2 "presets/dmeo.yaml, nor suites/presets/dmeo.yaml; allowed: demo; did you mean demo?" hinge list "$FOLDER/els where/mine.yaml"
    rm -r "$FOLDER/els where/presets"
    fails 2 "allowed: demo, laptop, nemotron-h, small, tiny; did you mean demo?" hinge list "$FOLDER/els where/mine.yaml"
}

# example FILE FIRST LAST: the lines of a README's example, as a reader would save them.
example() { sed -n "/^    $2/,/^ *$3/s/^    //p" "$1"; }

@test "the suites that the READMEs show are suites, at their scales, too" {
    example README.md "name: width" "four:" >"$FOLDER/width.yaml"
    succeeds hinge list "$FOLDER/width.yaml"
    [[ $output == *"model.mlp_mult=4"* ]]
    example suites/README.md "name: recurrence" "laptop:" >"$FOLDER/shown.yaml"
    succeeds hinge list "$FOLDER/shown.yaml"
    succeeds hinge list "$FOLDER/shown.yaml" --scale laptop
    sed '/^variants:/,$d; s/^baseline: .*/baseline: bits4-gptq/' "$FOLDER/shown.yaml" >"$FOLDER/crossed.yaml"
    example suites/README.md "matrix:" " gptq:" >>"$FOLDER/crossed.yaml"
    succeeds hinge list "$FOLDER/crossed.yaml"
    [[ $output == *"bits4-rowwise"*"bits4-gptq"*"bits6-rowwise"*"bits6-gptq"* ]]
    sed -i '/^seeds: /d' "$FOLDER/shown.yaml"
    example suites/README.md "seeds: {first" "looks:" >>"$FOLDER/shown.yaml"
    succeeds hinge list "$FOLDER/shown.yaml"
    [[ $output == *"seeds   1 2 3 4 5 6 7 8 9 10 11"* ]]
}

@test "the published suites run at tiny on shards that were registered as fineweb" {
    hinge data prepare --text "$FOLDER/text.txt" --name made --data "$FOLDER/shards" >/dev/null
    hinge data add "$FOLDER/shards/made" --tokenizer "$FOLDER/shards/made/tokenizer.model" --name fineweb \
        --data "$FOLDER/data"
    runs published 7
    runs published-1000 4
    runs published-hinge 3 bpb_raw
    rm -r "$FOLDER/data/fineweb"
}

planned() { # planned KIND SUITE FLAGS...: stages of a kind in a plan
    local kind=$1
    shift
    hinge plan "$@" --scale laptop --db "$FOLDER/none.db" --data "$FOLDER/data" --json | json "d['estimate']['stages']['$kind']['all']"
}

@test "recurrence runs at tiny, the untied variant too" { runs recurrence 9 bpb_raw; }
@test "recurrence-confirmation runs at tiny" { runs recurrence-confirmation 4 bpb_raw; }
@test "rope runs at tiny" { runs rope 9 bpb_raw; }
@test "architecture runs at tiny" { runs architecture 14 bpb_raw; }
@test "optimizer runs at tiny" { runs optimizer 9 bpb_raw bpb_averaged; }
@test "stability runs at tiny" { runs stability 8 bpb_raw; }
@test "quantization runs at tiny" { runs quantization 9 bpb_artifact artifact_bytes; }
@test "quantization-floor runs at tiny" { runs quantization-floor 4 bpb_artifact; }
@test "quantization-bits runs at tiny" { runs quantization-bits 15 bpb_artifact artifact_bytes; }

@test "the strategies of quantization share one training a seed" {
    [ "$(planned train quantization)" -eq 10 ] # ternary trains its own
    [ "$(planned quantise quantization)" -eq 45 ]
    [ "$(planned train quantization-bits)" -eq 5 ]
    [ "$(planned train quantization-floor)" -eq 10 ]
}

@test "a plan has a line for each variant, --runs one for each run, and its text fits 80 columns" {
    local flags=(quantization --scale tiny --db "$FOLDER/none.db" --data "$FOLDER/data")
    succeeds hinge plan "${flags[@]}"
    [ "$(grep -c '^  int6-gptq ' <<<"$output")" -eq 1 ]
    grep -Eq '^  fp16 +2 +0 +0 +2 ' <<<"$output"      # trains for all
    grep -Eq '^  int6-gptq +2 +0 +0 +0 ' <<<"$output" # trains nothing of its own
    grep -Eq '^  ternary +2 +0 +0 +2 ' <<<"$output"
    [ "$(awk 'length($0) > 80' <<<"$output" | wc -l)" -eq 0 ]
    succeeds hinge plan "${flags[@]}" --runs
    [ "$(grep -Ec '^  int6-gptq +(1337|42) ' <<<"$output")" -eq 2 ]
    succeeds hinge list
    [ "$(awk 'length($0) > 80' <<<"$output" | wc -l)" -eq 0 ]
    grep -q 'does it matter when' <<<"$output"
}

@test "a plan says how long a training is and for how long its rates are full" {
    local flags=(recurrence --scale tiny --db "$FOLDER/none.db" --data "$FOLDER/data")
    succeeds hinge plan "${flags[@]}"
    grep -q '^training  4 steps of 256 tokens; rates from 0.4 of the full ones down to 0$' <<<"$output"
    succeeds hinge plan "${flags[@]}" --set train.steps=40
    [[ $(tr -s '\n ' ' ' <<<"$output") == *"training 40 steps of 256 tokens; full rates for 30 of them, then down to 0 "* ]]
    succeeds hinge plan "${flags[@]}" --set train.warmdown=0
    grep -q '^training  4 steps of 256 tokens; full rates to the end$' <<<"$output"
    succeeds hinge plan "${flags[@]}" --set train.seconds=9
    grep -q '^training  at most 4 steps of 256 tokens or 9 s$' <<<"$output"
    [ "$(hinge plan "${flags[@]}" --set train.steps=40 --json | json '[d["training"][k] for k in ("steps", "tokens", "steps_at_full_rates", "first_multiplier")]')" = "[40, 10240, 30, 1.0]" ]
}

@test "a plan for two jobs says so, and their runs overlap in its time" {
    local flags=(rope --scale tiny --db "$FOLDER/none.db" --data "$FOLDER/data" --set run.backend=simulated)
    succeeds hinge plan "${flags[@]}" --jobs 2
    [[ $output == *"2 jobs at a time"* ]]
    local one two
    one=$(hinge plan "${flags[@]}" --json | json 'd["estimate"]["seconds_left"]')
    two=$(hinge plan "${flags[@]}" -j 2 --json | json 'd["estimate"]["seconds_left"]')
    [ "$(json "abs(d[0] - 2 * d[1]) < 1e-9 < d[1]" <<<"[$one, $two]")" = True ]
    fails 2 "--jobs" hinge plan "${flags[@]}" --jobs 0
}

@test "the published suite is refused without its shards, with the command that registers them" {
    for suite in published published-1000 published-hinge; do
        fails 3 "hinge data add DIR --tokenizer FILE --name fineweb" \
            hinge plan $suite --db "$FOLDER/none.db" --data "$FOLDER/data"
    done
}

@test "every suite has a plan at every scale; the slices that time each scale give its memory and its time" {
    local flags=(--db "$FOLDER/none.db" --data "$FOLDER/data" --set model.vocab_size=1024 --set eval.tail=keep --json)
    for suite in recurrence recurrence-confirmation rope architecture optimizer stability quantization quantization-floor quantization-bits; do
        for scale in tiny laptop small long published; do # drawn figures: nothing is timed
            hinge plan "$suite" --scale "$scale" "${flags[@]}" --set run.backend=simulated >"$FOLDER/plan.json"
            [ "$(json 'd["estimate"]["seconds_total"] > 0' <"$FOLDER/plan.json")" = True ]
        done
    done
    local least=0 bytes
    for plan in architecture/laptop optimizer/small recurrence/published; do
        hinge plan "${plan%/*}" --scale "${plan#*/}" "${flags[@]}" >"$FOLDER/plan.json"
        [ "$(json 'd["estimate"]["seconds_total"] > 0' <"$FOLDER/plan.json")" = True ]
        bytes=$(json 'd["estimate"]["memory_bytes"]' <"$FOLDER/plan.json")
        [ "$bytes" -gt "$least" ]
        least=$bytes
    done
    [ "$least" -gt 1000000000 ]
}
