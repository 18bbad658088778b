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

ctest --test-dir "$build" -j "$(nproc)" -R '^tiny-(qwen3|llama|qwen35)-(transformers|transformers-f16|mlx)/' >"$work/log" 2>&1 || fail "the matrix's pairs"
"$build/bin/refparity" report "$build" >"$work/log" || fail "report"
grep -F "compared 13 of 13 pairs: 13 passed" "$work/log" || fail "not every pair was compared"
replays llama h0_attn rope-theta
replays qwen35 h0_preattn weights-rounded
