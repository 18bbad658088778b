#!/usr/bin/env bash
# ci/slurm.sh on a real cluster: slurmctld, munged and two slurmd of this machine's packages, in a scratch
# folder. A part of the tiny matrix runs as a job array; a node is killed in the middle; the merged results
# have to be those of one machine.
# usage: cases/slurm_test.sh BUILD [--record]; BUILD is a build tree with the matrix and its engines built;
# --record: two jobs record the same fixtures at once, too (Python, a minute).
# exit codes: 0 all as expected, 1 not, 2 the environment is not complete, 77 slurmd cannot run here (with
# REFPARITY_REQUIRE=1: 2)
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(cd "${1:?usage: cases/slurm_test.sh BUILD [--record]}" && pwd -P) || exit 2
"$root/ci/install.sh" slurm || exit 2
[ "$(id -u)" = 0 ] || { echo "error: the test's daemons need root: run it in a container" >&2; exit 2; }
tool=$build/bin/refparity
filter='^tiny-qwen3-bf16/'
scratch=$(mktemp -d /tmp/refparity-slurm.XXXXXX)
munged='' slurmctld='' n1='' n2=''
export SLURM_CONF=$scratch/slurm.conf REFPARITY_SLURM_INTERVAL=1 REFPARITY_MODELS=$scratch/no-models
PATH=$PATH:/usr/sbin

# kill_tree PID: it and all below it, the jobs of a node among them
kill_tree() {
    local child
    for child in $(pgrep -P "$1"); do kill_tree "$child"; done
    kill -KILL "$1" 2>/dev/null
}
cleanup() {
    local daemon
    for daemon in $n1 $n2 $slurmctld $munged; do kill_tree "$daemon"; done
    kill_steps
    rm -rf "$scratch"
}
# Of this test's daemons alone: their configuration is in their environment.
kill_steps() { # [NODE]
    local pid
    for pid in $(pgrep -x slurmstepd); do
        tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -x "SLURM_CONF=$SLURM_CONF" >/dev/null || continue
        [ -z "${1:-}" ] || tr '\0' '\n' <"/proc/$pid/environ" | grep -x "TEST_NODE=$1" >/dev/null || continue
        kill_tree "$pid"
    done
}
trap cleanup EXIT
trap 'exit 130' INT TERM

