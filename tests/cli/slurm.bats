# slurm: suites handed to a Slurm of one node, which this file starts: parts, merge, going on, looks, hostile names.
load ../fault/helpers

# Slurm and munge with their files in a folder and on free ports; why not stands in $folder/no_slurm.
start_slurm() {
    local slurm=$folder/slurm host ports
    [ "$(id -u)" -eq 0 ] || { echo "Slurm's own daemons are started as root" >"$folder/no_slurm"; return; }
    for program in munged slurmctld slurmd sbatch; do
        command -v $program >/dev/null || { echo "there is no $program" >"$folder/no_slurm"; return; }
    done
    host=$(hostname -s)
    read -ra ports < <(python3 -c 'import socket
s = [socket.socket() for _ in range(2)]
[x.bind(("", 0)) for x in s]
print(*(x.getsockname()[1] for x in s))')
    mkdir -p "$slurm/state" "$slurm/spool"
    chmod 755 "$folder"
    (umask 077 && head -c 1024 /dev/urandom >"$slurm/munge.key")
    cat >"$slurm/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
AuthType=auth/munge
AuthInfo=socket=$slurm/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=100 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$slurm/slurm.conf
    munged --foreground --force --num-threads=1 --key-file="$slurm/munge.key" --socket="$slurm/munge.sock" \
        --pid-file="$slurm/munged.pid" --log-file="$slurm/munged.log" --seed-file="$slurm/munge.seed" >"$slurm/munged.out" 2>&1 3>&- &
    echo $! >"$slurm/pids"
    for _ in $(seq 50); do [ ! -S "$slurm/munge.sock" ] || break; sleep 0.1; done
    slurmctld -D -f "$SLURM_CONF" >"$slurm/slurmctld.out" 2>&1 3>&- &
    echo $! >>"$slurm/pids"
    slurmd -D -f "$SLURM_CONF" >"$slurm/slurmd.out" 2>&1 3>&- &
    echo $! >>"$slurm/pids"
    for _ in $(seq 200); do
        [ "$(sinfo -h -o %T 2>/dev/null)" != idle ] || return 0
        sleep 0.1
    done
    { echo "Slurm does not start here:" && tail -qn 1 "$slurm"/*.log; } | tr '\n' ' ' >"$folder/no_slurm"
}

setup_file() {
    scratch
    little_suite little 6
    undisturbed little
    start_slurm
}

teardown_file() {
    local pids
    mapfile -t pids < <(tac "$folder/slurm/pids" 2>/dev/null)
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done; done
    rm -rf "$folder"
}

setup() { db=$folder/$BATS_TEST_NUMBER/hinge.db; }

needs_slurm() { [ ! -e "$folder/no_slurm" ] || skip "$(<"$folder/no_slurm")"; }

submit() { hinge submit "$folder/little.yaml" --db "$db" --data "$folder/data" "$@"; }

# The queue empties, the merge included.
all_ended() {
    for _ in $(seq 600); do
        [ -n "$(squeue -h)" ] || return 0
        sleep 0.1
    done
    squeue
    tail -n 5 "$db".parts/*/log "$db".parts/*/*/log
    return 1
}

@test "a suite submitted comes back whole, also after sbatch refused it; submitted again, nothing is left" {
    needs_slurm
    run submit -- --partition=nowhere
    [ "$status" -eq 4 ]
    [[ $output == *"invalid partition"*"hinge: sbatch refused (status 1); what it said stands above" ]]
    [ -z "$(squeue -h)" ]
    succeeds submit -- --partition=all
    [[ $output == *"little on cpu: 4 of 4 runs in 2 tasks: job "* && $output == *"then folds them into $db"* ]]
    all_ended
    as_undisturbed "$db"
    sound "$db"
    local parts
    parts=("$db".parts/*/*-of-2/hinge.db)
    [ ${#parts[@]} -eq 2 ]
    for part in "${parts[@]}"; do [ "$(hinge status little --db "$part" --json | json '[r["status"] for r in d["runs"]].count("done")')" = 2 ]; done
    succeeds submit
    [[ $output == "little: all 4 runs have ended, or are not needed; nothing is submitted" ]]
    [ -z "$(squeue -h)" ]
}

@test "cancelled in the middle, a suite goes on where it was, in as many parts or in others" {
    needs_slurm
    sed -e 's/^name: .*/name: long/' -e 's/train.steps: [0-9]*/train.steps: 250/' "$folder/little.yaml" >"$folder/long.yaml"
    long() { hinge submit "$folder/long.yaml" --db "$db" --data "$folder/data" --checkpoint 0.05 "$@"; }
    long --tasks 2 >"$folder/log"
    until [ "$(cat <(sqlite3 -readonly "$(echo "$db".parts/*/1-of-2/hinge.db)" 'SELECT count(*) FROM steps' 2>/dev/null) <(echo 0) | head -n 1)" -gt 0 ]; do
        [ -n "$(squeue -h)" ]
        sleep 0.02
    done
    scancel --name=hinge
    all_ended
    [ "$(sqlite3 "$db" "SELECT count(*) FROM stages WHERE status = 'done' AND kind = 'evaluate'")" -lt 8 ]
    find "$db".parts -name checkpoint | grep -q .
    succeeds long --tasks 2
    all_ended
    grep -q "train done" "$db".parts/*/1-of-2/log
    local arguments
    on "$folder/long/hinge.db" long
    hinge "${arguments[@]}" >/dev/null 2>&1
    diff <(hashes "$db") <(hashes "$folder/long/hinge.db")
    # A seed that comes later: one part of another number, and nothing that is done already.
    sed -i 's/^seeds: .*/seeds: [1, 2, 3]/' "$folder/long.yaml"
    succeeds long
    [[ $output == *"2 of 6 runs in 1 task: job "* ]]
    all_ended
    grep -q "^2 of 2 runs done, 0 failed; 8 stages done now" "$db".parts/*/3-of-3/log
    [ "$(hinge status long --db "$db" --json | json '[(r["status"], r["late"]) for r in d["runs"]].count(("done", True))')" = 2 ]
}

@test "a suite with looks is submitted look by look, and comes to what hinge run comes to" {
    needs_slurm
    cat >"$folder/batch.yaml" <<'YAML'
name: batch
question: Does it stop early?
set: {run.backend: simulated, train.steps: 10}
seeds: {first: 3, step: 3, most: 6}
looks: obrien-fleming
baseline: none
metric: bpb.raw
variants:
  none: {}
  better: {simulated.effect: -0.5}
  same: {simulated.effect: 0.00001}
YAML
    hinge run "$folder/batch.yaml" --db "$folder/whole.db" >/dev/null 2>&1
    succeeds hinge submit "$folder/batch.yaml" --db "$db" --tasks 2
    [[ $output == *"batch on no device (simulated): 9 of 18 runs in 2 tasks: job "*"this is what the next look needs"* ]]
    all_ended
    succeeds hinge submit "$folder/batch.yaml" --db "$db" --tasks 2 --no-merge
    [[ $output == *"when it has ended: hinge merge --db $db $db.parts/"*"/*/hinge.db"* ]]
    all_ended
    [ "$(sqlite3 "$db" "SELECT count(*) FROM stages WHERE status = 'done' AND seed = 6")" -eq 0 ]
    hinge merge --db "$db" "$db".parts/*/*/hinge.db >/dev/null
    succeeds hinge submit "$folder/batch.yaml" --db "$db" --tasks 2
    [[ $output == *"nothing is submitted" ]]
    hinge compare batch --db "$db" --json | diff - <(hinge compare batch --db "$folder/whole.db" --json)
}

@test "names with quotes, \$(...), UTF-8, 300 characters and %a reach the tasks as they are" {
    needs_slurm
    local long name
    db="$folder/a b'c\$(touch pwned) %a \\ \"é漢/h ; touch pwned.db"
    long=$(printf 'x%.0s' $(seq 300))
    mkdir -p "$folder/su \$(touch pwned)'"
    ln -sfn "$PWD/suites/presets" "$folder/su \$(touch pwned)'/presets"
    name="$folder/su \$(touch pwned)'/-x \"q\" \`touch pwned\` %A é 漢.yaml"
    cat >"$name" <<YAML
name: 'quote" tick\` \$(touch pwned) ; touch pwned | ''é 漢 %d #1 & -- $long'
question: 'What does \$(touch pwned) do?'
preset: tiny
set: {run.backend: simulated}
seeds: [1, 2, 3]
baseline: 'none \$(touch pwned)'
metric: bpb.raw
variants:
  'none \$(touch pwned)': {}
  "it's \`touch pwned\` %a": {simulated.effect: 0.01}
scales:
  "s \$(touch pwned)": {seeds: [1, 2]}
YAML
    cd "$folder"
    succeeds hinge submit "$name" --db "$db" --scale "s \$(touch pwned)" --data "\$(touch pwned)"
    all_ended
    cd - >/dev/null
    [ "$(hinge status --db "$db" --json | json '[(s["runs"], s["done"]) for s in (d if isinstance(d, list) else d["suites"])]')" = "[(4, 4)]" ]
    [ -z "$(find "$folder" . -maxdepth 4 -name 'pwned*' -not -path './build/*')" ]
    # What is printed is what a shell takes back, word by word.
    succeeds hinge submit "$name" --db "$folder/other.db" --scale "s \$(touch pwned)" --dry-run -- --comment="it's \$(touch pwned)"
    eval "words=(${lines[0]})"
    [[ " ${words[*]} " == *" $name --data="*" --scale=s \$(touch pwned) "* ]]
    [ "${words[3]}" = "--comment=it's \$(touch pwned)" ]
    [ ! -e "$folder/other.db" ]
}

@test "a task that fails leaves the others' results, its log says why, and --retry does it again" {
    needs_slurm
    # Muon's decay of 10 at a rate of 10 multiplies every weight by -99 a step.
    sed -e 's/^name: .*/name: wild/' -e 's/train.steps: 6/train.steps: 12/' \
        -e 's/^  int8: .*/  wild: {optim.muon_rate: 10, optim.adam_rate: 10, optim.embedding_rate: 10, optim.muon_decay: 10, optim.clip: 0}/' \
        "$folder/little.yaml" >"$folder/wild.yaml"
    wild() { hinge submit "$folder/wild.yaml" --db "$db" --data "$folder/data" --tasks 2 "$@"; }
    wild >/dev/null
    all_ended
    [ "$(hinge status wild --db "$db" --json | json 'sorted((r["variant"], r["status"]) for r in d["runs"])')" = \
        "[('none', 'done'), ('none', 'done'), ('wild', 'failed'), ('wild', 'failed')]" ]
    grep -q "^hinge: 2 of 2 runs failed; " "$db".parts/*/2-of-2/log
    succeeds wild
    [[ $output == *"nothing is submitted" ]]
    succeeds wild --retry
    [[ $output == *"2 of 4 runs in 1 task: job "* ]]
    all_ended
    [ "$(grep -c "^hinge: 2 of 2 runs failed; " "$db".parts/*/2-of-2/log)" -eq 2 ]
}

@test "without Slurm it is told what to do instead, and nothing is made" {
    fails 4 "there is no sbatch in PATH" env PATH="$folder/nothing" "$HINGE" submit "$folder/little.yaml" --db "$db" --data "$folder/data"
    [[ $stderr == *"hinge run SUITE --part I/N --db FILE"* && $stderr == *"hinge merge"* ]]
    [ ! -e "$(dirname "$db")" ]
}

@test "--dry-run prints the words of sbatch and the scripts, which hold no name, and makes nothing" {
    succeeds submit --dry-run --tasks 2 --set train.steps=7 -- --partition=gpu --gpus=1
    [[ ${lines[0]} == "sbatch --job-name=hinge --output=/dev/null --partition=gpu --gpus=1 --parsable --array=1,2 $db.parts/"*"/task.sh $HINGE $db.parts/"*" 2 $folder/little.yaml --data=$folder/data --set=train.steps=7 --device=cpu --checkpoint=30" ]]
    [[ ${lines[1]} == *"--dependency=afterany:JOB $db.parts/"*"/merge.sh $HINGE $db.parts/"*" --db=$db "*"/1-of-2/hinge.db "*"/2-of-2/hinge.db" ]]
    local scripts=${output#*task.sh:}
    scripts=${scripts#*task.sh:}
    [[ $scripts == *'run "$@" --part "$part/$parts" --db "$own/hinge.db"'* && $scripts == *'merge "$@"'* ]]
    [ ! -e "$(dirname "$db")" ]
}

@test "words that are no flags of sbatch, or its own, are refused" {
    fails 2 "'gpu' is no flag of sbatch" submit --dry-run -- --partition gpu
    fails 2 "'--' is no flag of sbatch" submit --dry-run -- --
    for flag in --array=1-9 --dependency=singleton --wrap=ls --parsable -a1 -dafter:1; do
        fails 2 "is set by hinge submit itself" submit --dry-run -- "$flag"
    done
    fails 2 "allowed are 1 to 1000" submit --tasks 1001
}
