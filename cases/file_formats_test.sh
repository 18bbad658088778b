#!/usr/bin/env bash
# Files that people have: transformers' states of a committed prompt, saved with plain code in every form that
# refparity reads, agree with the committed fixture; wrong ones do not; what is not read is named, and the lines
# that convert it work.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/file_formats_test.sh BUILD_DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tool=$(cd "$1" && pwd)/bin/refparity
python=$("$root/ci/record.sh" --print-python)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1

fail() {
    echo "FAILED: $*" >&2
    cat "$work/log" >&2
    exit 1
}
# diffs STATUS WORDS ARGUMENT ...: refparity diff ends so, and prints that (grep's basic expression).
diffs() {
    local wanted=$1 words=$2 status=0
    shift 2
    "$tool" diff "$@" >"$work/log" 2>&1 || status=$?
    [ $status -eq "$wanted" ] || fail "diff $*: exit code $status, expected $wanted"
    grep -q -e "$words" "$work/log" || fail "diff $*: '$words' is not said"
    n=$((n + 1))
}
# exact ARGUMENT ...: passes; check_exact then asks that every required slot is within 1e-5 (FP32 of the same
# program on another machine).
exact() {
    n=$((n + 1))
    "$tool" diff --json "$@" >"$work/json.$n" 2>"$work/log" || fail "diff $*"
}
check_exact() {
    "$python" - "$work"/json.* >"$work/log" 2>&1 <<'EOF' || fail "not within 1e-5"
import json, sys
for path in sys.argv[1:]:
    result = json.load(open(path))
    slots = [s for s in result["slots"] if s["required"] and s["verdict"] != "SKIP"]
    if len(slots) < 5 or not all(s["worst"]["l2_rel"] < 1e-5 for s in slots):
        sys.exit(f"{result['reference']} {result['dump']}: {slots}")
EOF
    rm -f "$work"/json.*
}
n=0
models=(qwen3 llama qwen35)
arguments=()
declare -A fixture
for model in "${models[@]}"; do
    found=("$root/fixtures/store/tiny--$model/main/float32"/the-quick-brown-fox*.npz)
    fixture[$model]=${found[0]}
    arguments+=("$root/fixtures/tiny/$model" "${found[0]}" "$work/$model")
done
"$python" "$root/cases/file_formats.py" "${arguments[@]}" >"$work/log" 2>&1 || fail "file_formats.py"

echo "== what transformers computed, in every form, on both sides"
for model in "${models[@]}"; do
    f=${fixture[$model]}
    cd "$work/$model"
    for form in plain.npz stacked.npz last_logits.npz big_fortran.npz batch_second.npz f32.safetensors f64.safetensors \
        stacked.safetensors; do
        exact "$f" $form
        exact $form "$f"
        diffs 0 '^dump: hidden_states.* read as post_norm' "$f" $form
        diffs 0 'not compared: transformers. hidden_states have no h' "$f" $form
    done
    for form in npy bin last_bin modules.safetensors fixture.safetensors; do
        exact "$f" $form
        diffs 0 '^verdict: PASS' "$f" $form
    done
    for form in f16.safetensors bf16.safetensors bf16_npy; do
        diffs 0 '^verdict: PASS' "$f" $form
    done
    exact --dump-names names.txt "$f" own_names
    exact npy plain.npz
    exact bin plain.npz
