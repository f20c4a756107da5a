#!/usr/bin/env bats
# families: comparisons that a suite corrects together, on simulated suites.

setup() {
    load helpers
    cd "$BATS_TEST_TMPDIR"
    cat >kin.yaml <<'YAML'
name: kin
question: Which comparisons are corrected together?
set: {run.backend: simulated, train.steps: 10}
seeds: [1, 2, 3, 4, 5, 6]
baseline: none
metric: bpb.raw
test: {kind: sign-flip}
families: {size: [small, large], alone: [other]}
variants:
  none: {}
  small: {simulated.effect: -0.02}
  large: {simulated.effect: 0.02}
  other: {simulated.effect: -0.03}
YAML
}

@test "p is adjusted over the family, and so is what a test can attain" {
    hinge run kin.yaml --db kin.db 2>/dev/null
    hinge compare kin --db kin.db --json >kin.json
    [ "$(json '[(v["variant"], v["family_name"], v["family"], v["p"], v["p_adjusted"], v["attainable_adjusted"], v["verdict"])
        for v in d["variants"][1:]]' <kin.json)" = "[('small', 'size', 2, 0.03125, 0.0625, 0.0625, 'not attainable'), \
('large', 'size', 2, 0.03125, 0.0625, 0.0625, 'not attainable'), ('other', 'alone', 1, 0.03125, 0.03125, 0.03125, 'better')]" ]
    hinge compare kin --db kin.db | grep -q "2 declared families"
    succeeds hinge plan kin.yaml --db none.db
    [[ $output == *"over 2 comparisons"* && $(tr -s ' \n' ' ' <<<"$output") == *"no difference of the largest family can be significant"* ]]
    [ "$(hinge trace kin other.p_adjusted --db kin.db --json | json 'len(d["runs"])')" = 12 ]
    [ "$(hinge trace kin large.p_adjusted --db kin.db --json | json 'len(d["runs"])')" = 18 ]
}

@test "a late variant is corrected over everything and changes no declared row" {
    hinge run kin.yaml --db kin.db 2>/dev/null
    sed -i 's/alone: \[other\]/alone: [other, newer]/' kin.yaml
    echo "  newer: {simulated.effect: -0.04}" >>kin.yaml
    hinge run kin.yaml --db kin.db 2>/dev/null
    [ "$(hinge compare kin --db kin.db --json | json '[(v["family"], v["p_adjusted"]) for v in d["variants"][3:]]')" = \
        "[(1, 0.03125), (4, 0.125)]" ]
}

@test "families are frozen with the suite" {
    hinge run kin.yaml --db kin.db 2>/dev/null
    sed -i 's/families: .*/families: {size: [small], alone: [other, large]}/' kin.yaml
    fails 2 "variant large: family was size and is alone" hinge run kin.yaml --db kin.db
}

@test "the report names the families" {
    hinge run kin.yaml --db kin.db 2>/dev/null
    hinge report kin --db kin.db -o out --templates "$BATS_TEST_DIRNAME/../../reports"
    grep -q "size: small, large; alone: other" out/kin/design.csv
    pdftotext -layout out/kin.pdf - | tr -s ' \n' ' ' | grep -q "adjusted over the at most 2 comparisons of each declared family (Holm)"
}

@test "families are checked where they stand" {
    sed 's/alone: \[other\]/alone: [othr]/' kin.yaml >bad.yaml
    fails 2 'families: no variant is called "othr"' hinge plan bad.yaml --db none.db
    sed 's/alone: \[other\]/alone: [none, other]/' kin.yaml >bad.yaml
    fails 2 "families: none is the baseline, which is in no family" hinge plan bad.yaml --db none.db
    sed 's/alone: \[other\]/alone: [other, small]/' kin.yaml >bad.yaml
    fails 2 "families: small is in size already" hinge plan bad.yaml --db none.db
    sed 's/, alone: \[other\]//' kin.yaml >bad.yaml
    fails 2 "families: other is in none; every variant but the baseline must be in one" hinge plan bad.yaml --db none.db
    sed 's/families: .*/families: [small]/' kin.yaml >bad.yaml
    fails 2 "families: expected names with lists of variants" hinge plan bad.yaml --db none.db
}
