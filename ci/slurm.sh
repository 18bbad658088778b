#!/usr/bin/env bash
# The matrix, or the recording of its fixtures, on a Slurm cluster: a job array over shards of the matrix.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/slurm.sh run    [FILTER] [OPTION ...]
       ci/slurm.sh report [OPTION ...]
       ci/slurm.sh record [FILTER] [OPTION ...]

run     submits the matrix as job arrays, one job a shard; with --wait it waits and reports
report  waits until the jobs of `run` have ended, and puts their results together: prints the
        summary, writes results.json, junit.xml and index.html into DIR/reports
record  submits the recording of the fixtures, one job a model

The build tree, the store and the models have to be in folders that all nodes share. The tree is
configured and built before (ci/parity.sh does, or cmake). Entries of the matrix say what their jobs
need: "slurm": {"mem": "64G", "gres": "gpu:1", "time": "2:00:00"}; each kind gets an array of its own.
A job whose node fails is run again, whole; what it had found before does not count.

FILTER is an extended regular expression on names, as `refparity shard --filter` takes it.

  --build DIR        the build tree; default build/parity
  --shards N         run: into how many jobs; default 8, or as many as there are prompts
  --store DIR        record: into this store; default the one in the source tree
  --cpus N           processors of a job; default 1
  --partition NAME, --account NAME
                     passed on to sbatch
  --sbatch OPTION    any other option of sbatch, as --sbatch=--qos=low; may be given again
  --wait             do not end before the jobs have
  --report-job       run: submit the report, too, as a job that starts when all others have ended
  --patience SECONDS how long Slurm may not answer before waiting is given up; default 300
  --dry-run          print the sbatch commands and run none
  --help

exit codes: run, record: 0 submitted, 2 not; run --wait, report: 0 pass, 1 divergence, 2 error, as on
one machine; record --wait: 0 all recorded, 2 not
END
}

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# ---- what a job runs. Slurm starts it again from its beginning where its node fails.

# shard BUILD N FILTER: shard SLURM_ARRAY_TASK_ID of N
job_shard() {
    local build=$1 n=$2 filter=$3 select status=0 folder tool
    tool=$(tool_of "$build")
    export REFPARITY_SHARD=$SLURM_ARRAY_TASK_ID/$n
    select=$("$tool" shard --filter "$filter" "$REFPARITY_SHARD" "$build") || exit 2
    # ctest keeps its log and its times in the folder where it runs: each shard has one
    folder=$build/refparity/slurm/ctest/$SLURM_ARRAY_TASK_ID-of-$n
    mkdir -p "$folder"
    printf 'subdirs("%s")\n' "$build" >"$folder/CTestTestfile.cmake"
    echo "shard $REFPARITY_SHARD on $(hostname), node ${SLURMD_NODENAME:-?}, attempt $((${SLURM_RESTART_COUNT:-0} + 1))"
    ctest --test-dir "$folder" --parallel "${SLURM_CPUS_PER_TASK:-1}" --output-on-failure \
        --no-label-summary --no-tests=error --label-exclude '^unit$' --tests-regex "$select" || status=$?
    "$tool" report "$build" || exit $?
    [ $status = 0 ] || {
        rm -rf "$build/reports/shards/$SLURM_ARRAY_TASK_ID-of-$n" # its pairs are errors then
        fail "ctest failed (exit code $status), although every pair passed"
    }
}

# record BUILD STORE: the entries of line SLURM_ARRAY_TASK_ID of record.tasks
job_record() {
    local state=$1/refparity/slurm entry entries status=0
    rm -f "$state/record/$SLURM_ARRAY_TASK_ID"
    IFS=$'\t' read -ra entries < <(sed -n "${SLURM_ARRAY_TASK_ID}p" "$state/record.tasks" | cut -f 4-)
    for entry in "${entries[@]}"; do
        echo "recording $entry on $(hostname), attempt $((${SLURM_RESTART_COUNT:-0} + 1))"
        "$root/ci/record.sh" "$entry/" ${2:+--store "$2"} || status=$?
    done
    echo $status >"$state/record/$SLURM_ARRAY_TASK_ID.part"
    mv "$state/record/$SLURM_ARRAY_TASK_ID.part" "$state/record/$SLURM_ARRAY_TASK_ID"
    exit $status
}

# ---- what the user runs

