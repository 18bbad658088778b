"""Writes the fuzz targets' seed corpus: python3 framework/tensor/make_corpus.py (needs numpy).

The files are committed; the result is the same on every run.
"""

import io
import json
import pathlib
import zipfile

import numpy as np

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
DATE = (1980, 1, 1, 0, 0, 0)


def npy(array, version=None):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version)
    return out.getvalue()


def npz(arrays, method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(name + ".npy", DATE)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(npy(array))
    return out.getvalue()


def write(folder, name, data):
    path = CORPUS / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def main():
    rows = np.arange(6, dtype="<f4").reshape(2, 3)
    manifest = {"format": "refparity-fixture", "version": 1, "n_layers": 1}
    fixture = {
        "tokens": np.array([5, 6, 7]),
        "positions": np.array([0, 2]),
        "manifest": np.frombuffer(json.dumps(manifest).encode(), dtype="u1"),
        "emb": rows,
        "h0": rows,
        "logits": rows,
    }
    write("npz", "fixture_stored.npz", npz(fixture, zipfile.ZIP_STORED))
    write("npz", "fixture_deflated.npz", npz(fixture, zipfile.ZIP_DEFLATED))
    write("npz", "plain.npz", npz({"emb": rows[None], "h0": rows}, zipfile.ZIP_STORED))
    write("npy", "rows.npy", npy(rows))
    write("npy", "rows_v2.npy", npy(rows, (2, 0)))
    write("npy", "fortran.npy", npy(np.asfortranarray(rows)))
    write("npy", "int64.npy", npy(np.arange(3)))
    write("npy", "int32.npy", npy(np.arange(3, dtype="<i4")))
    write("npy", "bytes.npy", npy(np.arange(3, dtype="u1")))
    write("npy", "structured.npy", npy(np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4", (2,))])))
    dump = {"format": "refparity-dump", "version": 1, "engine": "e", "n_layers": 1}
    jumps = {"logits": [[0, 9]], "h0": [[1, 4], [3, 8]]}
    order = [
        {"slots": ["q", "h1_k"], "kind": "interleaved_pairs", "head_dim": 4, "n_rot": 2},
        {"slots": ["z"], "kind": "tiled_heads", "head_dim": 1, "n_groups": 3, "first": 2},
    ]
    for name, more in (
        ("order.json", {"complete": True, "positions": {}, "order": order}),
        ("complete.json", {"complete": True, "positions": jumps}),
        ("abandoned.json", {"complete": False, "positions": {"h0": [[4, 9]]}}),
        ("failed.json", {"complete": False, "error": "disk \"full\"", "positions": {}}),
    ):
        write("dump_json", name, json.dumps({**dump, **more}).encode() + b"\n")


if __name__ == "__main__":
    main()
