#!/usr/bin/env python3
"""A GGUF whose layers have FFNs of several widths: of each the first rows of gate and up, and columns of down.

    narrow_layers.py IN OUT WIDTH[,WIDTH...]

Layer i has the width i, counted around. IN's tensors are F32, F16 or BF16.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf_copy import Tensor, write_gguf


def narrowed(reader: gguf.GGUFReader, widths: list[int]) -> Iterator[Tensor]:
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


def main() -> int:
    source, out = map(Path, sys.argv[1:3])
    given = [int(width) for width in sys.argv[3].split(",")]
    reader = gguf.GGUFReader(source)
    arch = reader.get_field("general.architecture").contents()
    widths = [given[i % len(given)] for i in range(int(reader.get_field(f"{arch}.block_count").contents()))]
    key = f"{arch}.feed_forward_length"
    write_gguf(reader, {key: (widths, gguf.GGUFValueType.ARRAY)}, narrowed(reader, widths), out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
