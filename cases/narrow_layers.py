#!/usr/bin/env python3
"""A model whose layers have FFNs of several widths: of each the first rows of gate and up, and columns of down.

    narrow_layers.py IN OUT WIDTH[,WIDTH...]

IN, OUT: folders with a checkpoint, and the same in <name>-bf16.gguf. WIDTH: one for each layer.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf_copy import Tensor, write_gguf
from safetensors.torch import load_file, save_file


def narrowed_gguf(reader: gguf.GGUFReader, widths: list[int]) -> Iterator[Tensor]:
    for tensor in reader.tensors:
        kind = Type(tensor.tensor_type)
        shape = tuple(int(n) for n in reversed(tensor.shape))
        if ".ffn_" not in tensor.name or len(shape) < 2:
            yield tensor.name, shape, kind, tensor.data
            continue
        width = widths[int(tensor.name.split(".")[1])]
        values = tensor.data.view(np.float32 if kind == Type.F32 else np.uint16).reshape(shape)
        values = values[:, :width] if ".ffn_down." in tensor.name else values[:width]
        yield tensor.name, values.shape, kind, np.ascontiguousarray(values)


def narrow_checkpoint(source: Path, out: Path, widths: list[int]) -> None:
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        width = widths[int(name.split(".")[2])] if ".mlp." in name else 0
        if ".mlp.down_proj." in name:
            tensor = tensor[:, :width]
        elif ".mlp." in name:
            tensor = tensor[:width]
        tensors[name] = tensor.contiguous()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"intermediate_size": widths}, indent=2))


def main() -> int:
    source, out = map(Path, sys.argv[1:3])
    widths = [int(width) for width in sys.argv[3].split(",")]
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.gguf", "*.npz"))
    narrow_checkpoint(source, out, widths)
    file = next(source.glob("*-bf16.gguf"))
    reader = gguf.GGUFReader(file)
    key = f"{reader.get_field('general.architecture').contents()}.feed_forward_length"
    write_gguf(reader, {key: (widths, gguf.GGUFValueType.ARRAY)}, narrowed_gguf(reader, widths), out / file.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
