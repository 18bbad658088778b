#!/usr/bin/env bash
# What the project's speed goals are measured with. Nothing passes or fails here: it prints a table.
set -euo pipefail

usage() {
    cat <<'END'
usage: ci/bench.sh [--save] [SECTION ...]

Measures, all of these by default, and prints a table with the goals beside the figures:

  compare  the comparer beside NumPy and beside a plain read of the same memory
  memory   a fixture of 1 GiB: what `refparity diff` allocates
  warm     the harness's own time per pair, apart from the engine's, for 4 and for 40 layers
  field    8 pairs of tiny models with llama.cpp (ci/get-llamacpp.sh): a Python process per pair as
           scripts in the field have it, beside a warm ctest run that starts the engine
  replay   64 positions of models with real shapes and random weights, replayed: the whole Qwen3-0.6B
           and Llama-3.2-1B, and 8 of Qwen3.5-4B's 32 layers (two periods); with CBLAS and without,
           beside one run of the C model
  experts  64 positions of a layer of large mixtures of experts, random weights in Q4_K_M's types, replayed:
           Qwen3.6-35B-A3B's shape (with linear and with full attention), and DeepSeek-V3's
  smollm2  a real model (ci/get-smollm2.sh --checkpoint) in llama.cpp (ci/get-llamacpp.sh): what dumping
           every operation costs; and `refparity replay` of that dump beside one forward by Hugging
           Face transformers
  build    configuring and building 100 pairs of 30 layers
  parity   ci/parity.sh from a clean tree, with everything installed

  --save    also puts the table into docs/figures.md, between <!-- bench --> and <!-- /bench -->; only
            with all sections
  --help    this text

Needs what ci/parity.sh and ci/record.sh need, 9 GiB of disk below ${TMPDIR:-/tmp}, and some
minutes. Works in a scratch folder, which it removes. On a busy machine, trust the ratios: both
sides of each are measured in turn.

exit codes: 0 measured, 2 wrong usage, something is missing, or what is measured does not work
END
}

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sections=()
save=false
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --save) save=true ;;
    compare | memory | warm | field | replay | experts | smollm2 | build | parity) sections+=("$1") ;;
    *) fail "no section '$1': see ci/bench.sh --help" ;;
    esac
    shift
