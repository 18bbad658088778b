"""Fixtures and dumps of any size, for measuring: random values, the dump a thousandth off.

Written slot by slot, in the formats of fixtures/README.md, so that a gigabyte needs no gigabyte of
memory.
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))
import fixture_file

NOISE = np.float32(1.001)


def random_slot(rng: np.random.Generator, n_positions: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n_positions, dim), dtype=np.float32)


def shapes(n_layers: int, n_positions: int, dim: int, vocab: int) -> Iterator[tuple[str, int, int]]:
    for name in fixture_file.slot_names(n_layers):
        yield name, n_positions, vocab if name == "logits" else dim


def write_pair(folder: Path, n_layers: int, slots: Iterator[tuple[str, int, int]], n_positions: int) -> int:
    """Writes folder/reference.npz and folder/dump; the bytes of the .npz."""
    rng = np.random.default_rng(1)
    dump = folder / "dump"
    dump.mkdir(parents=True)
    reference = folder / "reference.npz"
    tokens = np.arange(n_positions, dtype=np.int64)
    manifest = json.dumps({"format": fixture_file.FORMAT, "version": fixture_file.VERSION, "n_layers": n_layers})
    with zipfile.ZipFile(reference, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def add(name: str, values: np.ndarray) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)

        add("manifest", np.frombuffer(manifest.encode(), dtype=np.uint8))
        add("tokens", tokens)
        add("positions", tokens)
        for name, rows, dim in slots:
            values = random_slot(rng, rows, dim)
            add(name, values)
            values *= NOISE
            np.save(dump / f"{name}.npy", values)
    np.save(dump / "tokens.npy", tokens)
    state = {"format": "refparity-dump", "version": 1, "engine": "bench", "complete": True, "positions": {}}
    (dump / "dump.json").write_text(json.dumps({**state, "n_layers": n_layers}))
    return reference.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--positions", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    args = parser.parse_args()
    slots = shapes(args.layers, args.positions, args.dim, args.vocab)
    print(write_pair(args.folder, args.layers, slots, args.positions))


if __name__ == "__main__":
    main()
