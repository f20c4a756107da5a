#!/usr/bin/env bats
# trace: from a number of a comparison to its runs, on a simulated suite.

setup_file() {
    load helpers
    export HINGE
    cd "$BATS_FILE_TMPDIR"
    cat >drawn.yaml <<'YAML'
name: drawn
question: Do the numbers lead back to their runs?
set: {run.backend: simulated, train.steps: 10}
seeds: [1, 2, 3, 4]
baseline: none
metric: bpb.raw
margin: 0.002
variants:
  none: {}
  better: {simulated.effect: -0.02}
YAML
    hinge run drawn.yaml --db drawn.db 2>&1
}

setup() {
    load helpers
    cd "$BATS_FILE_TMPDIR"
}

@test "trace lists every number of the comparison with its runs" {
    succeeds hinge trace drawn --db drawn.db
    [[ $output == *"none.mean"*"1, 3 … 7 (by 2)"* ]]
    [[ $output == *"better.verdict"*"better by the margin"*"1–8"* ]]
}

@test "the query of a cell reads the values that its figure was made of" {
    hinge trace drawn better.delta --db drawn.db --json >cell.json
    query=$(json 'd["query"]' <cell.json)
    delta=$(sqlite3 drawn.db "$query" | awk -F'|' '{ sum += $2 == "better" ? $4 : -$4 } END { printf "%.9f", sum / 4 }')
    [ "$(json "abs(float(d['value']) - ($delta)) < 1e-8" <cell.json)" = True ]
    [ "$(json '[r["run"] for r in d["runs"]]' <cell.json)" = "[1, 2, 3, 4, 5, 6, 7, 8]" ]
}

# made_again EQUAL STEP: notes that the training of run 1 was made again.
made_again() {
    sqlite3 drawn.db "INSERT OR REPLACE INTO replicates (stage, at, host, equal, step)
        SELECT stage, 'then', 'there', $1, $2 FROM run_stages WHERE run = 1 AND part = 0"
}

@test "a training that was made again is traced to when and where, and to the first step that differs" {
    made_again 0 3
    succeeds hinge trace drawn sources.replicate --db drawn.db
    [[ $output == "sources.replicate = -"* ]]
    query=$(hinge trace drawn sources.replicate --db drawn.db --json | json 'd["query"]')
    [ "$(sqlite3 drawn.db "$query")" = "1|none|1|then|there|0|3" ]
}

@test "every number of the tables has a cell whose query gives its values" {
    made_again 1 NULL
    hinge report drawn --db drawn.db -o out --templates "$BATS_TEST_DIRNAME/../../reports" >/dev/null
    hinge trace drawn --db drawn.db --json >cells.json
    python3 - <<'PYTHON'
import csv, json, sqlite3
cells = {c["cell"]: c for c in json.load(open("cells.json"))}
db = sqlite3.connect("drawn.db")
for name in "significance", "spread", "intervals", "gap", "timings", "classes", "sizes":
    for row in csv.DictReader(open(f"out/drawn/{name}.csv")):
        for column, value in row.items():
            if column in ("variant", "late", "read_with", "seeds", "verdict") or not value:
                continue
            cell = cells[f"{row['variant']}.{column}"]
            if value.endswith("%"):
                value = float(value[:-2]) / 100
            shown = 0 if cell["value"] == "-" else float(cell["value"])
            assert abs(shown - float(value)) <= 6e-4 * max(1, abs(shown)) if column == "share_of_cap" else \
                abs(shown - float(value)) <= 1e-10 * max(1, abs(shown)), (name, column, value, cell["value"])
            stored = {r[0]: r[3:] for r in db.execute(cell["query"])}
            assert stored == {r["run"]: (r["value"],) + ((r["minus"],) if "minus" in r else ()) for r in cell["runs"]}
            if cell["formula"].startswith("mean of the "):
                assert abs(sum(v[0] for v in stored.values()) / len(stored) - shown) < 1e-9 * max(1, abs(shown)), cell
for row in csv.DictReader(open("out/drawn/sources.csv")):
    name = {"seed, shared": "seed_shared", "seed, own": "seed_own", "evaluated text": "text"}.get(row["source"], row["source"])
    if row["sd"]:
        assert abs(float(cells["sources." + name]["value"]) - float(row["sd"])) < 1e-10, row
        assert len(cells["sources." + name]["runs"]) == 8
PYTHON
}

@test "a cell of the calibration and of a look is traced too" {
    succeeds hinge trace drawn none.false_positives_paired_t --db drawn.db
    [[ $output == *"share of 2,000 random pairings"* ]]
    sed 's/^name: drawn/name: looked/; s/^seeds: .*/seeds: {first: 2, step: 2, most: 6}\nlooks: pocock/' drawn.yaml >looked.yaml
    hinge run looked.yaml --db drawn.db 2>&1
    [ "$(hinge trace looked better.look_1 --db drawn.db --json | json 'len(d["runs"])')" = 4 ]
    [ "$(hinge trace looked better.look_1 --db drawn.db --json | json 'd["value"]')" = \
        "$(hinge compare looked --db drawn.db --json | json '"%.12g" % d["variants"][1]["looks"][0]["statistic"]')" ]
}

@test "an unknown cell is refused with the nearest one" {
    fails 2 "did you mean 'delta'?" hinge trace drawn better.delt --db drawn.db
    fails 2 "did you mean 'better'?" hinge trace drawn beter.delta --db drawn.db
    fails 2 "a cell is VARIANT.FIGURE, as better.delta" hinge trace drawn better --db drawn.db
    hinge trace drawn better.delta --db drawn.db
    fails 2 "a cell is VARIANT.FIGURE, as none.mean" hinge trace drawn none --db drawn.db
    hinge trace drawn none.mean --db drawn.db
}
