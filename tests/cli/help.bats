# help: verbs, flags, messages for misspelt words, exit codes.
load helpers

# Names of the verbs, one a line, from the list that the program prints.
verbs() { hinge | sed -n '/^verbs$/,/^$/p' | sed -nE 's/^  ([a-z]+( [a-z]+)?)( [A-Z[].*)?  .*$/\1/p'; }

@test "hinge alone prints every verb and the exit codes" {
    succeeds hinge
    for verb in "data prepare" "data add" "data list" list plan run submit merge status show compare report reproduce export verify doctor; do
        [[ $output == *"  $verb"* ]] || { echo "no $verb in: $output"; return 1; }
    done
    for code in 0 2 3 4 5 6 130; do grep -Eq "^  $code +[a-z]" <<<"$output"; done
}

@test "every verb has help with a purpose, a usage line and an example, by help VERB and VERB --help alike" {
    [ "$(verbs | wc -l)" -ge 14 ]
    while read -r verb; do
        # shellcheck disable=SC2086
        succeeds hinge help $verb
        local by_word=$output
        [[ $by_word == *"usage: hinge $verb"* ]]
        [[ $by_word == *"examples"*"  hinge $verb"* ]] || { echo "no example in: $by_word"; return 1; }
        # shellcheck disable=SC2086
        succeeds hinge $verb --help
        [ "$output" = "$by_word" ]
    done < <(verbs)
}

@test "help fits 100 columns" {
    while read -r verb; do
        # shellcheck disable=SC2086
        hinge help $verb | awk -v verb="$verb" 'length($0) > 100 {print verb ": " $0; bad = 1} END {exit bad}'
    done < <(verbs; echo)
}

@test "long choices of a flag leave room for what it means" {
    while read -r verb; do
        # shellcheck disable=SC2086
        hinge help $verb | awk -v verb="$verb" '
            /^flags$/ {inside = 1; next} /^$/ {inside = 0}
            inside && match($0, /^ +/) && RLENGTH > 36 {print verb ": " $0; bad = 1} END {exit bad}'
    done < <(verbs)
}

@test "reproduce names no default device, for it takes the one of the run" {
    ! hinge help reproduce | grep -q "default auto"
}

@test "every reading verb takes --json" {
    for verb in "data list" list plan merge status show compare reproduce verify doctor; do
        # shellcheck disable=SC2086
        hinge help $verb | grep -q -- "--json" || { echo "$verb has no --json"; return 1; }
    done
}

@test "--version names the version" {
    succeeds hinge --version
    [[ $output =~ ^hinge\ [0-9]+\.[0-9]+ ]]
}

@test "a misspelt verb is refused and the nearest one named" {
    fails 2 "nearest is 'verify'" hinge verfiy x
    fails 2 "nearest is 'compare'" hinge compar demo
    fails 2 "there is no verb 'xyzzy'" hinge xyzzy
    fails 2 "there is no verb" hinge help xyzzy
}

@test "a group of verbs without its second word names its members" {
    fails 2 "data needs one of: prepare, add, list" hinge data
    fails 2 "nearest is 'data prepare'" hinge data prepar
}

@test "a misspelt flag is refused and the nearest one named" {
    fails 2 "nearest is --json" hinge verify --jsn tests/golden/plain.safetensors
    fails 2 "nearest is --scale" hinge run --scael tiny demo
    fails 2 "has no flag -x" hinge export -x runs
}

@test "flags are held against their type, bounds and number" {
    fails 2 "--jobs takes a whole number, not 'two'" hinge run demo --jobs two
    fails 2 "allowed are 1 to 256" hinge run demo --jobs=0
    fails 2 "--jobs takes a whole number, not '1.5'" hinge run demo -j1.5
    fails 2 "--format takes csv|json, not 'xml'" hinge export runs --format xml
    fails 2 "--json takes no value" hinge list --json=yes
    fails 2 "--db needs a value: --db FILE" hinge status --db
    fails 2 "--db is given twice" hinge status --db a --db b
}

@test "a suite that is asked for where there are none is told to give its file or to go where they are" {
    cd "$BATS_TEST_TMPDIR"
    fails 2 "run hinge in the folder that has it, or give the suite's file" hinge plan demo
}

@test "too few and too many arguments are refused with the usage" {
    fails 2 "plan needs SUITE; usage: hinge plan SUITE" hinge plan
    fails 2 "'more' is one argument too many" hinge plan demo more
}

@test "-- ends the flags" {
    fails 2 "there is no suite '--json'" hinge list -- --json
}

@test "list --options documents every option with default, stage and help" {
    succeeds hinge list --options
    [[ $output == *"recurrence.layers"* && $output == *"quant.strategy"* && $output == *"default 1024"* ]]
    [ "$(hinge list --options --json | json 'len(d)')" -eq "$(grep -Ec '^(OPTION|CHOICE|TEXT|LIST)\(' model/options.def)" ]
    [ "$(hinge list --options --json | json 'all(o["help"] and o["key"] for o in d)')" = True ]
}

@test "every topic of list is valid JSON and not empty" {
    for topic in options strategies presets metrics ops; do
        hinge list --$topic --json | is_json
        [ "$(hinge list --$topic --json | json 'len(d)')" -gt 2 ]
    done
    hinge list --json | is_json
    [ "$(hinge list --json | json '"demo" in [s["suite"] for s in d]')" = True ]
}

@test "the lists break their lines" {
    for topic in options strategies metrics; do
        [ "$(hinge list --$topic | LC_ALL=C.UTF-8 wc -L)" -le 120 ] || { echo "--$topic"; return 1; }
    done
}

@test "list shows suites, and the variants of one with what differs" {
    succeeds hinge list
    [[ $output == *demo* ]]
    succeeds hinge list demo
    [[ $output == *"(baseline)"* && $output == *recurrence* ]]
    [ "$(hinge list demo --json | json 'len(d["variants"]) >= 3')" = True ]
}

@test "the preset nemotron-h counts exactly 26,216,040 parameters" {
    [ "$(hinge list --presets --json | json '[p["parameters"] for p in d if p["preset"] == "nemotron-h"][0]')" -eq 26216040 ]
}

@test "output to a full disk is an error, not silence" {
    [ -w /dev/full ] || skip "no /dev/full"
    run bash -c "'$HINGE' list --options >/dev/full"
    [ "$status" -eq 4 ]
}

@test "colours appear on no pipe" {
    unset NO_COLOR
    ! hinge list --options | grep -q $'\033'
}
