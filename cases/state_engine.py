#!/usr/bin/env python3
"""HF itself run in BF16 and F16 is an engine that is right: no operation may fail. With a bug, its own must.

    state_engine.py TOOL CHECKPOINT GGUF DTYPE [--prompts N] [--layers] [--bugs]

Records N prompts, every operation, and has TOOL replay them on GGUF with the state declared. With --bugs
the first prompt is recorded again with each bug that the architecture can have: at least one slot has to
fail, and none that the bug does not make. Prints what was introduced at most per operation, and its limit.
With --layers the dumps have the slots of the level "layers" alone, so that most operations are carried,
and a bug has to fail in its layer.
Exit code 1: something was found that is not there, or not found.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent / "fixtures"))

import gguf
import numpy as np
import torch
import transformers
from hf_model import ReferenceModel
from slot_hooks import SlotHooks
from torch import Tensor, nn
from torch.nn import functional

STATES = {"bfloat16": "bf16", "float16": "f16"}
PROMPTS = (
    "The river runs past the old mill, and the miller counts his sacks.",
    "A lamp burned in the window of the last house before the pass, where nobody had lived for years.",
    "One, two, three, four, five.",
    "Write a short story about a village where it never stops raining, and about the boat in its square.",
    "def total(values): return sum(value for value in values if value is not None)",
    "Snow fell on the roofs all night; by morning the whole town was quiet, white and a little afraid of itself.",
)
LAYER = 1  # where a bug of one layer is put


# ---- what an engine may do wrong ----


def norm_in_state(self: nn.Module, x: Tensor) -> Tensor:
    eps = getattr(self, "variance_epsilon", None) or self.eps
    weight = 1.0 + self.weight if hasattr(self, "_norm") else self.weight
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def norm_weight_rounded(self: nn.Module, x: Tensor) -> Tensor:
    return (self._norm(x.float()) * (1.0 + self.weight.float()).to(x.dtype)).type_as(x)


def norm_rounded_before_weight(self: nn.Module, x: Tensor) -> Tensor:
    return (self._norm(x.float()).type_as(x) * (1.0 + self.weight.float())).type_as(x)


def gated_norm_in_state(self: nn.Module, x: Tensor, gate: Tensor) -> Tensor:
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * normed * functional.silu(gate)


def angles_in_state(self: nn.Module, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    positions = position_ids if position_ids.dim() == 2 else position_ids[0]
    freqs = positions[..., None].to(x.dtype) * self.inv_freq.to(x.dtype)
    both = torch.cat((freqs, freqs), dim=-1)
    return both.cos(), both.sin()


def softmax_in_state(scores: Tensor) -> Tensor:
    """torch's own is FP32 inside, whatever it is given."""
    powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def attention(own_softmax: bool = False, scales_weights: bool = False) -> Callable:
    def forward(module, query, key, value, mask, scaling, **_kwargs):
        key, value = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (key, value))
        scores = torch.matmul(query, key.transpose(2, 3))
        if not scales_weights:
            scores = scores * scaling
        scores = scores + mask
        weights = softmax_in_state(scores) if own_softmax else functional.softmax(scores.float(), dim=-1)
        weights = weights.to(query.dtype)
        if scales_weights:
            weights = weights * scaling
        return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights

    return forward


def product_in_two_parts(self: nn.Linear, x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    one = functional.linear(x[..., :half], self.weight[:, :half])
    return one + functional.linear(x[..., half:], self.weight[:, half:])


def activation_rounded_once(self: nn.Module, x: Tensor) -> Tensor:
    gate, up = self.gate_proj(x).float(), self.up_proj(x).float()
    return self.down_proj((functional.silu(gate) * up).to(x.dtype))


def fused_attention(module, query, key, value, _mask, scaling, **_kwargs):
    key, value = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (key, value))
    output = functional.scaled_dot_product_attention(query, key, value, scale=scaling, is_causal=True)
    return output.transpose(1, 2).contiguous(), None


class Bug(NamedTuple):
    name: str
    slots: str  # of which at least one has to fail, and no other; a regular expression
    patch: Callable  # of the decoder: a context manager; None where it changes nothing


