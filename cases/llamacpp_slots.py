#!/usr/bin/env python3
"""Is every operation of llama.cpp in its dump, of all positions, and each slot what its operation is?

    llamacpp_slots.py GGUF DUMP [--attention LIMIT]

GGUF has F32 weights of the architecture llama, qwen3 or qwen35, DUMP is of --slots operations. Each slot
is computed by NumPy from the slots that its operation reads, in the file's own order of values; L2_rel has
to be below 1e-5 at every position, of attention below LIMIT. Exit code 1: a slot is missing, too wide,
or another.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import gguf
import numpy as np

LIMIT = 1e-5  # another order of FP32 sums


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def side_by_side(heads: np.ndarray) -> np.ndarray:
    return heads.reshape(len(heads), -1)


class Model:
    """A GGUF's weights and numbers."""

    def __init__(self, path: str) -> None:
        reader = gguf.GGUFReader(path)
        self.weights = {t.name: t.data.astype(np.float64) for t in reader.tensors}
        self.fields = reader.fields
        self.architecture = str(self.fields["general.architecture"].contents())
        self.n_layers = self.number("block_count")

    def number(self, key: str, default: float = 0) -> float:
        field = self.fields.get(f"{self.architecture}.{key}")
        return field.contents() if field else default

    def norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        eps = self.number("attention.layer_norm_rms_epsilon")
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

    def rotate(self, heads: np.ndarray) -> np.ndarray:
        n_rot = int(self.number("rope.dimension_count", heads.shape[-1]))
        angles = self.number("rope.freq_base", 10000.0) ** (-np.arange(0, n_rot, 2) / n_rot)
        angles = angles / self.weights.get("rope_freqs.weight", 1.0)
        angles = np.arange(len(heads))[:, None, None] * angles
        first, second = np.arange(n_rot // 2), np.arange(n_rot // 2, n_rot)
        if self.architecture == "llama":
            first, second = np.arange(0, n_rot, 2), np.arange(1, n_rot, 2)
        out = heads.copy()
        out[..., first] = heads[..., first] * np.cos(angles) - heads[..., second] * np.sin(angles)
        out[..., second] = heads[..., first] * np.sin(angles) + heads[..., second] * np.cos(angles)
        return out


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q, k, v: [positions][heads][head_dim]"""
    shared = q.shape[1] // k.shape[1]
    k, v = k.repeat(shared, axis=1), v.repeat(shared, axis=1)
    scores = np.einsum("phd,shd->hps", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return side_by_side(np.einsum("hps,shd->phd", scores / scores.sum(-1, keepdims=True), v))


def delta_rule(q, k, v, decay, beta) -> np.ndarray:  # noqa: ANN001
    """v: [positions][heads][dim]; V head h has K head h modulo their number."""
    n_heads, dim = v.shape[1:]
    q, k = (x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) for x in (q, k))
    q, k = (np.tile(x, (1, n_heads // x.shape[1], 1)) for x in (q, k))
    state, out = np.zeros((n_heads, dim, dim)), np.zeros_like(v)
    for p in range(len(v)):
        state *= np.exp(decay[p])[:, None, None]
        added = (v[p] - np.einsum("hkd,hk->hd", state, k[p])) * beta[p][:, None]
        state += k[p][:, :, None] * added[:, None, :]
        out[p] = np.einsum("hkd,hk->hd", state, q[p] / np.sqrt(dim))
    return side_by_side(out)


def expected_slots(model: Model, layer: int, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """suffix -> what it has to be; x: the layer's dumped slots."""

    def weight(name: str) -> np.ndarray:
        return model.weights[f"blk.{layer}.{name}"]

    def product(name: str, values: np.ndarray) -> np.ndarray:
        return values @ weight(name + ".weight").T + model.weights.get(f"blk.{layer}.{name}.bias", 0)

    ffn_norm = "post_attention_norm" if model.architecture == "qwen35" else "ffn_norm"
    out = {
        "_preattn": model.norm(x["_in"], weight("attn_norm.weight")),
        "_preffn": model.norm(x["_postattn"], weight(ffn_norm + ".weight")),
        "_gate": product("ffn_gate", x["_preffn"]),
        "_up": product("ffn_up", x["_preffn"]),
        "_act": silu(x["_gate"]) * x["_up"],
        "_ffnout": product("ffn_down", x["_act"]),
        "_postattn": x["_in"] + x["_attnout"],
        "": x["_postattn"] + x["_ffnout"],
    }
    if f"blk.{layer}.ssm_out.weight" in model.weights:
        return out | delta_net(model, weight, product, x)
    n_heads, n_kv_heads = (int(model.number(f"attention.head_count{kv}")) for kv in ("", "_kv"))
    q = product("attn_q", x["_preattn"])
    v = product("attn_v", x["_preattn"])
    head_dim = v.shape[-1] // n_kv_heads
    heads = {s: x[s].reshape(len(v), -1, head_dim) for s in ("_q", "_k", "_qrope", "_krope", "_v")}
    if model.architecture == "qwen35":  # query and gate, head by head
        q, z = (side_by_side(half) for half in np.split(q.reshape(len(q), n_heads, -1), 2, axis=-1))
        out |= {"_z": z, "_mix": x["_attn"] * sigmoid(x["_z"])}
    out |= {"_q": q, "_k": product("attn_k", x["_preattn"]), "_v": v}
    for of, slot in (("q", "_q"), ("k", "_k")):
        rotated = heads[slot]
        if model.architecture != "llama":
            normed = model.norm(heads[slot], weight(f"attn_{of}_norm.weight"))
            out[slot + "norm"] = side_by_side(normed)
            rotated = x[slot + "norm"].reshape(rotated.shape)
        out[slot + "rope"] = side_by_side(model.rotate(rotated))
    out["_attn"] = attention(heads["_qrope"], heads["_krope"], heads["_v"])
    out["_attnout"] = product("attn_output", x.get("_mix", x["_attn"]))
    return out


def delta_net(model: Model, weight, product, x: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # noqa: ANN001
    kernel = weight("ssm_conv1d.weight")  # [channels][taps]
    n, n_taps = len(x["_qkv"]), kernel.shape[1]
    padded = np.concatenate([np.zeros((n_taps - 1, x["_qkv"].shape[1])), x["_qkv"]])
    key_dim, n_keys = int(model.number("ssm.state_size")), int(model.number("ssm.group_count"))
    parts = np.split(x["_conv"], [key_dim * n_keys, 2 * key_dim * n_keys], axis=1)
    heads = [part.reshape(n, -1, key_dim) for part in parts]
    normed = model.norm(x["_delta"].reshape(heads[2].shape), weight("ssm_norm.weight"))
    return {
        "_qkv": product("attn_qkv", x["_preattn"]),
        "_z": product("attn_gate", x["_preattn"]),
        "_a": product("ssm_alpha", x["_preattn"]),
        "_b": product("ssm_beta", x["_preattn"]),
        "_conv": silu(sum(padded[i : i + n] * kernel[:, i] for i in range(n_taps))),
        "_decay": weight("ssm_a") * np.log1p(np.exp(x["_a"] + weight("ssm_dt.bias"))),
        "_beta": sigmoid(x["_b"]),
        "_delta": delta_rule(*heads, x["_decay"], x["_beta"]),
        "_mix": side_by_side(normed) * silu(x["_z"]),
        "_attnout": product("ssm_out", x["_mix"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("dump", type=Path)
    parser.add_argument("--attention", type=float, default=LIMIT)
    args = parser.parse_args()
    model = Model(args.gguf)
    if not json.loads((args.dump / "dump.json").read_text())["complete"]:
        print("the dump is not complete")
        return 1
    n_positions = len(np.load(args.dump / "tokens.npy"))
    worst, bad, names = defaultdict(float), [], {"emb", "post_norm", "logits", "tokens"}
    for layer in range(model.n_layers):
        pattern = re.compile(rf"h{layer}(_\w+)?\.npy")
        found = {m[1] or "": p for p in args.dump.iterdir() if (m := pattern.fullmatch(p.name))}
        slots = {suffix: np.load(path).astype(np.float64) for suffix, path in found.items()}
        try:
            expected = expected_slots(model, layer, slots)
        except KeyError as missing:
            bad.append(f"h{layer}{missing.args[0]} is missing")
            continue
        names |= {f"h{layer}{suffix}" for suffix in expected.keys() | {"_in"}}
        for suffix, value in expected.items():
            if suffix not in slots or slots[suffix].shape != (n_positions, value.shape[1]):
                bad.append(f"h{layer}{suffix} is {slots[suffix].shape if suffix in slots else 'missing'}")
                continue
            errors = np.linalg.norm(slots[suffix] - value, axis=1) / np.linalg.norm(value, axis=1)
            worst[suffix] = max(worst[suffix], float(errors.max()))
            if not errors.max() < (args.attention if suffix == "_attn" else LIMIT):
                bad.append(f"h{layer}{suffix}: L2_rel {errors.max():.2g} at position {errors.argmax()}")
    extra = {path.stem for path in args.dump.glob("*.npy")} - names
    bad += [f"{name} is no slot of this model" for name in sorted(extra)]
    print(", ".join(f"{suffix or 'h'} {error:.1e}" for suffix, error in worst.items()))
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
