#!/usr/bin/env bash
# The embedded engine against HF on the same weights: the BF16 files against the committed fixtures,
# the quantized files against HF run on their dequantized weights. Every slot and position, both
# modes, within 1e-5: FP32 rounding measures up to 2e-6 here, the smallest bug of the catalogue 9e-2.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/exact_test.sh BUILD_DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$("$root/ci/record.sh" --print-python)

# the prompts of the matrix, a file each
"$python" - "$root/matrix/matrix.json" "$work" <<'END'
import json, pathlib, sys
matrix, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
entry = next(t for t in json.loads(matrix.read_text())["tests"] if t["name"] == "tiny-qwen3-bf16")
for i, prompt in enumerate(entry["prompts"]):
    text = prompt if isinstance(prompt, str) else prompt.get("text") or (matrix.parent / prompt["file"]).read_text()
    (work / f"p{i}.txt").write_text(text)
END

n_compared=0
worst=0
for checkpoint in "$root"/fixtures/tiny/*/model.safetensors; do
    model=$(basename "$(dirname "$checkpoint")")
    for gguf in "$root/fixtures/tiny/$model"/*.gguf; do
        for prompt in "$work"/p?.txt; do
            reference=$work/reference.npz
            "$python" "$root/fixtures/hf_reference.py" --model "tiny/$model" --gguf "$gguf" \
                --prompt-file "$prompt" --out "$reference" --force >/dev/null 2>"$work/log" || {
                cat "$work/log" >&2
                exit 1
            }
            "$python" -c 'import numpy, sys; print(*numpy.load(sys.argv[1])["tokens"], sep="\n")' "$reference" >"$work/tokens"
            for mode in per-token batched batched:7; do
                rm -rf "$work/dump"
                "$built/bin/refparity-embedded" --model "$gguf" --tokens "$work/tokens" --dump "$work/dump" --mode "$mode"
                "$built/bin/refparity" diff --threshold-l2-rel 1e-5 --threshold-cosine 0.9999999 --json \
                    "$reference" "$work/dump" >"$work/diff.json" || {
                    "$built/bin/refparity" diff --threshold-l2-rel 1e-5 "$reference" "$work/dump" || true
                    echo "FAILED: $(basename "$gguf"), $mode, $(head -c 40 "$prompt")" >&2
                    exit 1
                }
                # sub-stages are evidence to the tool; here they have to be exact too
                worst=$("$python" - "$work/diff.json" "$worst" <<'END'
import json, sys
slots = json.load(open(sys.argv[1]))["slots"]
over = [s["slot"] for s in slots if not (s["worst"] and s["worst"]["l2_rel"] < 1e-5)]
assert len(slots) >= 5 * 4 + 3 and not over, over
print(max(float(sys.argv[2]), *(s["worst"]["l2_rel"] for s in slots)))
END
                )
                n_compared=$((n_compared + 1))
            done
        done
        echo "$(basename "$gguf"): exact so far, largest L2_rel $worst"
    done
done
echo "$n_compared comparisons, largest L2_rel $worst at any slot and position"
[ "$n_compared" -ge 162 ] # 3 models, 3 files, 6 prompts, 3 modes, at least