def method(find: Callable, replacement: Callable) -> Callable:
    """Patches the forward of the module that find gives."""

    def patch(decoder: nn.Module):
        module = find(decoder)
        return None if module is None else mock.patch.object(module, "forward", replacement.__get__(module))

    return patch


def function(name: str, replacement: Callable) -> Callable:
    """Patches a function of the modeling file."""

    def patch(decoder: nn.Module):
        file = sys.modules[type(decoder.layers[0]).__module__]
        return mock.patch.object(file, name, replacement(file)) if hasattr(file, name) else None

    return patch


def layer_part(path: str, has: str = "") -> Callable:
    def find(decoder: nn.Module) -> nn.Module | None:
        module = decoder.layers[LAYER]
        for name in path.split("."):
            module = getattr(module, name, None)
        return module if module is None or not has or hasattr(module, has) else None

    return find


def norm_whose_weight_rounds(decoder: nn.Module) -> nn.Module | None:
    module = decoder.layers[LAYER].post_attention_layernorm
    effective = 1.0 + module.weight.float()
    return module if hasattr(module, "_norm") and not torch.equal(effective, effective.to(STATE).float()) else None


def decay_in_state(file):
    """softplus gives back its input's type, and the decay is FP32 no more."""

    class Functional:
        def __getattr__(self, name: str):
            return getattr(functional, name)

        @staticmethod
        def softplus(x: Tensor) -> Tensor:
            return functional.softplus(x).to(STATE).float()

    return Functional()


def l2norm_in_state(file):
    right = file.l2norm

    def wrong(x: Tensor, dim: int = -1, eps: float = 1e-6) -> Tensor:
        return right(x.to(STATE), dim, eps).float()

    return wrong


BUGS = (
    Bug("a norm in 16 bits throughout", f"h{LAYER}_preattn", method(layer_part("input_layernorm"), norm_in_state)),
    Bug(
        "a norm's weight rounded after 1 is added",
        f"h{LAYER}_preffn",
        method(norm_whose_weight_rounds, norm_weight_rounded),
    ),
    Bug(
        "a norm rounded before its weight, where HF rounds last",
        f"h{LAYER}_preffn",
        method(layer_part("post_attention_layernorm", "_norm"), norm_rounded_before_weight),
    ),
    Bug("QK-norm in 16 bits throughout", f"h{LAYER}_knorm", method(layer_part("self_attn.k_norm"), norm_in_state)),
    Bug("RoPE's angles in 16 bits", r"h\d+_[qk]rope", method(lambda decoder: decoder.rotary_emb, angles_in_state)),
    Bug(
        "the softmax in 16 bits",
        r"h\d+_attn",
        function("eager_attention_forward", lambda _: attention(own_softmax=True)),
    ),
    Bug(
        "weights scaled after the softmax, not scores before it",
        r"h\d+_attn",
        function("eager_attention_forward", lambda _: attention(scales_weights=True)),
    ),
    Bug(
        "a product summed in two parts, rounded each",
        f"h{LAYER}_ffnout",
        method(layer_part("mlp.down_proj"), product_in_two_parts),
    ),
    Bug("SiLU not rounded before the product", f"h{LAYER}_act", method(layer_part("mlp"), activation_rounded_once)),
    Bug("the decay in 16 bits", r"h\d+_decay", function("F", decay_in_state)),
    Bug("Q and K of the delta rule normed in 16 bits", r"h\d+_delta", function("l2norm", l2norm_in_state)),
    Bug("the gated norm in 16 bits", f"h{LAYER}_mix", method(layer_part("linear_attn.norm"), gated_norm_in_state)),
)
STATE = torch.bfloat16  # of the run


# ---- recording and replaying ----


