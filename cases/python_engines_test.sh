#!/usr/bin/env bash
# Engines in Python that nobody here wrote, tapped by refparity_dump.py: the matrix's pairs of transformers and
# MLX-LM pass; and what MLX-LM 0.32.2 computes wrongly is found at its operation, by its name.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/python_engines_test.sh BUILD_DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
REFPARITY_TRANSFORMERS_PYTHON=$("$root/ci/record.sh" --print-python)
REFPARITY_MLX_PYTHON=$("$root/ci/get-mlx.sh")
export REFPARITY_TRANSFORMERS_PYTHON REFPARITY_MLX_PYTHON PYTHONDONTWRITEBYTECODE=1

fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/log" ] || tail -n 30 "$work/log" >&2
    exit 1
}
# replays MODEL SLOT NAME: MLX-LM on the tiny model; the slot fails, it is the first, and has that explanation.
replays() {
    local model=$1 slot=$2 name=$3 status=0
    local fixture=("$root/fixtures/store/tiny--$model/main/float32"/the-quick-brown-fox*.npz)
    "$REFPARITY_MLX_PYTHON" -c 'import numpy, sys; print(*numpy.load(sys.argv[1])["tokens"], sep="\n")' "${fixture[0]}" >"$work/tokens"
    "$REFPARITY_MLX_PYTHON" "$root/fixtures/engines/mlx/engine.py" --model "$root/fixtures/tiny/$model" --tokens "$work/tokens" \
        --dump "$work/$model" --dtype float32 --slots operations >"$work/log" 2>&1 || fail "MLX-LM, $model"
    "$build/bin/refparity" replay --json "$root/fixtures/tiny/$model" "$work/$model" >"$work/replay.json" 2>"$work/log" || status=$?
    [ $status = 1 ] || fail "replay of MLX-LM, $model: exit code $status"
    "$REFPARITY_MLX_PYTHON" - "$work/replay.json" "$slot" "$name" >"$work/log" <<'PY' || fail "MLX-LM, $model: expected $slot to fail first, as $name"
import json, sys
replay = json.load(open(sys.argv[1]))
names = {found["slot"]: found["name"] for found in replay["explanations"]}
print(replay["first_failing"], names)
sys.exit(replay["first_failing"] != sys.argv[2] or set(names.values()) != {sys.argv[3]})
PY
    cat "$work/log"
}
# Transformers with padded sequences beside the prompt, as its users forget the mask: attention sees the pads.
forgets_the_mask() {
    local status=0
    sed 's/attention_mask=mask, //' "$root/fixtures/engines/transformers/engine.py" >"$work/engine.py"
    ! cmp -s "$work/engine.py" "$root/fixtures/engines/transformers/engine.py" || fail "the engine has no mask to forget"
    PYTHONPATH=$root/fixtures/engines "$REFPARITY_TRANSFORMERS_PYTHON" "$work/engine.py" --model "$root/fixtures/tiny/llama" --tokens "$work/tokens" \
        --dump "$work/no-mask" --dtype float32 --slots operations --mode parallel:3 >"$work/log" 2>&1 || fail "transformers without a mask"
    "$build/bin/refparity" replay --json "$root/fixtures/tiny/llama" "$work/no-mask" >"$work/replay.json" 2>"$work/log" || status=$?
    [ $status = 1 ] || fail "replay of transformers without a mask: exit code $status"
    grep -qF '"first_failing":"h0_attn"' <(tr -d ' \n' <"$work/replay.json") || fail "without a mask h0_attn has to fail first"
    echo "a forgotten mask is found in h0_attn"
}

pairs='^tiny-(qwen3|llama|qwen35)-(transformers|transformers-f16|mlx)/' n_pairs=16
if [ -n "${REFPARITY_VLLM_PYTHON:-}" ]; then # fixtures/engines/vllm/README.md
    pairs='^tiny-(qwen3|llama|qwen35)-(transformers|transformers-f16|mlx|vllm)/' n_pairs=20
fi
ctest --test-dir "$build" -j "$(nproc)" -R "$pairs" >"$work/log" 2>&1 || fail "the matrix's pairs"
"$build/bin/refparity" report "$build" >"$work/log" || fail "report"
grep -F "compared $n_pairs of $n_pairs pairs: $n_pairs passed" "$work/log" || fail "not every pair was compared"
replays llama h0_attn rope-theta
forgets_the_mask
replays qwen35 h0_preattn weights-rounded
