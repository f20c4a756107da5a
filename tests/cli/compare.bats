#!/usr/bin/env bats
# compare: any CSV of variant, seed and value; what cannot be compared is refused in one line.

setup() {
    load helpers
    cd "$BATS_TEST_TMPDIR"
    {
        echo "seed,value,variant"
        echo "1,1.300,plain"; echo "2,1.310,plain"; echo "3,1.295,plain"
        echo "1,1.280,other"; echo "2,1.291,other"; echo "3,1.276,other"
        echo "1,failed,shaky"; echo "2,1.330,shaky"; echo "3,1.300,shaky"
    } >values.csv
}

@test "a CSV's variants get a verdict and a sentence with the interval" {
    succeeds hinge compare --csv values.csv --baseline plain --margin 0.005
    [[ $output == *"better by the margin"* ]]
    [[ $output == *"other is better than plain by 0.01933"* ]]
    [[ $output == *"1 of its 3 seeds failed"* ]]
}

@test "sentences are broken into lines that a terminal can show" {
    hinge compare --csv values.csv --baseline plain --margin 0.005 >out.txt
    [ "$(sed -n '/^$/,$p' out.txt | LC_ALL=C.UTF-8 wc -L)" -le 80 ]
}

@test "a narrow terminal is told which columns it is too narrow for; a file has them all" {
    local lines
    lines=$(script -qec "stty cols 76; NO_COLOR=1 '$HINGE' compare --csv values.csv --baseline plain" /dev/null </dev/null | tr -d '\r')
    [[ $lines == *"(too narrow here for: sd, p)"* ]]
    [ "$(grep -E '^(plain|other|shaky) ' <<<"$lines" | LC_ALL=C.UTF-8 wc -L)" -le 76 ]
    grep -Eq '^other .* better$' <<<"$lines"
    succeeds hinge compare --csv values.csv --baseline plain
    [[ $output == *" mean "*" sd "*" p "*" p Holm "* && $output != *"too narrow"* ]]
}

@test "JSON holds the figures that SciPy gives" {
    hinge compare --csv values.csv --baseline plain --json >out.json
    # scipy.stats.ttest_rel(other, plain).pvalue and .confidence_interval(0.95)
    [ "$(json 'abs(d["variants"][1]["p_paired_t"] - 0.00029713267629631146) < 1e-10' <out.json)" = True ]
    [ "$(json 'abs(d["variants"][1]["ci_low"] + 0.0207675509099165) < 1e-10' <out.json)" = True ]
    [ "$(json 'd["variants"][1]["p_sign_flip"], d["variants"][1]["holm_p_sign_flip"]' <out.json)" = "(0.25, 0.5)" ]
    [ "$(json 'd["variants"][2]["failed"], d["variants"][2]["pairs"]' <out.json)" = "(1, 2)" ]
    [ "$(json 'd["variants"][0]["p"]' <out.json)" = None ]
}

@test "a test that cannot reject says so" {
    succeeds hinge compare --csv values.csv --baseline plain --test sign-flip
    [[ $output == *"not attainable"* ]]
    [[ $output == *"At least 7 seeds are needed"* ]]
}

@test "higher can be better" {
    succeeds hinge compare --csv values.csv --baseline plain --higher-is-better
    [[ $output == *"other is worse than plain"* ]]
}

@test "an unknown baseline is named" {
    fails 2 "no value has the baseline 'plane'" hinge compare --csv values.csv --baseline plane
}

@test "a CSV needs a baseline, and no suite beside it" {
    fails 2 "--baseline" hinge compare --csv values.csv
    fails 2 "not both" hinge compare demo --csv values.csv --baseline plain
    fails 2 "name a suite" hinge compare
}

@test "one seed is too few" {
    printf 'variant,seed,value\na,1,2\nb,1,3\n' >one.csv
    fails 2 "'a' has 1 seed; paired-t needs at least 2" hinge compare --csv one.csv --baseline a
}

@test "a damaged line is named with file, line and what was expected" {
    echo "1.5,2,plain" >>values.csv
    fails 3 "values.csv:11: the seed must be a whole number: '1.5'" hinge compare --csv values.csv --baseline plain
}

@test "a seed that occurs twice is named" {
    echo "3,2,plain" >>values.csv
    fails 2 "variant 'plain', seed 3 occurs twice" hinge compare --csv values.csv --baseline plain
}

@test "without a database, compare and report say how one is made" {
    fails 3 "hinge run" hinge compare demo --db none.db
    fails 3 "hinge run" hinge report demo --db none.db
}