def same_numbers(path: str, dtype: str, folder: str) -> str:
    """A GGUF with the numbers that HF has when its BF16 weights are loaded in F16: the smallest are others."""
    types = {tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    if dtype == "bfloat16" or gguf.GGMLQuantizationType.BF16 not in types:
        return path
    copy = shutil.copy(path, folder)
    for tensor in gguf.GGUFReader(copy, "r+").tensors:
        if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
            tensor.data[:] = values.view(np.uint8).reshape(tensor.data.shape)
            tensor.field.parts[4][:] = gguf.GGMLQuantizationType.F16
        elif "conv1d" in tensor.name:
            tensor.data[:] = tensor.data.astype(np.float16)
    return copy


@torch.no_grad()
def record(reference: ReferenceModel, prompt: str, level: str, path: Path, patch=None) -> None:
    """As the recorder does, but without its checks, which a bug does not pass."""
    tokens = reference.tokenize(prompt)

    @contextmanager
    def patched() -> Iterator[None]:
        if patch is None:
            yield
        else:
            with patch:
                yield

    with patched(), SlotHooks(reference.decoder, reference.architecture, level) as hooks:
        output = reference.model(input_ids=torch.from_numpy(tokens)[None], use_cache=False)
        hooks.keep("logits", output.logits)
    slots = {name: value.float().numpy() for name, value in hooks.slots.items() if not re.search("_(read|value)$", name)}
    np.savez(path, tokens=tokens, positions=np.arange(len(tokens)), **slots)


def replay(args: argparse.Namespace, path: Path) -> list[dict]:
    numerics = ["--state", STATES[args.dtype], *(["--attention", "flash"] if args.fused else [])]
    command = [args.tool, "replay", "--json", "--no-explain", *numerics, args.gguf, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)["slots"]


def main() -> int:
    global STATE
    parser = argparse.ArgumentParser()
    for name in ("tool", "checkpoint", "gguf"):
        parser.add_argument(name)
    parser.add_argument("dtype", choices=STATES)
    parser.add_argument("--prompts", type=int, default=2, help="of 17 to 38 tokens, the first so many")
    parser.add_argument("--layers", action="store_const", const="layers", default="operations", dest="level")
    parser.add_argument("--fused", action="store_true", help="attention by torch's fused kernel, declared as flash")
    parser.add_argument("--bugs", action="store_true")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    reference = ReferenceModel(Path(args.checkpoint), args.dtype)
    STATE = getattr(torch, args.dtype)
    worst: dict[str, tuple[float, float, float, str]] = {}
    n_slots = n_wrong = n_bugs = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dump.npz")
        args.gguf = same_numbers(args.gguf, args.dtype, folder)
        for prompt in PROMPTS[: args.prompts]:
            fused = function("eager_attention_forward", lambda _: fused_attention)(reference.decoder)
            record(reference, prompt, args.level, path, fused if args.fused else None)
            for slot in replay(args, path):
                n_slots += 1
                for introduced, limit in zip(slot["introduced"], slot["limit"], strict=True):
                    found = (introduced / limit, introduced, limit, slot["slot"])
                    worst[slot["operation"]] = max(worst.get(slot["operation"], found), found)
                if slot["verdict"] != "PASS":
                    n_wrong += 1
                    print(f"{slot['slot']}: {slot['verdict']}: {slot['message']}")
        for bug in BUGS if args.bugs else ():
            patch = bug.patch(reference.decoder)
            if patch is None:
                continue
            n_bugs += 1
            record(reference, PROMPTS[0], args.level, path, patch)
            failing = [slot for slot in replay(args, path) if slot["verdict"] != "PASS"]
            slots = bug.slots if args.level == "operations" else re.sub("_.*", "(_.*)?", bug.slots)
            others = [slot["slot"] for slot in failing if not re.fullmatch(slots, slot["slot"])]
            is_wrong = others or not failing
            n_wrong += bool(is_wrong)
            print(f"  {bug.name}: " + (f"{failing[0]['slot']}: {failing[0]['message']}" if failing else "NOT FOUND"))
            if others:
                print(f"    and what it does not make: {', '.join(others)}")
    for operation, (ratio, introduced, limit, slot) in sorted(worst.items()):
        print(f"  {operation:32} {ratio:5.2f} of its limit ({introduced:.2g} of {limit:.2g}, {slot})")
    print(f"{Path(args.gguf).name} in {args.dtype}: {n_slots} slots, {n_bugs} bugs, {n_wrong} wrong")
    return 1 if n_wrong or n_slots == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