tool_of() { # BUILD: its refparity, by its config.json
    local tool
    tool=$(sed -n 's/^  "tool": "\(.*\)",$/\1/p' "$1"/refparity/config.json "$1"/refparity/*/config.json 2>/dev/null | head -n 1) || true
    [ -x "$tool" ] || fail "$1 is no build tree with refparity in it: configure and build it first (ci/parity.sh does)"
    printf '%s\n' "$tool"
}

require_slurm() {
    $dry_run && return
    command -v sbatch >/dev/null || fail "there is no sbatch here: run this on a node of a Slurm cluster from which jobs are submitted, or try it with --dry-run"
    [ "$command" != report ] || return 0 # it has patience
    local answer
    answer=$(scontrol ping 2>&1) || true
    grep -q ' is UP' <<<"$answer" ||
        fail "Slurm's controller does not answer ($(head -n 1 <<<"$answer")): ask who runs the cluster, then run this again; nothing was submitted"
}

# The jobs of an earlier run that have not ended, as their array's number; one run at a time in a build tree.
unfinished() { # FILE of job numbers
    local queue
    [ -s "$1" ] || return 0
    queue=$(squeue --noheader --array --user "$(id -un)" --format '%F %T %r') || return 2
    awk 'NR == FNR { is_ours[$1]; next } $1 in is_ours' "$1" - <<<"$queue"
}

require_idle() { # FILE
    local left
    $dry_run && return
    left=$(unfinished "$1") || fail "squeue failed: see its message above"
    [ -z "$left" ] || fail "jobs of an earlier call are still in the queue: wait for them (ci/slurm.sh report --build $build), or end them: scancel $(cut -d ' ' -f 1 <<<"$left" | sort -u | paste -sd ' ')"
}

# submit ARRAY MEM GRES TIME LABEL COMMAND...: prints the job's number, or with --dry-run the command
submit() {
    local array=$1 mem=$2 gres=$3 time=$4 label=$5 command job
    shift 5
    printf -v command '%q ' "$root/ci/slurm.sh" "$@"
    local line=(sbatch --parsable --job-name "refparity-$label" --requeue --open-mode append --ntasks 1
        --cpus-per-task "$cpus" --chdir "$build" --output "$state/log/$label-%A_%a.log")
    [ -z "$array" ] || line+=(--array "$array")
    [ "$mem" = - ] || line+=(--mem "$mem")
    [ "$gres" = - ] || line+=(--gres "$gres")
    [ "$time" = - ] || line+=(--time "$time")
    line+=(${passed[@]+"${passed[@]}"} --wrap "exec $command")
    if $dry_run; then
        printf '%q ' "${line[@]}"
        echo
        return
    fi
    job=$("${line[@]}") || fail "sbatch refused it; what had been submitted before: $(paste -sd ' ' "$state/$label.jobs" 2>/dev/null)"
    echo "${job%%;*}"
}

# submit_all LABEL COMMAND... <LINES: lines "number <tab> what <tab> mem <tab> gres <tab> time", of which
# neighbours that need the same become one array
submit_all() {
    local label=$1 first='' last='' key='' number needs
    shift
    flush() {
        local mem gres time job
        [ -n "$first" ] || return 0
        IFS=$'\t' read -r mem gres time <<<"$key"
        job=$(submit "$first-$last" "$mem" "$gres" "$time" "$label" "$@") || exit 2
        echo "$job"
        $dry_run || echo "$job" >>"$state/$label.jobs"
    }
    while IFS=$'\t' read -r number _ needs; do
        if [ "$key" != "$needs" ]; then
            flush "$@"
            first=$number
            key=$needs
        fi
        last=$number
    done
    flush "$@"
}

# Waits until none of the jobs in the file is in the queue.
wait_for() { # FILE TOTAL
    local left silent=0 shown='' line
    while true; do
        if left=$(unfinished "$1"); then
            silent=0
            [ -n "$left" ] || return 0
            line=$(awk -v total="$2" '
                { n[$2]++; if ($2 == "PENDING") reason = $3 }
                END {
                    printf "%d of %d ended", total - NR, total
                    for (state in n) printf ", %d %s", n[state], tolower(state)
                    if (reason != "" && reason != "None") printf " (%s)", reason
                }' <<<"$left")
            [ "$line" = "$shown" ] || say "$line"
            shown=$line
            if ! grep -qiv ' PENDING .*held' <<<"$left"; then
                fail "Slurm holds the jobs that are left (see squeue): let them go on with scontrol release, or end them with scancel, then run this again"
            fi
        else
            silent=$((silent + interval))
            [ $silent -lt "$patience" ] ||
                fail "Slurm has not answered for $silent s: the jobs may go on; when it answers again: ci/slurm.sh report --build $build"
        fi
        sleep "$interval"
    done
}

report() {
    local n filter
    [ -s "$state/run.shards" ] || fail "nothing was submitted from $build: ci/slurm.sh run first"
    IFS=$'\t' read -r n filter <"$state/run.shards"
    wait_for "$state/run.jobs" "$n"
    mkdir -p "$build/reports/shards"
    exec "$tool" report --merge "$build/reports" --filter "$filter" ${report_options[@]+"${report_options[@]}"} "$build/reports/shards"
}

run() {
    local list jobs n_used job
    require_idle "$state/run.jobs"
    list=$("$tool" shard --list --filter "$filter" "$n_shards" "$build") || exit 2
    n_used=$(wc -l <<<"$list")
    if ! $dry_run; then
        # what an earlier run left is no result of this one
        rm -rf "$build/reports/shards"
        mkdir -p "$state/log"
        : >"$state/run.jobs"
        printf '%s\t%s\n' "$n_used" "$filter" >"$state/run.shards"
    fi
    jobs=$(submit_all run shard "$build" "$n_shards" "$filter" <<<"$list") || exit 2
    if $dry_run; then
        printf '%s\n' "$jobs"
        return
    fi
    say "submitted $n_used shards as $(paste -sd ' ' <<<"$jobs"); logs: $state/log"
    if $report_job; then
        passed+=(--dependency "afterany:$(paste -sd : <<<"$jobs")")
        job=$(submit '' - - - report report --build "$build") || exit 2
        say "the report is job $job: $state/log/report-$job*.log, its exit code is the matrix's"
    fi
    $wait || {
        $report_job || say "next: ci/slurm.sh report --build $build"
        return 0
    }
    report
}

# A model is recorded by one job, whatever number of entries and prompts it has: it is loaded the fewest times.
record() {
    local jobs n missing=() i tasks=$state/record.tasks
    require_idle "$state/record.jobs"
    if $dry_run; then tasks=$(mktemp); fi
    $dry_run || "$root/ci/record.sh" --print-python >/dev/null || exit 2 # once, not in each job
    mkdir -p "$state/record" "$state/log"
    "$tool" shard --entries --filter "$filter" "$build" |
        awk -F '\t' '
            { key = $3 "\t" $4 "\t" $5; task = key "\t" $1 }
            !(task in entries) { order[++n] = task; of[task] = key }
            { entries[task] = entries[task] "\t" $2 }
            END { for (i = 1; i <= n; i++) print of[order[i]] entries[order[i]] }' |
        LC_ALL=C sort -s -t $'\t' -k 1,3 >"$tasks"
    n=$(wc -l <"$tasks")
    [ "$n" -gt 0 ] || exit 2
    if ! $dry_run; then
        rm -f "$state"/record/*
        : >"$state/record.jobs"
    fi
    jobs=$(awk -F '\t' -v OFS='\t' '{ print NR, "-", $1, $2, $3 }' "$tasks" |
        submit_all record record-task "$build" ${store:+"$store"}) || exit 2
    if $dry_run; then
        rm -f "$tasks"
        printf '%s\n' "$jobs"
        return
    fi
    say "submitted the recording of $n models as $(paste -sd ' ' <<<"$jobs"); logs: $state/log"
    $wait || return 0
    wait_for "$state/record.jobs" "$n"
    for ((i = 1; i <= n; i++)); do
        [ "$(cat "$state/record/$i" 2>/dev/null)" = 0 ] || missing+=("$(sed -n "${i}p" "$state/record.tasks" | cut -f 4- | tr '\t' ' ')")
    done
    [ ${#missing[@]} -eq 0 ] || fail "not all was recorded: see the logs in $state/log of ${missing[*]}"
    say "all recorded"
}

case ${1:-} in
shard)
    job_shard "${@:2}"
    exit 0
    ;;
record-task) job_record "${@:2}" ;;
run | report | record)
    command=$1
    shift
    ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac

build=$root/build/parity
filter=
n_shards=8
cpus=1
store=
patience=300
interval=${REFPARITY_SLURM_INTERVAL:-5} # seconds between questions to Slurm
dry_run=false
wait=false
report_job=false
passed=()
report_options=()
need_value() { [ -n "${2:-}" ] || fail "$1 needs a value: see ci/slurm.sh --help"; }
need_number() { [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1 needs a number from 1, found '${2:-}'"; }
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --*=*)
        option=${1%%=*}
        value=${1#*=}
        shift
        set -- "$option" "$value" "$@"
        continue
        ;;
    --build) need_value "$@" && build=$2 && shift ;;
    --shards) need_number "$@" && n_shards=$2 && shift ;;
    --cpus) need_number "$@" && cpus=$2 && shift ;;
    --patience) need_number "$@" && patience=$2 && shift ;;
    --store) need_value "$@" && store=$(realpath -m "$2") && shift ;;
    --partition | --account) need_value "$@" && passed+=("$1" "$2") && shift ;;
    --sbatch) need_value "$@" && passed+=("$2") && shift ;;
    --wait) wait=true ;;
    --report-job) report_job=true ;;
    --dry-run) dry_run=true ;;
    --markdown | --strict-warnings) report_options+=("$1") ;;
    -*) fail "unknown option $1: see ci/slurm.sh --help" ;;
    *)
        [ -z "$filter" ] || fail "one filter at most, found '$filter' and '$1'"
        filter=$1
        ;;
    esac
    shift
done
[ -d "$build" ] || fail "there is no build tree $build: configure and build it first (ci/parity.sh does)"
build=$(cd "$build" && pwd -P)
state=$build/refparity/slurm
tool=$(tool_of "$build")
[ "$(cat "$build/refparity/matrices")" = config.json ] ||
    fail "$build has several matrices, or one with a PREFIX: expected one without"
require_slurm
"$command"
