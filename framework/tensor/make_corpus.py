"""Writes the fuzz targets' seed corpus: python3 framework/tensor/make_corpus.py (needs numpy).

The files are committed; the result is the same on every run.
"""

import io
import json
import pathlib
import struct
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


def safetensors(tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_any_file(rows):
    stack = np.arange(12, dtype="<f4").reshape(3, 1, 2, 2)
    hidden = {f"hidden_states.{i}": rows + i for i in range(3)}
    write("any_file", "hidden_states.npz", npz({"input_ids": np.array([[5, 6]]), **hidden}, zipfile.ZIP_STORED))
    write("any_file", "stacked.npz", npz({"hidden_states": stack, "logits": rows[:1]}, zipfile.ZIP_DEFLATED))
    write("any_file", "two_names.npz", npz({"layer_0": rows, "model.layers.0": rows, "h0": rows}, zipfile.ZIP_STORED))
    write("any_file", "types.npz", npz({"h00": rows.astype(">f8"), "emb": np.asfortranarray(rows).astype("<f2"),
                                        "norm": rows.astype("<f2").view("V2")}, zipfile.ZIP_STORED))
    write("any_file", "states.safetensors", safetensors({
        "emb": ("F32", [1, 2, 3], rows.tobytes()), "layer_0": ("F16", [2, 3], rows.astype("<f2").tobytes()),
        "hidden_states": ("F64", [3, 2, 2], stack.astype("<f8").tobytes()), "tokens": ("I32", [2], bytes(8))}))
    write("any_file", "torch.pt", npz({"a": rows}, zipfile.ZIP_STORED).replace(b"a.npy", b"a/data.pkl"))
    write("any_file", "base.kld", b"_logits_" + bytes(24))
    write("any_file", "eval.log", b"ggml_debug:  inp_embd = (f32)\n")
    write("names", "lines.txt", b"# mine\nlayer_{l+1} h{l}\nwte emb\nhs hidden_states\nids tokens\nx -\n")
    write("names", "object.json", b'{"model.layers.{l}.mlp": "h{l}_ffnout", "s": "h{l}", "k{l}": "hidden_states.{l}"}')


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
    write_any_file(rows)
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
