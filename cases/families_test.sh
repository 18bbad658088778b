#!/usr/bin/env bash
# Architectures of fixtures/tiny/families.py, which no committed model has: checkpoints with random weights
# are made and recorded here. The C model and llama.cpp have to agree with HF at every operation's slot, the
# file is the checkpoint, replay reports nothing of what is right, and a bug of the architecture's own kind in
# its operation, and nowhere else.
set -euo pipefail

all=
if [ "${1:-}" = --all ]; then
    all=1
    shift
fi
if [ $# -lt 1 ]; then
    echo "usage: cases/families_test.sh [--all] BUILD_DIR [FAMILY...], a tree configured with -DREFPARITY_LLAMA_DIR" >&2
    echo "Without --all bugs are in F32 files alone, and token by token only F32 and Q4_K_M are replayed, without bugs." >&2
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$1
bin=$(cd "$build" && pwd)/bin
shift
[ -x "$bin/refparity-llamacpp" ] || {
    echo "error: $bin/refparity-llamacpp is missing: run ci/get-llamacpp.sh and configure with -DREFPARITY_LLAMA_DIR=DIR" >&2
    exit 2
}
families=("$@")
[ $# -gt 0 ] || families=(deepseek2 deepseek3 gemma2 gemma3 gpt-oss llama_linear phi3 qwen2 qwen35moe qwen3_yarn qwen3moe smollm3)
if [ ${#families[@]} -gt 1 ]; then # each by itself: most of a family's programs keep one processor busy
    printf '%s\n' "${families[@]}" | xargs -P "$(nproc)" -I{} "${BASH_SOURCE[0]}" ${all:+--all} "$build" {}
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$("$root/ci/record.sh" --print-python)
export PYTHONDONTWRITEBYTECODE=1
prompt=$root/matrix/prompts/long.txt

fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/log" ] || tail -n 20 "$work/log" >&2
    exit 1
}
logged() { "$@" >"$work/log" 2>&1 || fail "$*"; }
llamacpp() { # PROGRAM GGUF MODE [OPTION...]: dumps into $work/dump
    local program=$1 gguf=$2 mode=$3
    shift 3
    rm -rf "$work/dump"
    logged "$bin/$program" --model "$gguf" --prompt-file "$prompt" --mode "$mode" --dump "$work/dump" --slots operations "$@"
}
agrees() { # WHAT [LIMIT]: the dump with HF, at every slot that both have
    local limit=${2:-1e-5}
    "$bin/refparity" diff --json --threshold-l2-rel "$limit" "$work/hf.npz" "$work/dump" >"$work/diff.json" 2>"$work/log" || fail "$1 and HF"
    "$python" - "$work/diff.json" "$1" "$limit" "$work/hf.npz" "$work/dump" >"$work/said" 2>"$work/log" <<'END' || fail "$1 and HF"
import json, numpy, sys
slots = {slot["slot"]: slot["worst"]["l2_rel"] for slot in json.load(open(sys.argv[1]))["slots"] if slot["worst"]}
hf = numpy.load(sys.argv[4])
for name in slots:
    if name.endswith("_sharedrouter"):  # one logit, which may be near 0: what counts is its sigmoid, of slope 1/4
        slots[name] = float(abs(hf[name] - numpy.load(f"{sys.argv[5]}/{name}.npy")).max()) / 4
n_layers = sum(slot[1:].isdigit() for slot in slots)
worst = max(slots, key=slots.get)
print(f"{sys.argv[2]} and HF: {len(slots)} slots, the worst {worst} {slots[worst]:.2g}")
bad = [f"{slot}: {l2:.2g}, limit {sys.argv[3]}" for slot, l2 in slots.items() if not l2 < float(sys.argv[3])]
sys.exit("\n".join(bad) if bad or len(slots) < 14 * n_layers + 3 else 0)
END
    cat "$work/said"
}
replays() { # GGUF [SLOT=NAME...]: these alone fail, and have that explanation ("": none)
    local gguf=$1 status=0
    shift
    "$bin/refparity" replay "$gguf" "$work/dump" --activations by_weight --mode "$mode" --json >"$work/replay.json" 2>"$work/log" || status=$?
    "$python" - "$work/replay.json" "$@" >"$work/log" 2>&1 <<'END' || fail "replay of $gguf, $mode: expected to fail: ${*:-nothing}"
import json, sys
replay = json.load(open(sys.argv[1]))
bad = [slot for slot in replay["slots"] if slot["verdict"] != "PASS"]
names = {found["slot"]: found["name"] for found in replay["explanations"]}
print(*(f"{slot['slot']}: {slot['verdict']} {slot['message']} {names.get(slot['slot'])}" for slot in bad), sep="\n")
found = [f"{slot['slot']}={names.get(slot['slot'], '')}" for slot in bad]
sys.exit(found != sys.argv[2:] or len(replay["slots"]) < 60)
END
    [ "$status" = $(($# > 0)) ] || fail "replay of $gguf, $mode: exit code $status"
    n_replayed=$((n_replayed + 1))
}
differs() { # WHAT SLOT=NAME...: says what llama.cpp does otherwise than HF, and where replay has found it
    local what=$1 slots
    shift
    slots=$(printf '%s, ' "${@%%=*}")
    echo "$family, $mode: llama.cpp $what: ${slots%, } fail, ${1#*=}"
}
mutated() { # GGUF CHANGE SLOT=NAME: a file in which a tensor is wrong, which the engine reads
    local gguf=$1 change=$2
    shift 2
    logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$gguf" "$work/mutated.gguf" --tensor "$change"
    llamacpp refparity-llamacpp "$work/mutated.gguf" "$mode"
    replays "$gguf" "$@"
}

bugs_of_qwen2() { # GGUF
    mutated "$1" blk.2.attn_k.bias=scale:0 h2_k=bias-missing
    mutated "$1" blk.1.attn_v.bias=scale:0.999 h1_v=constant-bias
}
changed() { # GGUF KEY=VALUE SLOT=NAME...: the same with another key
    local gguf=$1 change=$2
    shift 2
    logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$gguf" "$work/mutated.gguf" --set "$change"
    llamacpp refparity-llamacpp "$work/mutated.gguf" "$mode"
    replays "$gguf" "$@"
}

# An expert that has another one's matrix, of gate and of down; experts' gate and up exchanged; a router's product.
bugs_of_qwen3moe() { # GGUF
    mutated "$1" blk.1.ffn_gate_exps.weight=from:1280:1536:768 h1_gate=expert-matrix
    mutated "$1" blk.2.ffn_down_exps.weight=from:1280:1536:768 h2_ffnout=expert-matrix
    mutated "$1" blk.0.ffn_up_exps.weight=copy:blk.0.ffn_gate_exps.weight h0_up=weights-swapped
    mutated "$1" blk.2.ffn_gate_inp.weight=scale:0.5 h2_router=constant-factor
    [ "$mode" = batched ] || return 0
    buggy "$1" router-not-normalized 1 h1_expertw=router-norm
    buggy "$1" router-raw-logits 1 h1_expertw=router-scores
    buggy "$1" router-one-less 1 h1_expertw=router-top-k
}

# The same of a layer with a DeltaNet and of one with attention; the shared expert's gate and matrices.
bugs_of_qwen35moe() { # GGUF
    mutated "$1" blk.1.ffn_up_exps.weight=from:1280:1536:768 h1_up=expert-matrix
    mutated "$1" blk.3.ffn_down_exps.weight=from:1280:1536:768 h3_moe=expert-matrix
    mutated "$1" blk.0.ffn_gate_inp_shexp.weight=scale:0.5 h0_sharedrouter=constant-factor
    mutated "$1" blk.2.ffn_up_shexp.weight=copy:blk.2.ffn_gate_shexp.weight h2_sharedup=weights-swapped
    [ "$mode" = batched ] || return 0
    buggy "$1" shared-gate-missing 2 h2_ffnout=shared-gate
}

# What llama.cpp differs by, in F32: its GELU is a table over F16, which HF's is not.
of_llamacpp() { [[ $1 = gemma[23] ]] && echo 5e-3 || echo 1e-5; }

# In the file: another cap of the scores and of the logits, a window that is one position too wide. In the C model: caps
# that are missing, or in another place.
bugs_of_gemma2() { # GGUF
    changed "$1" gemma2.attn_logit_softcapping=4.0 h0_attn=attention-softcap h1_attn=attention-softcap h2_attn=attention-softcap h3_attn=attention-softcap
    changed "$1" gemma2.final_logit_softcapping=4.0 logits=logits-softcap
    changed "$1" gemma2.attention.sliding_window=17 h0_attn=attention-window h2_attn=attention-window
    [ "$mode" = batched ] || return 0
    buggy "$1" softcap-missing 1 h1_attn=attention-softcap
    buggy "$1" softcap-before-scale 1 h1_attn=attention-softcap
    buggy "$1" softcap-not-multiplied 2 h2_attn=attention-softcap
    buggy "$1" softcap-after-mask 2 h2_attn=attention-softcap
    buggy "$1" logits-softcap-missing "" logits=logits-softcap
    buggy "$1" embedding-scale-missing "" emb=constant-factor
}

# A norm's weight without its 1, a window that is one position too wide, one base of RoPE for all layers, embeddings
# that are not scaled.
bugs_of_gemma3() { # GGUF
    mutated "$1" blk.2.post_attention_norm.weight=add:-1 h2_attnnorm=norm-weight-offset
    changed "$1" gemma3.rope.freq_base_swa=1000000.0 h0_qrope=rope-theta h0_krope=rope-theta h1_qrope=rope-theta h1_krope=rope-theta h2_qrope=rope-theta h2_krope=rope-theta h3_qrope=rope-theta h3_krope=rope-theta h4_qrope=rope-theta h4_krope=rope-theta
    changed "$1" gemma3.attention.sliding_window=17 h0_attn=attention-window h1_attn=attention-window h2_attn=attention-window h3_attn=attention-window h4_attn=attention-window
    [ "$mode" != batched ] || buggy "$1" embedding-scale-missing "" emb=constant-factor
}

# llama.cpp takes the file for a Llama's, and rotates Q and K of the layer that is to have no RoPE.
bugs_of_smollm3() { # GGUF
    logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$1" "$work/mutated.gguf" --architecture llama
    llamacpp refparity-llamacpp "$work/mutated.gguf" "$mode"
    replays "$1" h3_qrope=rope-on-nope-layer h3_krope=rope-on-nope-layer
    rm "$work"/dump/h3_qrope.npy "$work"/dump/h3_krope.npy
    replays "$1" h3_attn=rope-on-nope-layer
}

# Experts in one tensor, as some checkpoints have them: gate above up; and the same exchanged, which is another model.
fused_experts() {
    local first status
    for first in gate up; do
        rm -rf "$work/fused"
        cp -r "$checkpoint" "$work/fused"
        logged "$python" - "$work/fused/model.safetensors" $first <<'END'
import re, sys
import torch
from safetensors.torch import load_file, save_file
names = ("gate_proj", "up_proj") if sys.argv[2] == "gate" else ("up_proj", "gate_proj")
tensors, experts = {}, {}
for name, tensor in load_file(sys.argv[1]).items():
    found = re.fullmatch(r"(.+\.experts\.)(\d+)\.(\w+)\.weight", name)
    if found:
        experts.setdefault(found[1], {}).setdefault(found[3], {})[int(found[2])] = tensor
    else:
        tensors[name] = tensor
for prefix, of in experts.items():
    stacked = {name: torch.stack([rows[i] for i in range(len(rows))]) for name, rows in of.items()}
    tensors[prefix + "gate_up_proj"] = torch.cat([stacked[name] for name in names], dim=1)
    tensors[prefix + "down_proj"] = stacked["down_proj"]
save_file(tensors, sys.argv[1], metadata={"format": "pt"})
END
        [ $first = up ] || sketched "$work/fused"
        status=0
        "$bin/refparity" weights "$bf16" "$work/fused" >"$work/log" 2>&1 || status=$?
        [ "$first=$status" = gate=0 ] || [ "$first=$status" = up=1 ] || fail "experts in one tensor, $first first: exit code $status"
    done
    grep -q ffn_gate_exps "$work/log" || fail "gate and up exchanged are not named"
}

# ---- by the sketch alone: experts, and what kv_b_proj is split into
# gpt-oss's experts, which a file has transposed, cannot be sketched.
sketched() { # CHECKPOINT
    local sketch=$work/sketch.safetensors change=blk.1.ffn_up_exps.weight=from:1280:1536:768 type status=0
    logged "$python" "$root/fixtures/weights_sketch.py" "$1" "$sketch"
    [[ $family != deepseek* ]] || change=blk.1.attn_k_b.weight=swap:0:256:256
    for type in "$bf16" "$work/q8_0.gguf" "$work/q4_k_m.gguf"; do
        logged "$bin/refparity" weights "$type" "$sketch"
        grep -qF "the file is the checkpoint" "$work/log" || fail "$type is not what its sketch says"
    done
    logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$work/q8_0.gguf" "$work/mutated.gguf" --tensor "$change"
    "$bin/refparity" weights "$work/mutated.gguf" "$sketch" >"$work/log" 2>&1 || status=$?
    [ "$status" = 1 ] || fail "by the sketch $change is right"
    grep -qF "${change%%=*} (Q8_0): " "$work/log" || fail "by the sketch it is not ${change%%=*} that is wrong"
}

buggy() { # GGUF BUG LAYER SLOT=NAME...: (LAYER "": it is outside of them) the C model with a bug of the catalogue is the engine
    local gguf=$1 bug=$2 layer=$3
    shift 3
    rm -rf "$work/dump"
    logged "$bin/refparity-embedded-bugs" --model "$gguf" --tokens "$work/tokens" --mode "$mode" --dump "$work/dump" --slots operations --activations by_weight --bug "$bug" ${layer:+--layer "$layer"}
    replays "$gguf" "$@"
}

# ---- latent attention as older files have it: keys and values are made of the latent
not_absorbed() { # GGUF, in F32
    local older=$work/older.gguf type
    logged "$python" "$root/cases/older_latents.py" "$1" "$older"
    logged "$bin/refparity" weights "$older" "$checkpoint"
    logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$older" "$work/mutated.gguf" --tensor blk.1.attn_kv_b.weight=swap:0:160:160
    "$bin/refparity" weights "$work/mutated.gguf" "$checkpoint" >"$work/log" 2>&1 && fail "heads of kv_b_proj exchanged are right"
    grep -qF "blk.1.attn_kv_b.weight (F32): 320 of " "$work/log" || fail "it is not attn_kv_b that is wrong"
    rm -rf "$work/dump"
    logged "$bin/refparity-embedded" --model "$older" --tokens "$work/tokens" --mode "$mode" --dump "$work/dump" --slots operations
    agrees "$family, $mode, not absorbed: the C model"
    llamacpp refparity-llamacpp "$older" "$mode"
    agrees "$family, $mode, not absorbed: llama.cpp"
    replays "$older"
    logged "$bin/refparity-llamacpp-quantize" q8_0 "$older" "$work/older-q8_0.gguf"
    llamacpp refparity-llamacpp "$work/older-q8_0.gguf" "$mode"
    replays "$work/older-q8_0.gguf"
}

# DeepSeek V2's groups of experts are chosen by the best one of each. llama.cpp takes the two best ones, as V3 has it.
grouped() { # GGUF, in F32
    local count=deepseek2.expert_group_count=4 used=deepseek2.expert_group_used_count=2
    cp "$checkpoint/config.json" "$work/config.json"
    mv "$work/hf.npz" "$work/hf.not-grouped.npz"
    "$python" - "$checkpoint/config.json" <<'END'
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
groups = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}
path.write_text(json.dumps(json.loads(path.read_text()) | groups))
END
    logged "$python" "$root/fixtures/hf_reference.py" --model "wide/$family" --checkpoints "$work" --prompt-file "$prompt" --out "$work/hf.npz" --slots operations
    rm -rf "$work/dump"
    logged "$bin/refparity-embedded" --model "$checkpoint" --tokens "$work/tokens" --mode "$mode" --dump "$work/dump" --slots operations
    agrees "$family, $mode, groups of experts: the C model"
    mv "$work/hf.not-grouped.npz" "$work/hf.npz"
    mv "$work/config.json" "$checkpoint/config.json"
    logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$1" "$work/mutated.gguf" --set "$count" --set "$used"
    llamacpp refparity-llamacpp "$work/mutated.gguf" "$mode"
    replays "$work/mutated.gguf" h1_experts=router-groups h2_experts=router-groups
    differs "chooses groups of experts by their two best scores" h1_experts=router-groups h2_experts=router-groups
}

# The C model computes the same in both modes.
bugs_of_latents() { # GGUF
    buggy "$1" latent-rope-in-front 1 h1_qrope=rope-on-nope-part
    buggy "$1" latent-key-not-rotated 1 h1_krope=rope-missing
    buggy "$1" latent-norm-missing 1 h1_kvanorm=norm-missing
    buggy "$1" latent-mscale-missing 1 h1_latent=attention-scale
    buggy "$1" latent-scale-by-width 1 h1_latent=attention-scale
    buggy "$1" latent-scores-alone 1 h1_latent=attention-parts
    buggy "$1" latent-k_b-transposed 1 h1_qabsorbed=weights-transposed
    buggy "$1" latent-v_b-heads 1 h1_attn=weights-heads
    [ "$1" != "$work/f32.gguf" ] || not_absorbed "$1"
}

bugs_of_deepseek2() { # GGUF
    changed "$1" deepseek2.expert_weights_scale=1.0 h1_expertw=router-scale h2_expertw=router-scale
    [ "$mode" = batched ] || return 0
    bugs_of_latents "$1"
    [ "$1" != "$work/f32.gguf" ] || grouped "$1"
}

# llama.cpp takes the latents' eps from the file, and HF 1e-6, whatever config.json says.
bugs_of_deepseek3() { # GGUF
    local eps=deepseek2.attention.layer_norm_rms_epsilon=0.00001 layer expected=()
    for layer in 0 1 2; do
        expected+=("h${layer}_qanorm=norm-eps" "h${layer}_kvanorm=norm-eps")
    done
    otherwise "takes the eps of the latents' norms from the file" "$1" "$eps" "${expected[@]}"
    changed "$1" deepseek2.expert_group_count=1 h1_experts=router-groups h2_experts=router-groups
    mutated "$1" blk.1.exp_probs_b.bias=scale:0 h1_experts=router-correction
    [ "$mode" = batched ] || return 0
    buggy "$1" router-bias-in-weights 1 h1_expertw=router-correction
    bugs_of_latents "$1"
}

# In the file: sinks that are none, biases missing, a window that is one position too wide. What llama.cpp
# has as constants is wrong in the C model, on F32 alone, which it does not round.
bugs_of_gpt-oss() { # GGUF
    [ "$1" = "$work/f32.gguf" ] || [ "$mode" = batched ] || return 0
    mutated "$1" blk.2.attn_sinks.weight=add:-1e9 h2_attn=attention-sink
    mutated "$1" blk.1.attn_output.bias=scale:0 h1_attnout=bias-missing
    mutated "$1" blk.3.ffn_gate_inp.bias=scale:0 h3_router=bias-missing
    mutated "$1" blk.1.ffn_up_exps.bias=scale:0 h1_up=bias-missing
    mutated "$1" blk.1.ffn_down_exps.bias=scale:0 h1_ffnout=bias-missing
    changed "$1" gpt-oss.attention.sliding_window=17 h0_attn=attention-window h2_attn=attention-window
    [ "$1" = "$work/f32.gguf" ] && [ "$mode" = batched ] || return 0
    buggy "$1" sinks-missing 2 h2_attn=attention-sink
    buggy "$1" sinks-scaled 2 h2_attn=attention-sink
    buggy "$1" sink-off 2 h2_attn=attention-sink
    buggy "$1" window-wider 2 h2_attn=attention-window
    buggy "$1" ffn-clamp-missing 2 h2_act=ffn-clamp
    buggy "$1" ffn-clamp-symmetric 2 h2_act=ffn-clamp
    buggy "$1" ffn-up-plain 2 h2_act=ffn-up-offset
    buggy "$1" ffn-alpha 2 h2_act=ffn-activation
    buggy "$1" expert-bias-missing 2 h2_up=bias-missing
    buggy "$1" router-bias-missing 2 h2_router=bias-missing
    buggy "$1" router-softmax-of-all 2 h2_expertw=router-scores
}

every_layer() { # NAME: of Q and of K; sets $each
    local layer
    each=()
    for layer in 0 1 2 3; do
        each+=("h${layer}_qrope=$1" "h${layer}_krope=$1")
    done
}
ignored() { # GGUF KEY=VALUE SLOT=NAME...: a key that the engine does not read
    otherwise "does not read $2" "$@"
}
otherwise() { # WHAT GGUF KEY=VALUE SLOT=NAME...: a key of the file by which the engine and HF differ
    local what=$1 gguf=$2 change=$3
    shift 3
    logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$gguf" "$work/mutated.gguf" --set "$change"
    llamacpp refparity-llamacpp "$work/mutated.gguf" "$mode"
    replays "$work/mutated.gguf" "$@"
    differs "$what" "$@"
}

# Scaling that is not there, another factor.
bugs_of_llama_linear() { # GGUF
    every_layer rope-scaling-missing
    changed "$1" llama.rope.scaling.type=none "${each[@]}"
    every_layer rope-scaling
    changed "$1" llama.rope.scaling.factor=8.0 "${each[@]}"
}

# No scaling, no attention factor, no ramp; and what llama.cpp does with a file of other betas, or with an
# attention factor of its own: nothing.
bugs_of_qwen3_yarn() { # GGUF
    every_layer rope-scaling-missing
    changed "$1" qwen3.rope.scaling.type=none "${each[@]}"
    every_layer rope-attention-factor
    changed "$1" qwen3.rope.scaling.attn_factor=0.878248856 "${each[@]}"
    every_layer rope-ramp
    changed "$1" qwen3.rope.scaling.type=linear "${each[@]}"
    every_layer rope-ramp
    ignored "$1" qwen3.rope.scaling.yarn_beta_fast=8.0 "${each[@]}"
    every_layer rope-attention-factor
    ignored "$1" qwen3.rope.scaling.yarn_attn_factor=1.25 "${each[@]}"
}

# Parts of the fused products exchanged: Q and K, gate and up; longrope's short factors for the long ones; and the
# window of a file that has one, which llama.cpp leaves out.
bugs_of_phi3() { # GGUF
    mutated "$1" blk.1.attn_qkv.weight=swap:0:256:256 h1_q=weights-swapped h1_k=weights-swapped
    mutated "$1" blk.2.ffn_up.weight=swap:0:512:512 h2_gate=weights-swapped h2_up=weights-swapped
    every_layer rope-longrope
    changed "$1" phi3.rope.scaling.original_context_length=512 "${each[@]}"
    ignored "$1" phi3.attention.sliding_window=16 h0_attn=attention-window h1_attn=attention-window h2_attn=attention-window h3_attn=attention-window
}

# Experts as they are published: the C model reads MXFP4 as transformers does, to the bit; llama.cpp's MXFP4 is theirs,
# and its Q8_0 of what was not rounded is not.
mxfp4_checkpoint() {
    local kind
    logged "$python" "$root/fixtures/tiny/make_mxfp4.py" "$checkpoint" "$work/mxfp4"
    for kind in packed unpacked; do
        logged "$bin/refparity-embedded" --model "$work/mxfp4/$kind" --tokens "$work/tokens" --mode batched --dump "$work/mxfp4/dump.$kind" --slots operations
    done
    for kind in h0_gate h3_ffnout logits; do
        cmp "$work/mxfp4/dump.packed/$kind.npy" "$work/mxfp4/dump.unpacked/$kind.npy" || fail "MXFP4 is read otherwise than transformers does"
    done
    logged "$bin/refparity" weights "$work/mxfp4_moe.gguf" "$work/mxfp4/packed"
    "$bin/refparity" weights "$work/q8_0.gguf" "$work/mxfp4/packed" >"$work/log" && fail "Q8_0 is taken for MXFP4"
    grep -qF "12 are not the checkpoint's" "$work/log" || fail "other tensors than the experts' are not the checkpoint's"
}

# HF in 16 bits is an engine: no operation fails. Its experts' products are rounded before their bias is added.
in_16_bits() {
    local type types_of_state=(bfloat16)
    [ -z "$all" ] || types_of_state+=(float16)
    for type in "${types_of_state[@]}"; do
        logged "$python" "$root/cases/state_engine.py" "$bin/refparity" "$checkpoint" "$bf16" "$type" --prompts 1
        grep -q " slots, 0 bugs, 0 wrong" "$work/log" || fail "gpt-oss in $type"
    done
}

# The last model in shards, as converters write them: the same model, whichever shard is named.
split_files() {
    local shard
    logged "$python" - "$root/fixtures" "$work/q8_0.gguf" "$work/split.gguf" <<'END'
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import gguf, gguf_copy
gguf_copy.split_gguf(gguf.GGUFReader(sys.argv[2]), pathlib.Path(sys.argv[3]), 20)
END
    for shard in "$work"/split-0000?-of-0000?.gguf; do
        logged "$bin/refparity" weights "$shard" "$checkpoint"
        logged "$bin/refparity" show "$shard"
        llamacpp refparity-llamacpp "$work"/split-00001-of-0000?.gguf "$mode"
        replays "$shard"
    done
    rm "$shard"
    "$bin/refparity" show "$work"/split-00001-of-0000?.gguf >"$work/log" 2>&1 && fail "a missing shard is not missed"
    grep -qF "$(basename "$shard"): shard" "$work/log" || fail "the missing shard is not named"
    # a layer needs the first shard and its own
    local last part=("$bin/refparity" replay "$work"/split-00001-of-0000?.gguf "$work/dump" --activations by_weight --mode "$mode")
    logged "${part[@]}" --layers 0
    last=$("$bin/refparity" show "$work/q8_0.gguf" | sed -n 's/^blk\.\([0-9]*\)\..*/\1/p' | sort -n | tail -n 1)
    "${part[@]}" --layers "$last" >"$work/log" 2>&1 && fail "layer $last is replayed without its shard"
    grep -qF "$(basename "$shard"): shard" "$work/log" || fail "the missing shard of layer $last is not named"
    echo "$family: $((n_replayed - before)) shards opened, each as the whole model"
}

# Layers whose FFNs have several widths. llama.cpp takes one width for a Llama's; the same model under the name of
# DeciLM, whose layers it computes alike, has one for each.
several_widths() {
    local type tiny=$root/fixtures/tiny/llama
    before=$n_replayed
    logged "$python" "$root/cases/narrow_layers.py" "$tiny" "$work/narrow" 192,128,64,160
    for type in f32 q8_0; do
        logged "$bin/refparity-llamacpp-quantize" $type "$work/narrow/llama-bf16.gguf" "$work/narrow/$type.gguf"
        logged "$bin/refparity" weights "$work/narrow/$type.gguf" "$work/narrow"
        logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$work/narrow/$type.gguf" "$work/deci.gguf" --architecture deci
        for mode in batched per-token; do
            llamacpp refparity-llamacpp "$work/deci.gguf" $mode
            replays "$work/narrow/$type.gguf"
        done
        logged "$python" "$root/cases/llamacpp_bugs/mutate_gguf.py" "$work/deci.gguf" "$work/mutated.gguf" --tensor blk.2.ffn_up.weight=copy:blk.2.ffn_gate.weight
        llamacpp refparity-llamacpp "$work/mutated.gguf" "$mode"
        replays "$work/narrow/$type.gguf" h2_up=weights-swapped
    done
    rm -rf "$work/dump"
    logged "$bin/refparity-embedded" --model "$work/narrow" --tokens "$work/tokens" --mode batched --dump "$work/dump" --slots operations
    mode=batched
    "$bin/refparity" replay "$work/narrow" "$work/dump" >"$work/log" 2>&1 || fail "a checkpoint whose layers have several widths"
    echo "FFNs of several widths: $((n_replayed - before)) dumps of llama.cpp replayed"
}

for family in "${families[@]}"; do
    start=$SECONDS
    n_replayed=0
    logged "$python" "$root/fixtures/tiny/make_wide.py" "$work" "$family"
    checkpoint=$work/wide/$family
    bf16=$checkpoint/$family-bf16.gguf
    types=(f32 q8_0 q4_k_m iq4_xs)
    [ "$family" != gpt-oss ] || types=(f32 q8_0 q4_k_m mxfp4_moe)
    for type in "${types[@]}"; do
        logged "$bin/refparity-llamacpp-quantize" "$type" "$bf16" "$work/$type.gguf"
    done
    logged "$python" "$root/fixtures/hf_reference.py" --model "wide/$family" --checkpoints "$work" --prompt-file "$prompt" --out "$work/hf.npz" --slots operations
    "$python" -c 'import numpy, sys; print(*numpy.load(sys.argv[1])["tokens"], sep="\n")' "$work/hf.npz" >"$work/tokens"
    for type in bf16 "${types[@]}"; do
        file=$work/$type.gguf
        [ "$type" = bf16 ] && file=$bf16
        logged "$bin/refparity" weights "$file" "$checkpoint"
    done
    [[ $family != *moe ]] || fused_experts
    [[ $family != *moe && $family != deepseek* ]] || sketched "$checkpoint"
    for mode in batched per-token; do
        for model in "$bf16" "$checkpoint"; do
            rm -rf "$work/dump"
            logged "$bin/refparity-embedded" --model "$model" --tokens "$work/tokens" --mode $mode --dump "$work/dump" --slots operations
            agrees "$family, $mode: the C model"
        done
        llamacpp refparity-llamacpp "$work/f32.gguf" $mode
        agrees "$family, $mode: llama.cpp" "$(of_llamacpp "$family")"
        replayed=("${types[@]}")
        with_bugs=(f32 q8_0)
        [ -n "$all" ] || with_bugs=(f32)
        if [ -z "$all" ] && [ $mode = per-token ]; then
            replayed=(f32 q4_k_m)
            with_bugs=()
        fi
        for type in "${replayed[@]}"; do
            llamacpp refparity-llamacpp "$work/$type.gguf" $mode
            replays "$work/$type.gguf"
        done
        for type in ${with_bugs[@]+"${with_bugs[@]}"}; do
            "bugs_of_$family" "$work/$type.gguf"
        done
    done
    [ "$family" != gpt-oss ] || mxfp4_checkpoint
    [ "$family" != gpt-oss ] || in_16_bits
    echo "$family: $n_replayed dumps of llama.cpp replayed, with and without a bug ($((SECONDS - start)) s)"
done
before=$n_replayed
[ "$family" != smollm3 ] || split_files
[ "$family" != llama_linear ] || several_widths
