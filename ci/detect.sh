#!/usr/bin/env bash
# How much is detected: the catalogue of bugs and the clean variants (cases/bugs), each put into an engine
# and judged by replay: the dump of all its operations, and that of its layers. Prints a table, and fails where
# a goal is missed.
set -euo pipefail

usage() {
    cat <<'END_OF_USAGE'
usage: ci/detect.sh [OPTIONS]

Builds and runs cases/bugs/detect.c, as many processes as there are processors, and prints its table.

  --quick           a share of the trials, spread over all: a minute or two
  --with-llamacpp   also runs cases/llamacpp_bugs (needs ci/install.sh llamacpp and recorder's Python)
  --merge FILE.csv  also counts trials of that file (cases/bugs/detect.c says what is in it)
  --json FILE       writes the table there as JSON too
  --save            also puts the table into docs/detection.md, between <!-- detect --> and <!-- /detect -->;
                    only without --quick
  --keep            keeps build/detect/*.csv and *.log, a line for each trial that went wrong; they are
                    there after a failure in any case
  -j N              processes; by default the number of processors
  --help            this text

exit codes: 0 every goal is met, 1 one is missed, 2 a trial or the build does not work
END_OF_USAGE
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
out=$root/build/detect
n_jobs=$(nproc)
every=1
json=
save=
keep=
llamacpp=
merged=()

wrong_usage() {
    echo "error: $1" >&2
    usage >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --quick) every=12 ;;
    --with-llamacpp) llamacpp=1 ;;
    --save) save=1 ;;
    --keep) keep=1 ;;
    --merge | --json | -j)
        [ $# -ge 2 ] || wrong_usage "no value for $1"
        case $1 in
        --merge) merged+=("$2") ;;
        --json) json=$2 ;;
        -j) n_jobs=$2 ;;
        esac
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) wrong_usage "no option '$1'" ;;
    esac
    shift
done
[ -z "$save" ] || [ "$every" = 1 ] || wrong_usage "--save wants all trials, not --quick"
case $n_jobs in
'' | *[!0-9]* | 0) wrong_usage "-j '$n_jobs' is not a number" ;;
esac

rm -rf "$out"
mkdir -p "$out"
build() {
    ci/install.sh build && cmake --preset parity && cmake --build --preset parity -j "$n_jobs" --target refparity-detect
}
if ! build >"$out/build.log" 2>&1; then
    tail -n 40 "$out/build.log" >&2
    exit 2
fi
detect=$root/build/parity/bin/refparity-detect
n_trials=$("$detect" --list --every "$every" | tail -n 1 | sed 's/.*, //; s/ trials//')
echo "$n_trials trials in $n_jobs processes"

# progress: a line now and then until the processes are done.
progress() {
    local shown=0 done_now
    while sleep 2; do
        done_now=$(($(cat "$out"/share-*.csv 2>/dev/null | grep -vc '^ground' || true) / 2)) # a line a dump
        if [ $((done_now - shown)) -ge $((n_trials / 10 + 1)) ]; then
            shown=$done_now
            echo "  $done_now of $n_trials"
        fi
    done
}

pids=()
for ((i = 1; i <= n_jobs; i++)); do
    "$detect" --every "$every" --share "$i/$n_jobs" --verbose --csv "$out/share-$i.csv" 2>"$out/share-$i.log" &
    pids+=($!)
done
progress &
progress_pid=$!
code=0
for pid in "${pids[@]}"; do
    wait "$pid" || code=2
done
kill "$progress_pid" 2>/dev/null || true
wait "$progress_pid" 2>/dev/null || true
if [ "$code" -ne 0 ]; then
    grep -h '^refparity-detect:' "$out"/share-*.log | head -n 20 >&2
    echo "error: not every trial could be run: see $out" >&2
    exit 2
fi

if [ -n "$llamacpp" ]; then
    python=$(ci/record.sh --print-python)
    for slots in operations layers; do
        echo "through llama.cpp, dumps of $slots"
        status=0
        "$python" cases/llamacpp_bugs/run.py build/parity --csv "$out/llamacpp-$slots.csv" --slots "$slots" \
            --every "$every" --work "$out/llamacpp" >"$out/llamacpp-$slots.log" 2>&1 || status=$?
        [ "$status" -le 1 ] || {
            tail -n 20 "$out/llamacpp-$slots.log" >&2
            exit 2
        }
        merged+=("$out/llamacpp-$slots.csv")
    done
fi

files=("$out"/share-*.csv ${merged[@]+"${merged[@]}"})
[ -z "$json" ] || "$detect" --table --json "${files[@]}" >"$json"
"$detect" --table --check "${files[@]}" >"$out/table.txt" || code=$?
cat "$out/table.txt"
if [ -n "$save" ]; then
    "$detect" --table --markdown "${files[@]}" >"$out/table.md"
    page=docs/detection.md
    if ! grep -q '^<!-- detect -->$' $page || ! grep -q '^<!-- /detect -->$' $page; then
        echo "error: $page has no <!-- detect --> and <!-- /detect -->" >&2
        exit 2
    fi
    awk -v table="$out/table.md" '
        /^<!-- \/detect -->$/ { inside = 0 }
        !inside { print }
        /^<!-- detect -->$/ { inside = 1; while ((getline line < table) > 0) print line }
    ' $page >"$out/page"
    cat "$out/page" >$page
fi
if [ "$code" -ne 0 ]; then
    echo "what went wrong is in $out/share-*.log"
elif [ -z "$keep" ]; then
    rm -rf "$out"
fi
exit "$code"