done
if [ "$save" = true ]; then
    [ ${#sections[@]} -eq 0 ] || fail "--save needs all sections"
fi
[ ${#sections[@]} -gt 0 ] || sections=(compare memory warm field replay experts smollm2 build parity)

"$root/ci/install.sh" build
python=$("$root/ci/record.sh" --print-python)
work=$(mktemp -d "${TMPDIR:-/tmp}/refparity-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
rows=$work/rows # what, measured, goal; separated by tabs
n_jobs=$(nproc)
export PYTHONDONTWRITEBYTECODE=1
export OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 # the comparer has one thread, too
export REFPARITY_STORE=$work/no-store
unset REFPARITY_REQUIRE REFPARITY_REUSE_DUMPS REFPARITY_MODELS

row() { # WHAT MEASURED GOAL
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$rows"
    say "  $1: $2"
}

# quiet COMMAND...: shows its output only when it fails.
quiet() {
    "$@" >"$work/log" 2>&1 </dev/null || {
        tail -n 40 "$work/log" >&2
        fail "\`$*\` failed"
    }
}

# timed COMMAND...: its wall time in $seconds.
timed() {
    local start=$EPOCHREALTIME
    quiet "$@"
    seconds=$("$python" -c 'import sys; print(f"{float(sys.argv[2]) - float(sys.argv[1]):.1f}")' "${start/,/.}" "${EPOCHREALTIME/,/.}")
}

configure() { # SOURCE BUILD [CMAKE-ARGUMENT...]
    quiet cmake -S "$1" -B "$2" -G "Unix Makefiles" -DCMAKE_BUILD_TYPE=RelWithDebInfo "${@:3}"
}

# The library, the tool, the embedded engine, compare_bench and replay_bench, in $work/tools.
build_tools() {
    [ ! -d "$work/tools" ] || return 0
    say "building the tools ..."
    configure "$root/ci/bench" "$work/tools"
    quiet cmake --build "$work/tools" --parallel "$n_jobs"
    refparity=$(find "$work/tools" -name refparity -type f -perm -u+x)
    embedded=$(find "$work/tools" -name refparity-embedded -type f -perm -u+x)
}

measure_compare() {
    build_tools
    local what measured goal
    "$python" "$root/ci/bench/compare.py" "$work/tools/compare_bench" "$work/compare" >"$work/compare.tsv" ||
        fail "compare.py failed"
    while IFS=$'\t' read -r what measured goal; do
        row "$what" "$measured" "$goal"
    done <"$work/compare.tsv"
    rm -rf "$work/compare"
}

# The shape of an 8B model: 36 layers with the slots inside them, dim 4096, a vocabulary of 151936.
measure_memory() {
    build_tools
    local bytes most seconds
    bytes=$("$python" "$root/ci/bench/pairs.py" "$work/large" --layers 36 --positions 306 --dim 4096 --vocab 151936) ||
        fail "the fixture could not be made"
    "$python" "$root/ci/bench/anonymous_memory.py" "$refparity" diff "$work/large/reference.npz" "$work/large/dump" \
        >"$work/memory" || fail "refparity diff failed"
    read -r most seconds <"$work/memory"
    row "\`refparity diff\` on a fixture of $(awk "BEGIN { printf \"%.2f\", $bytes / 2^30 }") GiB" \
        "$most MiB of its own memory at most, $seconds s" "64 MiB"
    rm -rf "$work/large"
}

# Engines run once, for the means of their pairs; then everything but the engines.
warm_row() { # WHAT LABEL
    local tree=$work/warm-build
    quiet ctest --test-dir "$tree" --parallel "$n_jobs" --label-regex "$2"
    "$python" "$root/ci/bench/harness_time.py" "$tree/reports/results.json" >"$work/first"
    timed env REFPARITY_REUSE_DUMPS=1 ctest --test-dir "$tree" --parallel "$n_jobs" --label-regex "$2"
    row "Harness, per pair of $1" "$("$python" "$root/ci/bench/harness_time.py" "$tree/reports/results.json" "$seconds" "$work/first")" "-"
}

measure_warm() {
    build_tools
    quiet "$python" "$root/ci/bench/projects.py" warm "$work/warm" "$embedded"
    configure "$work/warm" "$work/warm-build"
    quiet cmake --build "$work/warm-build" --parallel "$n_jobs"
    warm_row "4 layers" '^tiny-'
    warm_row "40 layers" '^deep$'
}

measure_field() {
    local llama tree=$work/field-build what="8 pairs with llama.cpp: Python per pair, beside warm ctest"
    local model i pairs='^tiny-(qwen3|llama)-bf16-llamacpp/batched/p[0-3]/' field_s
    local targets=()
    llama=$("$root/ci/get-llamacpp.sh" --find) || {
        row "$what" "not measured: run ci/get-llamacpp.sh first" "30 times faster"
        return
    }
    for model in qwen3 llama; do
        for i in 0 1 2 3; do targets+=("case.refparity.tiny-$model-bf16-llamacpp__batched__p$i"); done
    done
    quiet cmake --preset parity -S "$root" -B "$tree" "-DREFPARITY_LLAMA_DIR=$llama"
    quiet cmake --build "$tree" --parallel "$n_jobs" --target "${targets[@]}"
    quiet ctest --test-dir "$tree" --parallel "$n_jobs" --tests-regex "$pairs"
    timed ctest --test-dir "$tree" --parallel "$n_jobs" --tests-regex "$pairs"
    local warm_s=$seconds engine
    engine=$(find "$tree" -name refparity-llamacpp -type f -perm -u+x)
    printf 'Hello' >"$work/p0"
    printf 'The quick brown fox jumps over the lazy dog.' >"$work/p1"
    printf 'What is the capital of France?' >"$work/p2"
    printf 'Once upon a time' >"$work/p3"
    field_s=0
    for model in qwen3 llama; do
        for i in 0 1 2 3; do
            timed "$python" "$root/ci/bench/field.py" "$root/fixtures/tiny/$model" \
                "$root/fixtures/tiny/$model/$model-bf16.gguf" "$engine" "$work/p$i"
            field_s=$(awk "BEGIN { print $field_s + $seconds }")
        done
    done
    row "$what" "$field_s s against $warm_s s, the engine's runs included: $(awk "BEGIN { printf \"%.0f\", $field_s / $warm_s }") times faster" \
        "30 times faster"
}

# One shape, in its turn: the weights are made, dumped from, replayed and removed.
replay_row() { # NAME TYPE ACTIVATIONS WHAT GOAL [make_shapes.py's ARGUMENT...]
    local folder=$work/shape model=$work/shape/$1-$2.gguf tree measured text=
    quiet "$python" "$root/fixtures/tiny/make_shapes.py" "$folder" "$1" --type "$2" "${@:6}"
    awk 'BEGIN { srand(1); for (i = 0; i < 64; i++) print int(rand() * 128000) }' >"$work/ids"
    quiet "$embedded" --model "$model" --tokens "$work/ids" --dump "$folder/dump" --mode batched --activations "$3" \
        --slots operations
    for tree in "$work/plain" "$work/tools"; do
        [ "$tree" = "$work/plain" ] || [ "$has_cblas" = true ] || continue
        measured=$(env -u OPENBLAS_NUM_THREADS "$tree/replay_bench" "$model" "$folder/dump" "$3") ||
            fail "replay_bench failed"
        [ "${measured##* }" = 0 ] || fail "slots of $1 fail that are right: $measured"
        text+=$(awk -v with="${text:+; with CBLAS }" '{
            printf "%s%.1f s (%.1f s of CPU time; %.2f s in the slowest layer, %.1f s outside the layers), ",
                with, $1 + $3, $4, $2, $3
            printf "%.1f times one run of the C model, %d MiB", ($1 + $3) / $5, $6 }' <<<"$measured")
    done
    row "Replay of 64 positions, $4" "$text" "$5"
    rm -rf "$folder"
}

measure_replay() {
    build_tools
    configure "$root/ci/bench" "$work/plain" -DREFPARITY_CBLAS=OFF
    quiet cmake --build "$work/plain" --parallel "$n_jobs" --target replay_bench
    has_cblas=false
    ! grep -q '^REFPARITY_CBLAS_LINKS:INTERNAL=1' "$work/tools/CMakeCache.txt" || has_cblas=true
    replay_row qwen3-0.6b bf16 f32 "shapes of Qwen3-0.6B: BF16, 28 layers" "10 s, 300 MiB"
    replay_row llama-3.2-1b q8_0 by_weight "of Llama-3.2-1B: Q8_0, rounded activations, 16 layers" "-"
    replay_row qwen3.5-4b q4_0 by_weight "of Qwen3.5-4B: Q4_0, rounded activations, 8 of 32 layers" "-" --layers 8
}

# One model, in its turn: it is made, dumped from, replayed and removed.
experts_row() { # NAME WHAT GOAL
    local model=$work/experts/$1.gguf dump=$work/experts/dump measured
    quiet "$python" "$root/fixtures/tiny/make_expert_layers.py" "$work/experts" "$1"
    awk 'BEGIN { srand(1); for (i = 0; i < 64; i++) print int(rand() * 1024) }' >"$work/ids"
    quiet "$embedded" --model "$model" --tokens "$work/ids" --dump "$dump" --mode batched --activations by_weight \
        --slots operations
    measured=$(env -u OPENBLAS_NUM_THREADS "$work/tools/replay_bench" "$model" "$dump" by_weight) ||
        fail "replay_bench failed"
    [ "${measured##* }" = 0 ] || fail "slots of $1 fail that are right: $measured"
    row "Replay of 64 positions, $2" \
        "$(awk '{ printf "%.1f s in the slowest layer (%.1f s of CPU time in all), %.0f MiB", $2, $4, $6 }' <<<"$measured")" "$3"
    rm -rf "$work/experts"
}

measure_experts() {
    build_tools
    experts_row qwen3.6-35b-a3b "a layer of Qwen3.6-35B-A3B's shape: Q4_K_M, 2048 wide, 256 experts, 8 chosen" \
        "7.5 s (40 layers in 5 minutes), 2 GiB"
    experts_row deepseek-v3 "a layer of DeepSeek-V3's shape: Q4_K_M, 7168 wide, MLA, 256 experts of 2048, 8 chosen" "2 GiB"
}

# replay_smollm2 TYPE ACTIVATIONS N_POSITIONS: what llama.cpp dumped, replayed beside a forward; the time
# that counts is that of all cores, the CPU time that of one thread on either side.
replay_smollm2() {
    local gguf=$smollm2/smollm2-135m-$1.gguf dump=$work/smollm2-$1-$3 all one most _
    local command=("$refparity" replay --activations "$2" --no-explain "$gguf" "$dump")
    quiet "$llamacpp" --model "$gguf" --tokens "$work/ids$3" --dump "$dump" --slots operations
    quiet "${command[@]}"
    all=$(env -u OPENBLAS_NUM_THREADS -u MKL_NUM_THREADS "$python" "$root/ci/bench/forward.py" \
        "$smollm2/smollm2-135m" "$work/ids$3" "$n_jobs" 5 "${command[@]}" 2>"$work/log") ||
        fail "forward.py failed: $(tail -n 3 "$work/log")"
    one=$("$python" "$root/ci/bench/forward.py" "$smollm2/smollm2-135m" "$work/ids$3" 1 5 \
        "${command[@]}" --threads 1 2>"$work/log") || fail "forward.py failed: $(tail -n 3 "$work/log")"
    read -r most _ < <("$python" "$root/ci/bench/anonymous_memory.py" "${command[@]}" 2>/dev/null)
    row "Replay of SmolLM2-135M ${1^^}, all operations, $3 positions" \
        "$(awk -v all="$all" -v one="$one" -v most="$most" 'BEGIN {
            split(all, a); split(one, o)
            printf "%.2f s against %.2f s of a forward by HF: %.1f times (CPU time of one thread: ", a[3], a[1], a[3] / a[1]
            printf "%.2f s against %.2f s, %.1f times); %.0f MiB of its own memory at most", o[4], o[2], o[4] / o[2], most }')" \
        "$([ "$3" = 24 ] && echo "1.5 s" || echo "2 times, 150 MiB")"
    rm -rf "$dump"
}

# dump_smollm2 N_POSITIONS: llama.cpp's whole run with all operations beside one with layers.
dump_smollm2() {
    local run=("$llamacpp" --model "$smollm2/smollm2-135m-q4_1.gguf" --tokens "$work/ids$1") measured
    measured=$("$python" "$root/ci/bench/in_turn.py" 3 "${run[@]}" --dump "$work/all-{round}" --slots operations \
        -- "${run[@]}" --dump "$work/layers-{round}" --slots layers) ||
        fail "refparity-llamacpp failed"
    row "llama.cpp dumps all operations of SmolLM2-135M Q4_1, $1 positions" \
        "$(awk '{ printf "%.2f s against %.2f s with layers: %.1f times (CPU time %.2f s against %.2f s, %.1f times)",
            $1, $3, $1 / $3, $2, $4, $2 / $4 }' <<<"$measured")" "3 times"
    rm -rf "$work"/all-* "$work"/layers-*
}

measure_smollm2() {
    local llama smollm2 llamacpp n tree=$work/smollm2-build
    build_tools
    smollm2=$("$root/ci/get-smollm2.sh" --find --checkpoint) || {
        row "Replay of SmolLM2-135M" "not measured: run ci/get-smollm2.sh --checkpoint first" "2 times"
        return
    }
    llama=$("$root/ci/get-llamacpp.sh" --find) || {
        row "Replay of SmolLM2-135M" "not measured: run ci/get-llamacpp.sh first" "2 times"
        return
    }
    quiet cmake --preset parity -S "$root" -B "$tree" "-DREFPARITY_LLAMA_DIR=$llama"
    quiet cmake --build "$tree" --parallel "$n_jobs" --target refparity-llamacpp
    llamacpp=$(find "$tree" -name refparity-llamacpp -type f -perm -u+x)
    for n in 24 256; do
        awk -v n="$n" 'BEGIN { srand(1); for (i = 0; i < n; i++) print int(rand() * 49000) }' >"$work/ids$n"
        dump_smollm2 "$n"
        replay_smollm2 q4_1 by_weight "$n"
    done
    replay_smollm2 f32 f32 256
}

measure_build() {
    local configure_s library_s cases_s tree=$work/many-build
    quiet "$python" "$root/ci/bench/projects.py" many "$work/many"
    timed configure "$work/many" "$tree"
    configure_s=$seconds
    timed cmake --build "$tree" --parallel "$n_jobs" --target refparity-cases refparity-tool refparity-embedded
    library_s=$seconds
    timed cmake --build "$tree" --parallel "$n_jobs"
    cases_s=$seconds
    timed ctest --test-dir "$tree" --show-only
    row "100 pairs of 30 layers, $n_jobs jobs" \
        "configure $configure_s s, refparity $library_s s, cases $cases_s s; ctest -N $seconds s" "-"
}

measure_parity() {
    mkdir "$work/clone"
    tar -C "$root" --exclude=./build --exclude=./.git -cf - . | tar -C "$work/clone" -xf -
    timed "$python" "$root/ci/bench/cpu_time.py" "$work/cpu" "$work/clone/ci/parity.sh"
    row "\`ci/parity.sh\` in a fresh clone, packages installed" \
        "$seconds s ($(cat "$work/cpu") s of CPU time, on $n_jobs cores)" "60 s"
}

for section in "${sections[@]}"; do
    say "$section ..."
    "measure_$section"
done

model=$(lscpu 2>/dev/null | sed -n 's/^Model name: *//p' | head -n 1)
table=$work/table
{
    echo "Measured by \`ci/bench.sh\` on $(date -u +%F), on ${model:-an unknown CPU} with $n_jobs cores."
    echo
    echo "| What | Measured | Goal |"
    echo "|---|---|---|"
    sed 's/\t/ | /g; s/^/| /; s/$/ |/' "$rows"
} >"$table"
cat "$table"
if [ "$save" = true ]; then
    page=$root/docs/figures.md
    grep -q "^<!-- bench -->$" "$page" || fail "docs/figures.md has no line <!-- bench -->"
    grep -q "^<!-- /bench -->$" "$page" ||
        fail "docs/figures.md has no line <!-- /bench -->"
    awk -v table="$table" '
        /^<!-- \/bench -->$/ { inside = 0 }
        !inside { print }
        /^<!-- bench -->$/ { inside = 1; while ((getline line < table) > 0) print line }
    ' "$page" >"$work/page"
    cat "$work/page" >"$page"
    say "docs/figures.md has the table"
fi