@test "every test and the bootstrap are in JSON, each adjusted" {
    hinge compare --csv values.csv --baseline plain --margin 0.005 --json >out.json
    for name in paired_t sign_flip wilcoxon welch mann_whitney; do
        [ "$(json "0 < d['variants'][1]['p_$name'] <= d['variants'][1]['holm_p_$name'] <= 1" <out.json)" = True ]
    done
    [ "$(json 'sorted({"n", "mean", "sd", "delta", "ci_low", "ci_high", "rho", "p_tost", "bca_low", "bca_high", "hedges_g",
        "superiority", "attainable_p", "mde80", "seeds_needed", "verdict"} - set(d["variants"][1]))' <out.json)" = "[]" ]
    [ "$(json 'd["variants"][1]["bca_low"] < d["variants"][1]["delta"] < d["variants"][1]["bca_high"]' <out.json)" = True ]
}

@test "few seeds are said to be few" {
    succeeds hinge compare --csv values.csv --baseline plain
    [[ $output == *"With as few as 2 seeds no test can check its own assumptions"* ]]
}

@test "failed seeds rank worst in a rank test" {
    succeeds hinge compare --csv values.csv --baseline plain --test wilcoxon
    [[ ${output//$'\n'/ } == *"1 of its 3 seeds failed; they rank as the worst"* ]]
}

@test "seeds that are not shared are compared as two samples" {
    printf 'variant,seed,value\na,1,1.0\na,2,1.2\na,3,1.1\nb,4,2.0\nb,5,2.2\nb,6,2.1\n' >apart.csv
    succeeds hinge compare --csv apart.csv --baseline a
    [[ $output == *"b is worse than a by 1.00"* ]]
    [[ $output == *"0.0003; not paired, at least 3 seeds each"* ]]
}

@test "declared looks stop at a boundary, and looks that do not ascend are refused" {
    succeeds hinge compare --csv values.csv --baseline plain --looks 2,3 --spending pocock
    [[ $output == *"stopped at look 1 of 2, after 2 seeds"* ]]
    fails 2 "must ascend from 2 on" hinge compare --csv values.csv --baseline plain --looks 3,3
    fails 2 "--looks: whole numbers separated by commas" hinge compare --csv values.csv --baseline plain --looks 3,x
}

table() { # VARIANT VALUE...: rows of seeds 1, 2, ...
    local seed=0
    for value in "${@:2}"; do echo "$1,$((++seed)),$value"; done
}

@test "where ranks and the mean tell two ways, the sentence says so and names no size" {
    {
        echo "variant,seed,value"
        table b 0.01 0.02 0.03 0.04 0.05 0.06 0.07 0.08 0.09 0.10 0.11 0.12
        table v 0.009 0.018 0.027 0.036 0.045 0.054 0.063 0.072 0.081 0.09 0.099 50
    } >ranks.csv
    succeeds hinge compare --csv ranks.csv --baseline b --test wilcoxon --margin 0.001
    said "v is better than b (Δ = 4.1"
    said "The ranks of the seeds say so; their mean difference does not"
    [[ $output != *"margin of 0.001 is exceeded"* ]]
}

@test "no p is called adjusted without a correction" {
    succeeds hinge compare --csv values.csv --baseline plain --margin 0.005 --correction none
    said "one-sided p"
    [[ $output != *"adjusted"* ]]
    succeeds hinge compare --csv values.csv --baseline plain --margin 0.005
    said "(adjusted one-sided p"
}

@test "a comparison that failed seeds prevent rests on none, and the baseline's failures are told" {
    {
        echo "variant,seed,value"
        table b 1.0 1.1 1.2 failed
        table gone failed failed failed failed
        table there 1.0 1.2 1.4 1.6
    } >failed.csv
    succeeds hinge compare --csv failed.csv --baseline b
    said "gone shares no finished seed with b; no test is possible with fewer than two. 4 of its 4 seeds failed, and 1 of b's."
    said "1 of the seeds of b failed and could not be compared: the comparison rests on those that survived."
    succeeds hinge compare --csv failed.csv --baseline b --test wilcoxon
    said "4 paired seeds, in 1 of which a run failed"
}

@test "without pairs the seeds that a margin takes are those of each variant" {
    {
        echo "variant,seed,value"
        table a 1.0 1.1 0.9 1.05 0.95 1.02 0.98 1.03
        table b 1.06 1.16 0.96 1.11 1.01 1.08 1.04 1.09 | awk -F, '{print $1","$2+100","$3}'
    } >apart.csv
    succeeds hinge compare --csv apart.csv --baseline a --margin 0.1
    said "These seeds find a difference of the margin, 0.1, with"
    succeeds hinge compare --csv apart.csv --baseline a --margin 0.05
    said "seeds each would be needed to find"
}

@test "small values are shown with the digits that tell them apart" {
    {
        echo "variant,seed,value"
        table a 1.1e-9 1.2e-9 1.3e-9
        table b 2.1e-9 2.3e-9 2.2e-9
    } >small.csv
    succeeds hinge compare --csv small.csv --baseline a
    said "b is worse than a by 0.0000000010"
}
