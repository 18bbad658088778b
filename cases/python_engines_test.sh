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
ctest --test-dir "$build" -j "$(nproc)" -R '^tiny-(qwen3|llama|qwen35)-(transformers|transformers-f16|mlx)/' >"$work/log" 2>&1 || fail "the matrix's pairs"
"$build/bin/refparity" report "$build" >"$work/log" || fail "report"
grep -F "compared 17 of 17 pairs: 13 passed, 4 known, 0 failed" "$work/log" || fail "not every pair was compared"
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
