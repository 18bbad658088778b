#!/usr/bin/env bash
# The embedded engine against HF on the same weights: the BF16 files against the committed fixtures,
# the quantized files against HF run on their dequantized weights, Q8_0, Q4_0 and K-quants. Every slot and
# position, both modes, within 1e-5: FP32 rounding measures up to 3e-6 here.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/dequantized_test.sh BUILD_DIR" >&2
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
# compare CHECKPOINTS MODEL GGUF PROMPT...: the engine's dump of each prompt in each mode, every slot
# (slots that are not required are evidence to the tool; here they have to be right too), against HF on the GGUF's weights.
# The recorder fails where a parameter of HF's model was not loaded from it.
compare() {
    local checkpoints=$1 model=$2 gguf=$3 prompt mode name
    shift 3
    rm -rf "$work/reference" "$work/diff"
    mkdir "$work/reference" "$work/diff"
    "$python" - "$root/fixtures" "$checkpoints" "$model" "$gguf" "$work/reference" "$@" >/dev/null 2>"$work/log" <<'END' || {
import pathlib, sys
fixtures, checkpoints, model, gguf, out, *prompts = sys.argv[1:]
sys.path.insert(0, fixtures)
import hf_reference, numpy
for prompt in prompts:
    reference = pathlib.Path(out, pathlib.Path(prompt).stem + ".npz")
    what = ["--model", model, "--gguf", gguf, "--prompt-file", prompt, "--out", str(reference)]
    if hf_reference.main(["--checkpoints", checkpoints, *what]):
        sys.exit(1)
    tokens = numpy.load(reference)["tokens"]
    reference.with_suffix(".tokens").write_text("".join(f"{token}\n" for token in tokens))
END
        cat "$work/log" >&2
        exit 1
    }
    for prompt in "$@"; do
        name=$(basename "$prompt" .txt)
        for mode in per-token batched batched:7; do
            rm -rf "$work/dump"
            "$built/bin/refparity-embedded" --model "$gguf" --tokens "$work/reference/$name.tokens" --dump "$work/dump" --mode "$mode"
            "$built/bin/refparity" diff --threshold-l2-rel 1e-5 --threshold-cosine 0.9999999 --json \
                "$work/reference/$name.npz" "$work/dump" >"$work/diff/$name.$mode.json" || {
                "$built/bin/refparity" diff --threshold-l2-rel 1e-5 "$work/reference/$name.npz" "$work/dump" || true
                echo "FAILED: $(basename "$gguf"), $mode, $(head -c 40 "$prompt")" >&2
                exit 1
            }
            n_compared=$((n_compared + 1))
        done
    done
    worst=$("$python" - "$worst" "$work"/diff/*.json <<'END'
import json, sys
worst = float(sys.argv[1])
for path in sys.argv[2:]:
    slots = json.load(open(path))["slots"]
    over = [s["slot"] for s in slots if not (s["worst"] and s["worst"]["l2_rel"] < 1e-5)]
    assert len(slots) >= 5 * 4 + 3 and not over, over
    worst = max(worst, *(s["worst"]["l2_rel"] for s in slots))
print(worst)
END
    )
    echo "$(basename "$gguf"): exact so far, largest L2_rel $worst"
}

for checkpoint in "$root"/fixtures/tiny/*/model.safetensors; do
    model=$(basename "$(dirname "$checkpoint")")
    for gguf in "$root/fixtures/tiny/$model"/*.gguf; do
        compare "$root/fixtures" "tiny/$model" "$gguf" "$work"/p?.txt
    done
done
[ "$n_compared" -ge 162 ] # 3 models, 3 files, 6 prompts, 3 modes, at least

# K-quants, whose blocks are 256 wide: of models that are made for it. llama.cpp writes them.
if [ -x "$built/bin/refparity-llamacpp-quantize" ]; then
    "$python" "$root/fixtures/tiny/make_wide.py" "$work" >/dev/null 2>"$work/log" || {
        cat "$work/log" >&2
        exit 1
    }
    n_before=$n_compared
    for folder in "$work"/wide/*/; do
        model=$(basename "$folder")
        for type in q4_k_m q5_k_m; do # Q4_K, Q5_K and Q6_K
            gguf=$work/$model-$type.gguf
            "$built/bin/refparity-llamacpp-quantize" "$type" "$folder"/*.gguf "$gguf" >/dev/null 2>"$work/log" || {
                cat "$work/log" >&2
                exit 1
            }
            compare "$work" "wide/$model" "$gguf" "$work/p1.txt" "$work/p4.txt"
            "$built/bin/refparity" weights "$gguf" "$folder" | tail -n 2
        done
    done
    [ $((n_compared - n_before)) -ge 36 ] # 3 models, 2 types, 2 prompts, 3 modes
else
    echo "K-quants are left out: this build has no llama.cpp, which writes them (ci/get-llamacpp.sh)"
fi
echo "$n_compared comparisons, largest L2_rel $worst at any slot and position"