n_failed=0
step() { printf '== %s (%d s)\n' "$*" "$SECONDS"; }
wrong() {
    printf 'WRONG: %s\n' "$*"
    n_failed=$((n_failed + 1))
}
die() {
    printf 'error: %s\n' "$*" >&2
    tail -n 30 "$scratch"/*.log >&2
    exit 2
}
# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}
refused() { # CODE MESSAGE OUTPUT
    [ "$1" = 2 ] && grep -q "$2" "$3" && return
    wrong "expected exit code 2 and '$2', found $1: $(cat "$3")"
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# ---- what is submitted: an array for each kind of resources; nothing where there is no Slurm
step "the sbatch commands of a matrix whose entries need different things"
mkdir -p "$scratch/tree/refparity"
entry() { # NAME SLURM
    echo "{\"name\": \"$1\", \"hf_model\": \"o/$1\", \"n_layers\": 1, \"prompts\": [\"a\", \"b\"], \"slurm\": {$2}}"
}
cat >"$scratch/tree/matrix.json" <<END
{"engines": {"e": {"argv": ["e", "{dump}", "{prompt}"], "layout": "npy"}}, "tests": [$(entry small ''),
 $(entry large '"mem": "64G", "gres": "gpu:1", "time": "2:00:00"'), $(entry tiny '')]}
END
cat >"$scratch/tree/refparity/config.json" <<END
{
  "matrix": "$scratch/tree/matrix.json", "prefix": "", "build_dir": "$scratch/tree", "work_dir": "$scratch/tree/refparity",
  "reports_dir": "$scratch/tree/reports", "record_command": "", "stores": [], "targets": {},
  "tool": "$tool",
  "_": ""
}
END
echo config.json >"$scratch/tree/refparity/matrices"
planned() { "$root/ci/slurm.sh" "$@" --build "$scratch/tree" --dry-run --partition p --account=a --sbatch=--qos=low; }
planned run --shards 3 >"$scratch/planned.txt" 2>&1 || wrong "dry run: $(cat "$scratch/planned.txt")"
[ "$(grep -c '^sbatch .*--requeue .*--partition p --account a --qos=low --wrap' "$scratch/planned.txt")" = 2 ] || wrong "expected two arrays: $(cat "$scratch/planned.txt")"
grep -q -- '--array 1-2 --partition' "$scratch/planned.txt" || wrong "no array of what needs nothing: $(cat "$scratch/planned.txt")"
grep -q -- '--array 3-3 --mem 64G --gres gpu:1 --time 2:00:00 ' "$scratch/planned.txt" || wrong "no array of what needs a GPU: $(cat "$scratch/planned.txt")"
planned record >"$scratch/planned.txt" 2>&1 || wrong "dry run of record: $(cat "$scratch/planned.txt")"
grep -q -- '--array 3-3 \|--array 1-1 ' "$scratch/planned.txt" || wrong "record: no array for each kind: $(cat "$scratch/planned.txt")"
planned run --shards 1 >"$scratch/planned.txt" 2>&1
refused $? 'expected at least 2 shards' "$scratch/planned.txt"
[ ! -e "$scratch/tree/reports" ] || wrong "a dry run wrote reports"
mkdir "$scratch/bin"
for program in bash dirname sed head cat id; do ln -s "$(command -v $program)" "$scratch/bin/"; done
PATH=$scratch/bin "$root/ci/slurm.sh" run --build "$scratch/tree" >"$scratch/planned.txt" 2>&1
refused $? 'there is no sbatch here' "$scratch/planned.txt"

# ---- the cluster
step "starting munged, slurmctld and two nodes"
host=$(hostname -s)
mkdir -p "$scratch"/{munge,state,n1,n2}
chmod 700 "$scratch/munge"
head -c 1024 /dev/urandom >"$scratch/munge/key"
chmod 600 "$scratch/munge/key"
chmod 755 "$scratch"
cat >"$SLURM_CONF" <<END
ClusterName=refparity-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$scratch/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation=$scratch/state
SlurmdSpoolDir=$scratch/%n
SlurmctldPidFile=$scratch/slurmctld.pid
SlurmdPidFile=$scratch/%n.pid
SlurmctldTimeout=10
SlurmdTimeout=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobRequeue=1
KillWait=1
MessageTimeout=3
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
munged --foreground --force --key-file="$scratch/munge/key" --socket="$scratch/munge/socket" \
    --pid-file="$scratch/munge/pid" --log-file="$scratch/munge/log" --seed-file="$scratch/munge/seed" >"$scratch/munged.log" 2>&1 &
munged=$!
disown $munged
until_true 5 test -S "$scratch/munge/socket" || die "munged does not start"
slurmctld -D -f "$SLURM_CONF" >"$scratch/slurmctld.log" 2>&1 &
slurmctld=$!
disown $slurmctld
start_node() { TEST_NODE=$1 slurmd -D -N "$1" -f "$SLURM_CONF" >>"$scratch/slurmd-$1.log" 2>&1 & }
start_node n1
n1=$!
disown $n1
start_node n2
n2=$!
disown $n2
two_idle() { [ "$(sinfo --noheader --Node --format %t | grep -c '^idle$')" = 2 ]; }
if ! until_true 20 two_idle; then
    grep -q 'No filesystem mounted on /sys/fs/cgroup' "$scratch/slurmd-n1.log" && [ -z "${REFPARITY_REQUIRE:-}" ] && {
        echo "skipped: slurmd does not start without a file system of cgroups, and /sys/fs/cgroup has none"
        exit 77
    }
    die "the nodes do not come up"
fi

slurm() { "$root/ci/slurm.sh" "$@" --build "$build"; }

# ---- one machine, for comparison: the same tests in one session of the same tree
step "the matrix on one machine"
REFPARITY_SHARD=1/1 ctest --test-dir "$build" --parallel 2 --label-exclude '^unit$' \
    --tests-regex "$("$tool" shard --filter "$filter" 1/1 "$build")" >"$scratch/one.log" 2>&1
REFPARITY_SHARD=1/1 "$tool" report "$build" >"$scratch/one.txt"
one=$?
[ $one = 0 ] || wrong "one machine: exit code $one: $(tail -n 3 "$scratch/one.txt")"
cp "$build/reports/shards/1-of-1/results.json" "$scratch/one.json"
cp "$build/reports/shards/1-of-1/junit.xml" "$scratch/one.xml"
plain_junit() { sed -E 's/ time(stamp)?="[^"]*"//g; s/ after [0-9.]+ s//g; s,/shards/[0-9]+-of-[0-9]+,,g; s/(_s" value=")[^"]*/\1/' "$1"; }

# same A B: are two results.json the same but for times, and for folders that are named for their shard?
same() {
    python3 - "$1" "$2" <<'END'
import json, re, sys
TIMES = {"compare_s", "replay_s", "engine_s", "harness_s", "timestamp", "session", "shard", "shards"}
def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return re.sub(r"/shards/\d+-of-\d+| after [0-9.]+ s", "", value) if isinstance(value, str) else value
a, b = (plain(json.load(open(path))) for path in sys.argv[1:])
names = [p["pair"] for p in b["pairs"]]
assert names and len(names) == len(set(names)), "a pair is there twice"
for key in a.keys() | b.keys():
    if a.get(key) == b.get(key):
        continue
    print("they differ in", key)
    def show(x, y, path):
        if isinstance(x, dict) and isinstance(y, dict):
            for k in x.keys() | y.keys():
                show(x.get(k), y.get(k), f"{path}.{k}")
        elif isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
            for i, (u, v) in enumerate(zip(x, y)):
                show(u, v, f"{path}[{i}]")
        elif x != y:
            print(f"  {path}: {str(x)[:200]} / {str(y)[:200]}")
    show(a.get(key), b.get(key), key)
    sys.exit(1)
print(f"{len(names)} pairs, the same")
END
}

# ---- an array over both nodes, one of which dies
step "a job array; node n1 is killed while it runs a shard"
rm -rf "$build"/refparity/shards/*-of-4
slurm run "$filter" --shards 4 || die "run: exit code $?"
runs_on_n1() { squeue --noheader --nodelist n1 --states RUNNING --format %A | grep -q . && ls "$build"/refparity/shards/*-of-4/pairs/*/*/*/run.json; }
until_true 20 runs_on_n1 || die "no shard runs on n1"
slurm run "$filter" --shards 4 >"$scratch/second.txt" 2>&1
refused $? 'still in the queue' "$scratch/second.txt"
kill_steps n1
kill_tree "$n1"
scontrol update nodename=n1 state=down reason=killed || wrong "scontrol: n1 down"
start_node n1 # it comes back, without its jobs
n1=$!
disown $n1
slurm report >"$scratch/merged.txt" 2>"$scratch/progress.txt"
merged=$?
cat "$scratch/progress.txt" "$scratch/merged.txt"
[ $merged = "$one" ] || wrong "after the death of a node: exit code $merged, on one machine $one"
grep -q 'attempt 2' "$build"/refparity/slurm/log/*.log || wrong "no shard was run a second time"
same "$scratch/one.json" "$build/reports/results.json" || wrong "the merged results are not those of one machine"
diff <(plain_junit "$scratch/one.xml") <(plain_junit "$build/reports/junit.xml") || wrong "junit.xml is not that of one machine"
diff <(sed '/^reports: /d' "$scratch/one.txt") <(sed '/^reports: /d' "$scratch/merged.txt") || wrong "the summaries differ"

# ---- a shard that is lost for good is an error by the names of its pairs
step "a shard that is lost"
rm -rf "$build/reports/shards/2-of-4"
slurm report >"$scratch/lost.txt" 2>&1
[ $? = 2 ] || wrong "a lost shard: expected exit code 2"
lost=$("$tool" shard --filter "$filter" --names 2/4 "$build")
for pair in $lost; do grep -q "ERROR *$pair: no shard has it" "$scratch/lost.txt" || wrong "$pair was lost, and nothing says so"; done

# ---- an engine that diverges gives exit code 1
step "a shard whose engine has a bug"
until_true 20 two_idle || die "n1 does not come back"
cat >"$scratch/engine.sh" <<END
#!/bin/sh
# in HF's place: engine.py --model CHECKPOINT ...
shift 3
exec "$build/bin/refparity-embedded-bugs" --model "$root/fixtures/tiny/qwen3/qwen3-bf16.gguf" --bug ffn-half --layer 2 "\$@"
END
chmod +x "$scratch/engine.sh"
REFPARITY_TRANSFORMERS_PYTHON=$scratch/engine.sh slurm run '^tiny-qwen3-transformers/per-token/' --shards 2 --wait >"$scratch/bug.txt" 2>&1
bug=$?
[ $bug = 1 ] || wrong "an engine with a bug: expected exit code 1, found $bug: $(tail -n 5 "$scratch/bug.txt")"
grep -q 'FAIL *tiny-qwen3-transformers/.*first divergence h2 ' "$scratch/bug.txt" || wrong "the bug is not named: $(cat "$scratch/bug.txt")"

# ---- two writers of one fixture agree: a job, and a recording beside it
if [ "${2:-}" = --record ]; then
    step "two recordings of the same fixtures at once"
    store=$scratch/store
    slurm record '^tiny-qwen3-bf16/' --store "$store" --wait >"$scratch/record.txt" 2>&1 &
    job=$!
    "$root/ci/record.sh" tiny-qwen3-bf16/ --store "$store" >"$scratch/beside.txt" 2>&1 || wrong "the recording beside: $(cat "$scratch/beside.txt")"
    wait $job || wrong "record: $(cat "$scratch/record.txt")"
    [ -z "$(find "$store" -name '*.tmp')" ] || wrong "left in the store: $(find "$store" -name '*.tmp')"
    for file in $(cd "$store" && find . -name '*.npz'); do
        python3 -m zipfile -t "$store/$file" >/dev/null || wrong "$file is not whole"
    done
    "$root/ci/record.sh" tiny-qwen3-bf16/ --check --store "$store" >"$scratch/check.txt" 2>&1 || wrong "what was recorded differs: $(cat "$scratch/check.txt")"
fi

# ---- a controller that does not answer
step "the controller is down"
kill_tree "$slurmctld"
slurm run "$filter" >"$scratch/down.txt" 2>&1
refused $? "controller does not answer" "$scratch/down.txt"
slurm report --patience 2 >"$scratch/down.txt" 2>&1
refused $? "Slurm has not answered" "$scratch/down.txt"

step "done"
[ $n_failed = 0 ] || exit 1
