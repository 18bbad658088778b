#!/usr/bin/env bash
# llama.cpp, an engine that nobody here wrote, against HF: on F32 weights it has to agree at every
# slot, which proves recorder, alignment and comparer; a K-quant by its own quantizer has to agree
# with HF on the dequantized weights, as far as the rounding of activations lets it. Replay finds a bug
# in it, and none where there is none; llamacpp_bugs/run.py tries hundreds.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: cases/llamacpp_test.sh BUILD_DIR, a tree configured with -DREFPARITY_LLAMA_DIR" >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
built=$(cd "$1" && pwd)
engine=$built/bin/refparity-llamacpp
[ -x "$engine" ] || {
    echo "error: $engine is missing: run ci/get-llamacpp.sh and configure with -DREFPARITY_LLAMA_DIR=DIR" >&2
    exit 2
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$("$root/ci/record.sh" --print-python)
export PYTHONDONTWRITEBYTECODE=1
modes="batched batched:32 per-token"

fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/log" ] || tail -n 20 "$work/log" >&2
    exit 1
}
logged() { "$@" >"$work/log" 2>&1 || fail "$*"; }

# The prompts of the matrix, a file each, with the committed fixtures that belong to them.
"$python" - "$root/matrix/matrix.json" "$work" <<'END'
import hashlib, json, pathlib, sys
matrix, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
entry = next(t for t in json.loads(matrix.read_text())["tests"] if t["name"] == "tiny-qwen3-bf16")
for i, prompt in enumerate(entry["prompts"]):
    text = prompt.encode() if isinstance(prompt, str) else (matrix.parent / prompt["file"]).read_bytes()
    (work / f"p{i}.txt").write_bytes(text)
    (work / f"p{i}.sha").write_text(hashlib.sha256(text).hexdigest()[:8])
END

# run GGUF PROMPT MODE [OPTION...]: dumps into $work/dump.
run() {
    local gguf=$1 prompt=$2 mode=$3
    shift 3
    rm -rf "$work/dump"
    logged "$engine" --model "$gguf" --prompt-file "$prompt" --mode "$mode" --dump "$work/dump" "$@"
}
# compare SET MODEL NAME REFERENCE: $work/dump with the reference; judged at the end, all at once.
compare() {
    local out=$work/diff/$1
    mkdir -p "$out"
    "$built/bin/refparity" diff --json --threshold-l2-rel 1e-5 "$4" "$work/dump" >"$out/$2.$3.json" 2>"$work/log" ||
        [ $? = 1 ] || fail "refparity diff of $1, $2, $3"
}

