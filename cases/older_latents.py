#!/usr/bin/env python3
"""A GGUF of latent attention as converters wrote it before attn_k_b and attn_v_b.

    older_latents.py IN OUT

Both become attn_kv_b in F32, which has each head's keys and values; lengths are those of heads.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf_copy import Tensor, write_gguf


def values(tensor: gguf.ReaderTensor) -> np.ndarray:
    """[n_heads][rows][columns]"""
    shape = tuple(int(n) for n in reversed(tensor.shape))
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)


def older(reader: gguf.GGUFReader) -> Iterator[Tensor]:
    found = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in found.items():
        if ".attn_k_b." in name:
            keys = values(tensor).swapaxes(1, 2)
            both = np.concatenate([keys, values(found[name.replace("k_b", "v_b")])], axis=1)
            both = np.ascontiguousarray(both.reshape(-1, both.shape[2]), dtype=np.float32)
            yield name.replace("k_b", "kv_b"), both.shape, Type.F32, both
        elif ".attn_v_b." not in name:
            yield name, tuple(int(n) for n in reversed(tensor.shape)), Type(tensor.tensor_type), tensor.data


def main() -> int:
    source, out = map(Path, sys.argv[1:])
    reader = gguf.GGUFReader(source)
    of_heads = {"key_length": "key_length_mla", "value_length": "value_length_mla", "head_count_kv": "head_count"}
    keys = {}
    for key, other in of_heads.items():
        value = reader.get_field(f"deepseek2.attention.{other}").contents()
        keys[f"deepseek2.attention.{key}"] = (value, gguf.GGUFValueType.UINT32)
    for key in ("key_length_mla", "value_length_mla"):
        del reader.fields[f"deepseek2.attention.{key}"]
    write_gguf(reader, keys, older(reader), out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
