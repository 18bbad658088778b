#!/usr/bin/env bash
# Engines in Python that nobody here wrote, tapped by refparity_dump.py: the matrix's pairs of transformers and
# MLX-LM pass, or diverge as the matrix knows: at the operations that MLX-LM 0.32.2 computes wrongly, by name.
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
# Transformers with padded sequences beside the prompt, as its users forget the mask: attention sees the pads.
forgets_the_mask() {
    local status=0 fixture=("$root"/fixtures/store/tiny--llama/main/float32/the-quick-brown-fox*.npz)
    "$REFPARITY_TRANSFORMERS_PYTHON" -c 'import numpy, sys; print(*numpy.load(sys.argv[1])["tokens"], sep="\n")' "${fixture[0]}" >"$work/tokens"
    sed 's/attention_mask=mask, //' "$root/fixtures/engines/transformers/engine.py" >"$work/engine.py"
    ! cmp -s "$work/engine.py" "$root/fixtures/engines/transformers/engine.py" || fail "the engine has no mask to forget"
    PYTHONPATH=$root/fixtures/engines "$REFPARITY_TRANSFORMERS_PYTHON" "$work/engine.py" --model "$root/fixtures/tiny/llama" --tokens "$work/tokens" \
        --dump "$work/no-mask" --dtype float32 --slots operations --mode parallel:3 >"$work/log" 2>&1 || fail "transformers without a mask"
    "$build/bin/refparity" replay --json "$root/fixtures/tiny/llama" "$work/no-mask" >"$work/replay.json" 2>"$work/log" || status=$?
    [ $status = 1 ] || fail "replay of transformers without a mask: exit code $status"
    grep -q '"first_failing":[[:space:]]*"h0_attn"' "$work/replay.json" || fail "without a mask h0_attn has to fail first"
    echo "a forgotten mask is found in h0_attn"
}

pairs='^tiny-(qwen3|llama|qwen35)-(transformers|transformers-f16|mlx)/' n_pairs=20
if [ -n "${REFPARITY_VLLM_PYTHON:-}" ]; then # fixtures/engines/vllm/README.md
    pairs='^tiny-(qwen3|llama|qwen35)-(transformers|transformers-f16|mlx|vllm)/' n_pairs=24
fi
ctest --test-dir "$build" -j "$(nproc)" -R "$pairs" >"$work/log" 2>&1 || fail "the matrix's pairs"
"$build/bin/refparity" report "$build" >"$work/log" || fail "report"
grep -F "compared $n_pairs of $n_pairs pairs: $((n_pairs - 4)) passed, 4 known, 0 failed" "$work/log" || fail "not every pair was compared"
grep -F "XFAIL    tiny-llama-mlx (2 pairs): h*_attn, rope-theta: " "$work/log" || fail "MLX-LM's RoPE of Llama"
grep -F "XFAIL    tiny-qwen35-mlx (2 pairs): h*_pre*, weights-rounded: " "$work/log" || fail "MLX-LM's norms of Qwen3.5"
python3 - "$build/reports/results.json" >"$work/log" <<'PY' || fail "what is known does not begin where it should"
import json, sys
pairs = json.load(open(sys.argv[1]))["pairs"]
found = {(pair["entry"], known["first"], known["state"]) for pair in pairs for known in pair.get("known", ())}
print(found)
sys.exit(found != {("tiny-llama-mlx", "h0_attn", "met"), ("tiny-qwen35-mlx", "h0_preattn", "met"),
                   ("tiny-qwen35-mlx", "h3_mix", "met"), ("tiny-qwen35-mlx", "post_norm", "met")})
PY
cat "$work/log"
forgets_the_mask