done
check_exact
f=${fixture[qwen3]}
cd "$work/qwen3"
diffs 0 '^dump: layer_0 to layer_3 are read as h0 to h3' "$f" npy
diffs 0 '^dump: h00 to h03 are read as h0 to h3' "$f" bf16_npy
diffs 0 '^dump: emb and 5 more are float64: they are rounded to float32' "$f" f64.safetensors
diffs 0 '^dump: logits has one row: it is read as position 23, the last' "$f" last_logits.npz
diffs 0 '^dump: each NAME.bin is read as 24 positions' "$f" bin
"$tool" show fixture.safetensors >"$work/log" || fail "show"
grep -q '^h3_ffnout .*64' "$work/log" || fail "show: h3_ffnout is not shown"
"$tool" replay "$root/fixtures/tiny/qwen3" fixture.safetensors >"$work/log" 2>&1 || fail "replay of safetensors"
cp "$root/fixtures/tiny/qwen3/config.json" . # a tokens.txt of another length is not 24 positions
"$tool" replay "$root/fixtures/tiny/qwen3" bin >"$work/log" 2>&1 || fail "replay of raw files"
"$tool" replay --names names.txt --tokens bin/tokens.txt "$root/fixtures/tiny/qwen3" own_names >"$work/log" 2>&1 || fail "replay --names"

echo "== wrong ones"
diffs 2 'it holds the rows of h1' "$f" wrong_swapped.npz
diffs 2 'the dump has 3 layers, the reference 4: are its names other slots' "$f" wrong_shifted.npz
diffs 2 'it is transposed' "$f" wrong_transposed.safetensors
diffs 1 '^verdict: FAIL' wrong_transposed.safetensors "$f"
diffs 2 'emb has 24 values per position, the reference has 64' "$f" wrong_turned.npz
diffs 2 'not compared: 5 names of the dump that are no slots: arr_0, arr_1' "$f" unknown.npz
diffs 2 'no hidden state was compared' unknown.npz "$f"
diffs 2 'not compared: 8 names of the dump that are no slots: .*my lm_head' "$f" own_names
echo 'hidden_states.{l+1} h{l}' >naive.txt # the last one is normed: this is the mistake that is made
echo 'hidden_states.0 emb' >>naive.txt
diffs 2 'h3 of the reference holds post_norm: transformers. hidden_states\[-1\]' --reference-names naive.txt plain.npz "$f"
diffs 2 'line 1: nothing is called hidden_states.{l+1}' --dump-names naive.txt "$f" unknown.npz
printf 'layer_{l} h{l}\nlayer_{l} emb\n' >bad.txt
diffs 2 'line 2' --names bad.txt "$f" npy
mkdir ambiguous && cp bin/*.bin bin/tokens.txt ambiguous/
diffs 2 'say it with --rows 1 or --rows 24' ambiguous bin
diffs 0 '^verdict: PASS' --rows 24 ambiguous bin
"$python" -c 'import numpy; d = dict(numpy.load("plain.npz")); numpy.savez("one.npz", **{k: v if k == "input_ids" else v[-1:] for k, v in d.items()})'
diffs 2 'of which position is it? Say it with --pos: --pos 0, or --pos 23 for the last' "$f" one.npz
diffs 0 '^verdict: PASS' --pos 23 "$f" one.npz
diffs 1 '^verdict: FAIL' --pos 22 "$f" one.npz

echo "== what is not read, and the lines that convert it"
for form in dict.pt old.pt tuple.pth arrays.pkl; do
    diffs 2 'this is a ' "$f" $form
    grep -v '^refparity: error' "$work/log" >lines.py
    [ "$(wc -l <lines.py)" -eq 2 ] || fail "$form: not two lines"
    "$python" lines.py >"$work/log" 2>&1 || fail "the lines for $form"
    exact converted.* "$f"
    rm converted.*
done
check_exact
diffs 2 'a file of llama-debug --save-logits' "$f" llamacpp-tiny.bin
grep -v '^refparity: error' "$work/log" >lines.py
"$python" lines.py >"$work/log" 2>&1 || fail "the lines for llamacpp-tiny.bin"
diffs 2 'no hidden state was compared.*logits: cosine 1.0' converted.npz "$f"
diffs 2 'a file of llama-perplexity --kl-divergence-base' "$f" base.kld
printf 'common_debug_cb_eval:                     norm-0 = (f32)   RMS_NORM(inp_embd{64, 2, 1, 1}, }) = {64, 2, 1, 1}\n' >eval.log
diffs 2 'a log of llama.cpp.s eval callback' "$f" eval.log

echo "file formats: $n comparisons, each as expected"