models=()
for checkpoint in "$root"/fixtures/tiny/*/model.safetensors; do
    models+=("$(basename "$(dirname "$checkpoint")")")
done

# ---- F32 of the committed weights against the committed fixtures; logits without the callback;
# ids that were given instead of text
n_same=0
start=$SECONDS
for model in "${models[@]}"; do
    gguf=$work/$model-f32.gguf
    logged "$built/bin/refparity-llamacpp-quantize" f32 "$root/fixtures/tiny/$model/$model-bf16.gguf" "$gguf"
    for prompt in "$work"/p?.txt; do
        name=$(basename "$prompt" .txt)
        fixture=("$root/fixtures/store/tiny--$model/main/float32/"*-"$(cat "$work/$name.sha")".npz)
        "$python" -c 'import numpy, sys; print(*numpy.load(sys.argv[1])["tokens"], sep="\n")' "${fixture[0]}" >"$work/tokens"
        for mode in $modes; do
            run "$gguf" "$prompt" "$mode"
            compare f32 "$model" "$mode.$name" "${fixture[0]}"
            mv "$work/dump/logits.npy" "$work/logits.npy"
            if "$python" -c 'import numpy, sys; sys.exit("h0_preattn" not in numpy.load(sys.argv[1]).files)' "${fixture[0]}"; then
                run "$gguf" "$prompt" "$mode" --slots operations
                compare f32-operations "$model" "$mode.$name" "${fixture[0]}"
            fi
            run "$gguf" "$prompt" "$mode" --no-callback
            cmp -s "$work/dump/logits.npy" "$work/logits.npy" ||
                fail "$model, $mode, $name: logits are different without the callback: it changes what llama.cpp computes"
            rm -rf "$work/dump"
            logged "$engine" --model "$gguf" --tokens "$work/tokens" --mode "$mode" --dump "$work/dump"
            cmp -s "$work/dump/logits.npy" "$work/logits.npy" || fail "$model, $mode, $name: logits are different when the ids are given"
            n_same=$((n_same + 2))
        done
    done
done
echo "$n_same dumps without the callback or from given ids have the same logits, bit by bit ($((SECONDS - start)) s)"

# ---- a K-quant, which needs rows of 256
start=$SECONDS
logged "$python" "$root/fixtures/tiny/make_wide.py" "$work" "${models[@]}"
record() { # MODEL OUT OPTION...
    local model=$1 out=$2
    shift 2
    logged "$python" "$root/fixtures/hf_reference.py" --model "wide/$model" --checkpoints "$work" --prompt-file "$work/p1.txt" --out "$out" "$@"
}
for model in "${models[@]}"; do
    bf16=$work/wide/$model/$model-bf16.gguf
    logged "$built/bin/refparity-llamacpp-quantize" f32 "$bf16" "$work/f32.gguf"
    logged "$built/bin/refparity-llamacpp-quantize" q4_k_m "$bf16" "$work/$model-q4_k_m.gguf"
    "$python" - "$work/$model-q4_k_m.gguf" <<'END' || fail "llama.cpp's quantizer made no K-quant of $model"
import gguf, sys
types = {t.tensor_type.name for t in gguf.GGUFReader(sys.argv[1]).tensors if len(t.shape) == 2 and "conv" not in t.name}
sys.exit(types != {"Q4_K", "Q6_K"})
END
    # is the file the checkpoint, by the sketch that the recorder makes?
    logged "$python" "$root/fixtures/weights_sketch.py" "$work/wide/$model" "$work/$model-sketch.safetensors"
    logged "$built/bin/refparity" weights "$work/f32.gguf" "$work/$model-sketch.safetensors"
    logged "$built/bin/refparity" weights "$work/$model-q4_k_m.gguf" "$work/$model-sketch.safetensors"
    record "$model" "$work/$model.npz"
    record "$model" "$work/$model-dequantized.npz" --gguf "$work/$model-q4_k_m.gguf"
    for mode in $modes; do
        run "$work/f32.gguf" "$work/p1.txt" "$mode"
        compare wide-f32 "$model" "$mode.p1" "$work/$model.npz"
        run "$work/$model-q4_k_m.gguf" "$work/p1.txt" "$mode"
        compare q4_k_m "$model" "$mode.p1" "$work/$model.npz"
        compare q4_k_m-dequantized "$model" "$mode.p1" "$work/$model-dequantized.npz"
    done
done
echo "K-quants of rows of 256 made, recorded and run ($((SECONDS - start)) s)"

# ---- replay, on an engine that is not ours: nothing is reported of what is right, whatever the
# weights; a bug is reported in its operation (of layers alone, in the first slot after it), and nowhere else
start=$SECONDS
long=$root/matrix/prompts/long.txt
bugs=$built/bin/refparity-llamacpp-bugs
# expect WHAT GGUF LEAST [SLOTS]: replays $work/dump, LEAST slots or more; SLOTS are the only ones that may fail, and
# have to. $cache: what K and V are kept in, f32 where it is not set.
expect() {
    local what=$1 gguf=$2 least=$3 slot=${4:-} status=0
    local replay=("$built/bin/refparity" replay "$gguf" "$work/dump" --activations by_weight --kv-cache "${cache:-f32}" --mode "$mode" --json)
    "${replay[@]}" --threads 3 >"$work/replay.json" 2>"$work/log" || status=$?
    "${replay[@]}" --threads 1 >"$work/one_thread.json" 2>"$work/log" || [ "$status" -ne 0 ] ||
        fail "replay of $what, $mode, by one thread"
    cmp "$work/replay.json" "$work/one_thread.json" >"$work/log" 2>&1 || fail "replay of $what, $mode, by 3 threads is another than by 1"
    "$python" - "$work/replay.json" "$slot" "$least" >"$work/log" 2>&1 <<'END' || fail "replay of $what, $mode"
import json, sys
slots = json.load(open(sys.argv[1]))["slots"]
failing = [slot["slot"] for slot in slots if slot["verdict"] != "PASS"]
print(*(f"{slot['slot']}: {slot['verdict']} {slot['message']}" for slot in slots if slot["slot"] in failing), sep="\n")
sys.exit(failing != sys.argv[2].split() or len(slots) < int(sys.argv[3]))
END
    [ "$status" = $((${#slot} > 0)) ] || fail "replay of $what, $mode: exit code $status"
    n_replayed=$((n_replayed + 1))
}
n_replayed=0
for model in "${models[@]}"; do
    for gguf in "$work/$model-f32.gguf" "$root/fixtures/tiny/$model/$model-q8_0.gguf" "$root/fixtures/tiny/$model/$model-q4_0.gguf" "$work/$model-q4_k_m.gguf"; do
        logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$gguf" "$work/mutated.gguf" --tensor blk.2.attn_norm.weight=ones
        for options in "batched operations 67 h2_preattn" "per-token operations 67 h2_preattn" "batched layers 23 h2_postattn"; do
            read -r mode slots least wrong <<<"$options"
            run "$gguf" "$long" "$mode" --slots "$slots"
            expect "$gguf, without a bug," "$gguf" "$least"
            run "$work/mutated.gguf" "$long" "$mode" --slots "$slots"
            expect "$gguf with the weight of a norm missing" "$gguf" "$least" "$wrong"
        done
        mode=per-token
        rm -rf "$work/dump"
        logged "$bugs" --model "$gguf" --prompt-file "$long" --mode $mode --dump "$work/dump" --slots operations --change ffn_out-1=noise,by=1e-4,at=60
        expect "$gguf with noise at one position" "$gguf" 67 h1_ffnout
    done
done
echo "$n_replayed dumps replayed, with and without a bug ($((SECONDS - start)) s)"

# ---- the prompt among other sequences of a batch: as right as alone, and what is a neighbour's is found in its
# operation; llamacpp_bugs/run.py --trials 'neighbour|parallel' tries all
start=$SECONDS
n_replayed=0
for model in "${models[@]}"; do
    for mode in parallel:3 parallel-streams:3; do
        for prompt in "$work"/p?.txt; do
            name=$(basename "$prompt" .txt)
            fixture=("$root/fixtures/store/tiny--$model/main/float32/"*-"$(cat "$work/$name.sha")".npz)
            run "$work/$model-f32.gguf" "$prompt" "$mode"
            compare f32-neighbours "$model" "$mode.$name" "${fixture[0]}"
        done
    done
    for options in "parallel:3 $work/$model-f32.gguf f32" "parallel:3 $root/fixtures/tiny/$model/$model-q8_0.gguf f16" \
        "parallel-streams:3 $work/$model-q4_k_m.gguf f32" "parallel-streams:3 $work/$model-f32.gguf f16"; do
        read -r mode gguf cache <<<"$options"
        run "$gguf" "$long" "$mode" --slots operations --cache-type "$cache"
        expect "$gguf among neighbours" "$gguf" 67
    done
done
cache=f32
# MODEL MODE SLOTS CHANGE...
while IFS='|' read -r model mode wrong first second; do
    changes=(--change "$first")
    [ -z "$second" ] || changes+=(--change "$second")
    rm -rf "$work/dump"
    logged "$bugs" --model "$work/$model-f32.gguf" --prompt-file "$long" --mode "$mode" --dump "$work/dump" --slots operations "${changes[@]}"
    expect "$model with $first" "$work/$model-f32.gguf" 67 "$wrong"
done <<'END'
qwen3|parallel:3|h1_attn|kq_soft_max-1=mask,at=7|
llama|parallel:3|h2_attn|cache_k_l2 (view)/SET_ROWS=cells,at=7|
llama|parallel-streams:3|h2_attn|cache_v_l2 (reshaped) (view)/SET_ROWS=cells,at=7|
qwen3|parallel-streams:3|h2_qrope h2_krope|Qcur-2/ROPE=positions,by=61|Kcur-2/ROPE=positions,by=61
qwen35|parallel:3|h1_delta|state_predelta-1=neighbour|
qwen35|parallel-streams:3|h2_conv|conv_states_reshaped-2=neighbour|
END
echo "$n_replayed dumps of a prompt among neighbours replayed ($((SECONDS - start)) s)"

# ---- types of weights that no tiny file has: of each a matrix or two. Replay finds a zeroed row of each, and nothing
# in what is right. Whether a tensor is the checkpoint's is told, or that nothing can be told of its type.
start=$SECONDS
gguf=$work/types.gguf
types=() changes=() wrong=()
for type in attn_q=tq1_0 attn_v=tq2_0 ffn_gate=mxfp4 ffn_up=nvfp4; do types+=("blk.[12].$type"); done
logged "$built/bin/refparity-llamacpp-quantize" q8_0 "$work/wide/qwen3/qwen3-bf16.gguf" "$work/limited.gguf" "${types[@]}"
for type in attn_q.weight=blocks:IQ1_S attn_k.weight=blocks:IQ1_M attn_v.weight=blocks:IQ2_XXS attn_output.weight=blocks:IQ2_XS \
    ffn_gate.weight=blocks:IQ2_S ffn_up.weight=blocks:IQ3_XXS ffn_down.weight=blocks:IQ3_S; do changes+=(--tensor "blk.0.$type"); done
logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$work/limited.gguf" "$gguf" "${changes[@]}" # llama.cpp's quantizer needs half a minute
weights_say() { # GGUF [WRONG...]: these tensors are wrong, those of layer 0 are not compared
    local gguf=$1 status=0
    shift
    "$built/bin/refparity" weights --json "$gguf" "$work/wide/qwen3" >"$work/weights.json" 2>"$work/log" || status=$?
    [ "$status" = $(($# > 0 ? 1 : 2)) ] || fail "weights of $gguf: exit code $status"
    "$python" - "$work/weights.json" "$@" >"$work/log" 2>&1 <<'END' || fail "weights of $gguf: expected to be wrong: ${*:-nothing}"
import json, sys
bad = [found for found in json.load(open(sys.argv[1]))["findings"] if not found["right"]]
print(*(found["message"] for found in bad), sep="\n")
skipped = {f["name"]: f["message"].split(": ", 1)[1] for f in bad if "cannot be compared" in f["message"]}
wrong = [found["name"] for found in bad if found["name"] not in skipped]
sys.exit(wrong != sys.argv[2:] or len(skipped) != 7 or {name[:6] for name in skipped} != {"blk.0."}
         or skipped["blk.0.attn_v.weight"] != "type IQ2_XXS rounds 8 values at once")
END
}
weights_say "$gguf"
changes=()
for matrix in attn_q attn_v ffn_gate ffn_up; do
    changes+=(--tensor "blk.1.$matrix.weight=copy:blk.2.$matrix.weight")
    wrong+=("blk.1.$matrix.weight")
done
logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$gguf" "$work/mutated.gguf" "${changes[@]}"
weights_say "$work/mutated.gguf" "${wrong[@]}"
changes=()
for matrix in 0.attn_q 0.attn_k 0.attn_v 0.attn_output 0.ffn_gate 0.ffn_up 0.ffn_down 1.attn_q 1.attn_v 1.ffn_gate 1.ffn_up; do
    changes+=(--tensor "blk.$matrix.weight=zero:5:6")
done
logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$gguf" "$work/mutated.gguf" "${changes[@]}"
for mode in batched per-token; do
    run "$gguf" "$long" "$mode" --slots operations
    expect "all types" "$gguf" 67
    run "$work/mutated.gguf" "$long" "$mode" --slots operations
    expect "all types, a row of each zeroed" "$gguf" 67 "h0_q h0_k h0_v h0_attnout h0_gate h0_up h0_ffnout h1_q h1_v h1_gate h1_up"
done
echo "types of weights that no tiny file has: decoded, compared and replayed ($((SECONDS - start)) s)"

# ---- every operation: each slot is there, as wide as it has to be, and what NumPy makes of the slots that
# its operation reads, biases included; layers alone are then the same files, and no others
start=$SECONDS
"$python" - "$root/cases/llamacpp_bugs" "$work/llama-f32.gguf" "$work/biased-f32.gguf" <<'END'
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import gguf, numpy, mutate_gguf
reader = gguf.GGUFReader(sys.argv[2])
tensors = {found.name: mutate_gguf.Tensor(found) for found in reader.tensors}
random = numpy.random.default_rng(1)
for name in [name for name in tensors if name.startswith("blk.") and len(tensors[name].shape) == 2]:
    bias = object.__new__(mutate_gguf.Tensor)
    bias.type, bias.shape = mutate_gguf.Type.F32, [tensors[name].shape[1]]
    bias.bytes = random.normal(0, 0.1, bias.shape).astype("<f4").view("u1")[None]
    tensors[name.replace(".weight", ".bias")] = bias
rows = ((name, tuple(reversed(tensor.shape)), tensor.type, tensor.bytes) for name, tensor in tensors.items())
mutate_gguf.write_gguf(reader, {}, rows, pathlib.Path(sys.argv[3]))
END
slots_are_right() { logged "$python" "$root/cases/llamacpp_slots.py" "$@"; }
slots_are_wrong() { # MESSAGE GGUF: the twin that must fail
    local status=0
    "$python" "$root/cases/llamacpp_slots.py" "$2" "$work/dump" >"$work/log" 2>&1 || status=$?
    [ "$status" = 1 ] || fail "exit code $status, expected 1: $1"
    grep -qF -- "$1" "$work/log" || fail "no '$1'"
}
n_checked=0
for model in "${models[@]}" biased; do
    gguf=$work/$model-f32.gguf
    for mode in batched per-token batched:5; do
        for options in "f32 off 1e-5" "f32 on 1e-2" "f16 off 1e-2" "f16 on 1e-2"; do # F16's rounding inside attention
            read -r cache flash limit <<<"$options"
            run "$gguf" "$long" "$mode" --cache-type "$cache" --flash-attn "$flash" --slots operations
            slots_are_right "$gguf" "$work/dump" --attention "$limit"
            rm -rf "$work/operations"
            mv "$work/dump" "$work/operations"
            run "$gguf" "$long" "$mode" --cache-type "$cache" --flash-attn "$flash"
            for file in "$work"/dump/*.npy; do
                cmp -s "$file" "$work/operations/$(basename "$file")" || fail "$model, $mode: $(basename "$file") is another with --slots operations"
            done
            [ "$("$python" -c '
import json, pathlib, sys
dump = pathlib.Path(sys.argv[1])
about = json.loads((dump / "dump.json").read_text())
slots = [f"h{i}{part}" for i in range(about["n_layers"]) for part in ("", "_in", "_postattn", "_preffn", "_ffnout")]
files = {f"{slot}.npy" for slot in [*slots, "emb", "post_norm", "logits", "tokens"]} | {"dump.json"}
print({path.name for path in dump.iterdir()} == files and "order" not in about)' "$work/dump")" = True ] || fail "$model, $mode: --slots layers writes other files than it did"
            n_checked=$((n_checked + 1))
        done
    done
done
model=$work/llama-f32.gguf
run "$model" "$long" batched --slots operations
mv "$work/dump/h1_k.npy" "$work/h1_k.npy"
slots_are_wrong "h1_k is missing" "$model"
cp "$work/dump/h2_k.npy" "$work/dump/h1_k.npy"
slots_are_wrong "h1_k: L2_rel" "$model"
cp "$work/dump/h1_q.npy" "$work/dump/h1_k.npy"
slots_are_wrong "h1_k" "$model"
rm -rf "$work/dump"
logged "$bugs" --model "$model" --prompt-file "$long" --dump "$work/dump" --slots operations --change ffn_gate-2=noise,by=1e-3,at=60
slots_are_wrong "h2_gate: L2_rel" "$model"
# What is not shown is no pass: a required slot or rows of it missing, a dump that was broken off.
not_shown() { # MESSAGE
    local status=0
    "$built/bin/refparity" replay "$model" "$work/dump" >"$work/log" 2>&1 || status=$?
    [ "$status" = 2 ] || fail "replay of a dump that lacks something: exit code $status, expected 2"
    grep -qF -- "$1" "$work/log" || fail "replay does not say '$1'"
}
run "$model" "$long" batched --slots operations
sed -i 's/"complete": true/"complete": false/' "$work/dump/dump.json"
not_shown "its dump is not complete"
run "$model" "$long" batched --slots operations
rm "$work/dump/h1.npy"
not_shown "the dump has no h1;"
run "$model" "$long" batched --slots operations --positions 0,5,9
not_shown "some positions of"
echo "$n_checked dumps of all operations are right at every slot ($((SECONDS - start)) s)"

# ---- options, and what it says when it cannot
model=$work/llama-f32.gguf
run "$model" "$work/p1.txt" batched --positions 0,5,6,999
[ "$("$python" -c 'import numpy, sys; print(*numpy.load(sys.argv[1]).shape)' "$work/dump/h0.npy")" = "3 64" ] || fail "--positions 0,5,6,999 dumps other rows than three"
for options in "f16 off" "f16 on" "q8_0 on" "q4_0 on"; do
    read -r cache flash <<<"$options"
    run "$work/wide/qwen3/qwen3-bf16.gguf" "$work/p1.txt" batched:32 --cache-type "$cache" --flash-attn "$flash" --threads 2
done
refuses() { # MESSAGE OPTION...
    local message=$1 status=0
    shift
    rm -rf "$work/dump"
    "$engine" "$@" >"$work/log" 2>&1 || status=$?
    [ "$status" = 2 ] || fail "exit code $status, expected 2: $*"
    grep -qF -- "$message" "$work/log" || fail "no '$message': $*"
}
base=(--model "$model" --prompt-file "$work/p1.txt" --dump "$work/dump")
refuses "has no tensor no_such-0, for slot h0_preffn" "${base[@]}" --tensor preffn=no_such
refuses "the graph has this name twice" "${base[@]}" --tensor preffn=norm
refuses "tensor ffn_out-0 is named for slots" "${base[@]}" --tensor out=ffn_out
refuses "makes no context with these options" "${base[@]}" --cache-type q4_0
refuses "--slots takes layers or operations, not 'some'" "${base[@]}" --slots some
refuses "does not load it" --model "$work/p1.txt" --prompt-file "$work/p1.txt" --dump "$work/dump"
refuses "is not a decimal number from 0 to 1023" --model "$model" --tokens "$work/p1.txt" --dump "$work/dump"
refuses "--mode batched: takes a whole number from 1" "${base[@]}" --mode batched:
refuses "--mode parallel: takes a whole number from 2 to 64" "${base[@]}" --mode parallel:1
seq 0 1023 >"$work/all"
refuses "the prompt has all 1024 tokens of the vocabulary" --model "$model" --tokens "$work/all" --dump "$work/dump" --mode parallel:3
refuses "exactly one has to be given" --model "$model" --dump "$work/dump"
refuses "unknown option '--frobnicate'" "${base[@]}" --frobnicate 1
echo "options and errors are as documented"

# ---- the verdict on all comparisons
"$python" - "$work/diff" "${#models[@]}" <<'END'
import collections, json, pathlib, re, sys

# Limits on L2_rel of every slot, evidence included. F32: rounding alone, of two summation orders.
# Dequantized: activations are rounded to 8 bits in every product. Against the original weights: what
# 4 bits do to random weights; that it is compared at all is the point.
LIMITS = {"f32": 1e-5, "f32-operations": 1e-5, "f32-neighbours": 1e-5, "wide-f32": 1e-5, "q4_k_m-dequantized": 0.1, "q4_k_m": 0.6}
EMBEDDING_IS_EXACT = {"f32", "f32-operations", "f32-neighbours", "wide-f32", "q4_k_m-dequantized"}
n_models = int(sys.argv[2])
# fixtures with every operation's slot: one prompt a model
expected = {"f32": n_models * 3 * 6, "f32-operations": n_models * 3, "f32-neighbours": n_models * 2 * 6, "wide-f32": n_models * 3, "q4_k_m-dequantized": n_models * 3, "q4_k_m": n_models * 3}
counts, bad = collections.Counter(), []
for kind, limit in LIMITS.items():
    worst = collections.defaultdict(float)
    for path in sorted((pathlib.Path(sys.argv[1]) / kind).glob("*.json")):
        result = json.loads(path.read_text())
        slots = {slot["slot"]: slot["worst"]["l2_rel"] for slot in result["slots"] if slot["worst"]}
        n_layers = sum(re.fullmatch(r"h\d+", slot) is not None for slot in slots)
        per_layer = {"f32-operations": 16}.get(kind, 5)  # Llama has the fewest
        has_all = len(slots) >= per_layer * n_layers + 3 if per_layer > 5 else len(slots) == 5 * n_layers + 3
        if result["tokens"]["verdict"] != "PASS" or n_layers < 4 or not has_all:
            bad.append(f"{kind}/{path.name}: tokens {result['tokens']['message']}, slots {sorted(slots)}")
        if any(slot["n_missing"] or slot["n_extra"] for slot in result["slots"]):
            bad.append(f"{kind}/{path.name}: positions are missing")
        if kind in EMBEDDING_IS_EXACT and slots.get("emb") != 0:
            bad.append(f"{kind}/{path.name}: emb is not the same bit by bit")
        bad += [f"{kind}/{path.name}: {slot} {l2:.2g}, limit {limit:g}" for slot, l2 in slots.items() if not l2 < limit]
        for slot, l2 in slots.items():
            key = path.name.split(".")[0], re.sub(r"^h\d+", "h", slot)
            worst[key] = max(worst[key], l2)
        counts[kind] += 1
    for model in sorted({model for model, _ in worst}):
        print(f"{kind} {model}:", ", ".join(f"{slot} {l2:.2g}" for (m, slot), l2 in worst.items() if m == model))
print("compared:", ", ".join(f"{kind} {n}" for kind, n in counts.items()))
if counts != expected:
    bad.append(f"expected {expected}")
sys.exit("\n".join(["FAILED", *bad]) if bad else 0)
END
