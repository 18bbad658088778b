#!/usr/bin/env python3
"""Writes a GGUF with a bug in it: another value of a key, or other values in some tensors.

    mutate_gguf.py IN OUT [--set KEY=VALUE ...] [--tensor NAME=OP[:ARG ...] ...] [--architecture NAME]

An engine runs OUT, and what it dumps is judged against IN. VALUE is read as the key's type; a key
that IN lacks is added, as a string, a float where it has a point, or else a uint32. OP:

    ones                every value 1
    scale:A             times A; in a type of blocks: the blocks' scales, rounded to F16
    add:A               plus A
    reverse             each row's values in reversed order
    copy:OTHER          the bytes of tensor OTHER, as IN has it
    zero:A:B            rows A .. B-1 zeroed
    rows:A:B:F          rows A .. B-1 times F
    swap:A:B:N          N rows from A on exchanged with N from B on
    from:A:B:C          rows A .. B-1 are those from C on: of experts, one has another's matrix
    interleave:N        rows of each of N heads from RoPE's halves to its pairs
    halve:N             and back
    blocks:TYPE         random blocks of another type; the values are as large in root mean square

--architecture adds IN's keys of its architecture under NAME, too, which engines then take it for.

ones, add and reverse need F32, F16 or BF16. A tensor may be named more than once: in that order. NAME
may hold * for all tensors that match.
"""

import argparse
import fnmatch
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf_copy import write_gguf
from random_blocks import random_rows

# Where a block's F16 scales stand, by ggml's layout of a block.
SCALES = {
    Type.Q8_0: (0,),
    Type.Q4_0: (0,),
    Type.Q4_1: (0, 2),
    Type.Q5_1: (0, 2),
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
}


