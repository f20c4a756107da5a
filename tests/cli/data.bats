# data: prepared texts through the program.
load helpers

setup() {
    folder=$BATS_TEST_TMPDIR
    some_text >"$folder/text.txt"
}

prepare() { hinge data prepare --data "$folder/data" "$@"; }

@test "a text becomes shards, a tokenizer and a manifest with the SHA-256 of each" {
    succeeds prepare --text "$folder/text.txt" --name words --vocab 500
    [[ $output == *"500 pieces"* ]]
    cd "$folder/data/words"
    for kind in tokenizer train validation; do
        name=$(json "d['$kind'].get('shards', [d['$kind']])[0]['file']" <manifest.json)
        [ "$(sha256sum <"$name" | cut -d' ' -f1)" = "$(json "d['$kind'].get('shards', [d['$kind']])[0]['sha256']" <manifest.json)" ]
        [ "$(stat -c %s "$name")" = "$(json "d['$kind'].get('shards', [d['$kind']])[0]['size']" <manifest.json)" ]
    done
    [ "$(json "d['source']['sha256']" <manifest.json)" = "$(sha256sum <"$folder/text.txt" | cut -d' ' -f1)" ]
    [ "$(json "d['train']['documents'] + d['validation']['documents']" <manifest.json)" = 800 ]
}

@test "the same text gives the same bytes, with one thread and with four" {
    OMP_NUM_THREADS=1 succeeds prepare --text "$folder/text.txt" --name words
    mv "$folder/data" "$folder/before"
    OMP_NUM_THREADS=4 succeeds prepare --text "$folder/text.txt" --name words
    diff -r "$folder/before" "$folder/data"
}

@test "preparing again finds everything done" {
    succeeds prepare --text "$folder/text.txt" --name words
    before=$(stat -c %Y.%i "$folder/data/words"/*)
    first=$output
    succeeds prepare --text "$folder/text.txt" --name words
    [ "$output" = "$first" ]
    [ "$(stat -c %Y.%i "$folder/data/words"/*)" = "$before" ]
}

@test "two preparations at once make one dataset" {
    prepare --text "$folder/text.txt" --name words >"$folder/first" 2>&1 &
    first=$!
    succeeds prepare --text "$folder/text.txt" --name words
    wait "$first"
    [ "$(ls -A "$folder/data")" = words ]
}

@test "a preparation killed at any moment is done again from the start" {
    for delay in 0.02 0.1 0.3; do
        timeout -s KILL "$delay" "$HINGE" data prepare --data "$folder/data" --text "$folder/text.txt" --name words || true
    done
    succeeds prepare --text "$folder/text.txt" --name words
    [ "$(ls -A "$folder/data")" = words ]
    succeeds hinge data prepare --data "$folder/other" --text "$folder/text.txt" --name words
    diff -r "$folder/data" "$folder/other"
}

@test "a compressed text is the same text" {
    gzip -k "$folder/text.txt"
    succeeds prepare --text "$folder/text.txt" --name words
    succeeds prepare --text "$folder/text.txt.gz" --name compressed
    succeeds hinge data list --json --data "$folder/data"
    [ "$(echo "$output" | json "len({e['sha256'] for e in d})")" = 1 ]
}

@test "a folder of files is text, too" {
    mkdir "$folder/books"
    split -n l/20 "$folder/text.txt" "$folder/books/"
    succeeds prepare --text "$folder/books" --name books --vocab 400
    succeeds hinge data list --json --data "$folder/data"
    [ "$(echo "$output" | json "d[0]['train']['documents'] + d[0]['validation']['documents']")" = 20 ]
}

@test "existing shards are linked and keep their identity" {
    succeeds prepare --text "$folder/text.txt" --name words
    succeeds hinge data add "$folder/data/words" --tokenizer "$folder/data/words/tokenizer.model" --name linked --data "$folder/data"
    [ -L "$folder/data/linked/words_train_000000.bin" ]
    succeeds hinge data list --json --data "$folder/data"
    [ "$(echo "$output" | json "[len(d), len({e['sha256'] for e in d})]")" = "[2, 1]" ]
}

@test "the list is empty where nothing was prepared" {
    succeeds hinge data list --json --data "$folder/nowhere"
    [ "$(echo "$output" | json "len(d)")" = 0 ]
    succeeds hinge data list --data "$folder/nowhere"
}

@test "what cannot be prepared gets one line and leaves nothing" {
    fails 4 "absent.txt" prepare --text "$folder/absent.txt" --name x
    fails 2 "--name" prepare --text "$folder/text.txt"
    fails 2 "70000" prepare --text "$folder/text.txt" --name x --vocab 70000
    fails 3 "20000 pieces" prepare --text "$folder/text.txt" --name x --vocab 20000
    fails 2 "../x" prepare --text "$folder/text.txt" --name ../x
    printf 'binary\0data' >"$folder/binary"
    fails 3 "byte 6 is NUL" prepare --text "$folder/binary" --name x
    : >"$folder/empty"
    fails 3 "holds no text" prepare --text "$folder/empty" --name x
    grep . "$folder/text.txt" >"$folder/solid.txt"
    fails 3 "of 1 documents 1 are for training" prepare --text "$folder/solid.txt" --name x
    [[ $stderr == *"begins at an unindented line after a blank one"*"--held-out"* ]]
    [ -z "$(ls -A "$folder/data")" ]
}

@test "a name in use for other text is refused and left as it is" {
    succeeds prepare --text "$folder/text.txt" --name words
    before=$(sha256sum "$folder/data/words"/*)
    printf '\nmore\n' >>"$folder/text.txt"
    fails 3 "data/words" prepare --text "$folder/text.txt" --name words
    fails 3 "data/words" prepare --name words
    [ "$(sha256sum "$folder/data/words"/*)" = "$before" ]
}

@test "shards that do not fit their tokenizer are refused" {
    succeeds prepare --text "$folder/text.txt" --name words --vocab 500
    succeeds prepare --text "$folder/text.txt" --name few --vocab 400
    fails 3 "400 pieces" hinge data add "$folder/data/words" --tokenizer "$folder/data/few/tokenizer.model" --name x --data "$folder/data"
    fails 3 "no SentencePiece model" hinge data add "$folder/data/words" --tokenizer "$folder/text.txt" --name x --data "$folder/data"
    fails 2 "--tokenizer" hinge data add "$folder/data/words" --name x --data "$folder/data"
    [ "$(ls -A "$folder/data" | wc -l)" = 2 ]
}
