# verify: the golden files through the program, and files that are wrong.
load helpers

setup() { folder=$BATS_TEST_TMPDIR; }

@test "every golden file agrees" {
    [ "$(ls tests/golden/*.safetensors | wc -l)" -ge 5 ]
    for file in tests/golden/*.safetensors; do
        succeeds hinge verify "$file"
        [[ $output == *agrees* && $output == *logits* ]]
    done
}

@test "the JSON of a verification holds the errors of all tensors, logits first" {
    hinge verify --json tests/golden/plain.safetensors >"$folder/out.json"
    is_json <"$folder/out.json"
    [ "$(json 'd[0]["passed"] and d[0]["loss_relative_error"] < 1e-5' <"$folder/out.json")" = True ]
    [ "$(json 'd[0]["tensors"][0]["tensor"]' <"$folder/out.json")" = logits ]
    [ "$(json 'len(d[0]["tensors"]) > 90 and all(t["relative_l2"] < 1e-3 for t in d[0]["tensors"])' <"$folder/out.json")" = True ]
}

@test "one changed parameter makes the check fail with status 6" {
    cp tests/golden/plain.safetensors "$folder/bent.safetensors"
    python3 - "$folder/bent.safetensors" <<'PY'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
size = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + size])
start = 8 + size + header["param.blocks.0.mlp.fc"]["data_offsets"][0]
data[start:start + 4] = struct.pack("<f", struct.unpack("<f", data[start:start + 4])[0] + 10)
open(sys.argv[1], "wb").write(data)
PY
    run --separate-stderr hinge verify "$folder/bent.safetensors"
    [ "$status" -eq 6 ]
    [[ $output == *DIFFERS* ]]
    [[ $stderr == "hinge: "*bent.safetensors* ]]
}

@test "a file that is cut, missing or no safetensors is refused by name" {
    head -c 5000 tests/golden/plain.safetensors >"$folder/cut.safetensors"
    fails 3 "$folder/cut.safetensors" hinge verify "$folder/cut.safetensors"
    fails 4 "$folder/missing" hinge verify "$folder/missing"
    echo "no tensors" >"$folder/text"
    fails 3 "hinge: $folder/text: not a sound" hinge verify "$folder/text"
}

@test "a pipe that nobody writes to is refused, not waited for" {
    mkfifo "$BATS_TEST_TMPDIR/pipe"
    fails 3 "is not a regular file" timeout 20 "$HINGE" verify "$BATS_TEST_TMPDIR/pipe"
}