class Tensor:
    """One tensor's bytes, [rows][bytes of a row]."""

    def __init__(self, found: gguf.ReaderTensor) -> None:
        self.type = Type(found.tensor_type)
        self.shape = [int(n) for n in found.shape]  # fastest first
        rows = found.n_elements // self.shape[0]
        self.bytes = np.ascontiguousarray(found.data).view(np.uint8).reshape(rows, -1).copy()

    def values(self) -> np.ndarray:
        """[rows][columns] as float32."""
        return gguf.quants.dequantize(self.bytes, self.type) if self.type != Type.F32 else self.bytes.view("<f4")

    def set_values(self, values: np.ndarray) -> None:
        if self.type not in (Type.F32, Type.F16, Type.BF16):
            raise ValueError(f"{self.type.name} has no values of its own to change")
        self.bytes = gguf.quants.quantize(values.astype(np.float32), self.type).view(np.uint8)

    def scale(self, rows: slice, factor: float) -> None:
        if self.type not in SCALES:
            values = self.values().copy()
            values[rows] *= factor
            self.set_values(values)
            return
        size = gguf.GGML_QUANT_SIZES[self.type][1]
        blocks = self.bytes[rows].reshape(-1, size).copy()
        for offset in SCALES[self.type]:
            scales = blocks[:, offset : offset + 2].copy().view("<f2").astype(np.float64) * factor
            blocks[:, offset : offset + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
        self.bytes[rows] = blocks.reshape(self.bytes[rows].shape)

    def permute_heads(self, n_heads: int, order: np.ndarray) -> None:
        """order: of the rows of one head, or of the values of a norm's weight"""
        if len(self.shape) == 1:
            self.set_values(self.values()[:, order])
            return
        heads = self.bytes.reshape(n_heads, -1, self.bytes.shape[1])
        self.bytes = np.ascontiguousarray(heads[:, order]).reshape(self.bytes.shape)


def change(tensor: Tensor, op: str, args: list[str], originals: dict[str, gguf.ReaderTensor]) -> None:
    rows = slice(int(args[0]), int(args[1])) if op in ("zero", "rows", "from") else slice(None)
    if op == "ones":
        tensor.set_values(np.ones_like(tensor.values()))
    elif op == "add":
        tensor.set_values(tensor.values() + float(args[0]))
    elif op == "reverse":
        tensor.set_values(tensor.values()[:, ::-1])
    elif op == "scale":
        tensor.scale(rows, float(args[0]))
    elif op == "zero":
        tensor.bytes[rows] = 0  # of every type here a zero
    elif op == "from":
        first = int(args[2])
        tensor.bytes[rows] = tensor.bytes[first : first + rows.stop - rows.start].copy()
    elif op == "rows":
        tensor.scale(rows, float(args[2]))
    elif op == "swap":
        a, b, n = (int(arg) for arg in args)
        tensor.bytes[[*range(a, a + n), *range(b, b + n)]] = tensor.bytes[[*range(b, b + n), *range(a, a + n)]]
    elif op in ("interleave", "halve"):
        head_dim = tensor.shape[-1] // int(args[0])
        halves = np.arange(head_dim).reshape(2, -1).T.ravel()  # 0, d/2, 1, d/2 + 1 ...
        tensor.permute_heads(int(args[0]), halves if op == "interleave" else np.argsort(halves))
    elif op == "blocks":
        rms = float(np.sqrt(np.mean(tensor.values().astype(np.float64) ** 2)))
        tensor.type = Type[args[0]]
        tensor.bytes = random_rows(tensor.type, len(tensor.bytes), tensor.shape[0], rms, np.random.default_rng(1))
    elif op == "copy":
        other = Tensor(originals[args[0]])
        if (other.shape, other.type) != (tensor.shape, tensor.type):
            raise ValueError(f"{args[0]} is of another shape or type")
        tensor.bytes = other.bytes.copy()
    else:
        raise ValueError(f"unknown operation {op!r}")


def typed(text: str, field: gguf.ReaderField | None) -> tuple[object, gguf.GGUFValueType]:
    kinds = gguf.GGUFValueType
    if field is None:
        for convert, kind in ((int, kinds.UINT32), (float, kinds.FLOAT32)):
            try:
                return convert(text), kind
            except ValueError:
                continue
        return text, kinds.STRING
    kind = field.types[0]
    if kind == kinds.ARRAY:
        raise ValueError(f"{field.name} is an array")
    if kind in (kinds.FLOAT32, kinds.FLOAT64):
        return float(text), kind
    if kind == kinds.BOOL:
        return text == "true", kind
    return (text if kind == kinds.STRING else int(text)), kind


def split(text: str) -> tuple[str, str]:
    name, equals, rest = text.partition("=")
    if not equals or not name or not rest:
        raise ValueError(f"expected NAME=VALUE, found {text!r}")
    return name, rest


def as_architecture(reader: gguf.GGUFReader, name: str) -> dict[str, tuple[object, gguf.GGUFValueType]]:
    """The keys that make another architecture of the file."""
    key = "general.architecture"
    own = reader.get_field(key).contents() + "."
    keys = {
        f"{name}.{field.name.removeprefix(own)}": (field.contents(), field.types[0])
        for field in reader.fields.values()
        if field.name.startswith(own)
    }
    return keys | {key: (name, gguf.GGUFValueType.STRING)}


def mutate(
    source: Path, out: Path, keys: dict[str, str], changes: list[tuple[str, str]], architecture: str | None = None
) -> None:
    """keys: name -> text of the value; changes: (tensor, operation)."""
    reader = gguf.GGUFReader(source)
    found = {tensor.name: tensor for tensor in reader.tensors}
    changed: dict[str, Tensor] = {}
    for pattern, text in changes:
        op, *args = text.split(":")
        names = [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(f"{source} has no tensor {pattern}")
        for name in names:
            change(changed.setdefault(name, Tensor(found[name])), op, args, found)
    typed_keys = as_architecture(reader, architecture) if architecture else {}
    typed_keys |= {name: typed(text, reader.get_field(name)) for name, text in keys.items()}
    rows = (
        (name, tuple(int(n) for n in reversed(tensor.shape)), Type(tensor.tensor_type), tensor.data)
        if name not in changed
        else (name, tuple(reversed(changed[name].shape)), changed[name].type, changed[name].bytes)
        for name, tensor in found.items()
    )
    write_gguf(reader, typed_keys, rows, out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tensor", action="append", default=[], metavar="NAME=OP")
    parser.add_argument("--architecture", metavar="NAME")
    args = parser.parse_args()
    try:
        changes = [split(text) for text in args.tensor]
        mutate(args.source, args.out, dict(map(split, args.set)), changes, args.architecture)
    except (ValueError, KeyError, IndexError, OSError) as error:
        print(f"mutate_gguf.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
