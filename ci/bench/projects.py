"""Writes the CMake projects that ci/bench.sh configures, builds and runs.

projects.py warm OUT ENGINE   the matrix's pairs of 4 layers on the embedded engine, and one of the
                              models 40 layers deep; ENGINE is refparity-embedded, which also makes the deep fixtures
projects.py many OUT          100 pairs of 30 layers, to be configured and built, not run
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "fixtures"))
import fixture_file

DEEP_LAYERS = 40

CMAKE = """cmake_minimum_required(VERSION 3.25)
project(refparity_bench C)
enable_testing()
set(REFPARITY_TESTS OFF CACHE BOOL "" FORCE)
add_subdirectory("{root}" refparity)
refparity_add_matrix("${{CMAKE_CURRENT_SOURCE_DIR}}/matrix.json"
  STORE "{root}/fixtures/store" "${{CMAKE_CURRENT_SOURCE_DIR}}/store")
"""


def write_project(out: Path, matrix: dict) -> None:
    (out / "store").mkdir(parents=True, exist_ok=True)
    (out / "CMakeLists.txt").write_text(CMAKE.format(root=ROOT))
    (out / "matrix.json").write_text(json.dumps(matrix, indent=1))


def write_deep_gguf(source: Path, path: Path) -> None:
    """source with its layers repeated until there are DEEP_LAYERS."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    n_layers = reader.fields[f"{architecture}.block_count"].contents()
    writer = gguf.GGUFWriter(path, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = DEEP_LAYERS if name == f"{architecture}.block_count" else field.contents()
        writer.add_key_value(name, value, field.types[0], field.types[1] if len(field.types) > 1 else None)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, tensor in tensors.items():
        if not name.startswith("blk."):
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    for layer in range(DEEP_LAYERS):
        prefix = f"blk.{layer % n_layers}."
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                deep_name = f"blk.{layer}.{name.removeprefix(prefix)}"
                writer.add_tensor(deep_name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_deep_fixture(engine: str, gguf_path: Path, shallow: fixture_file.Fixture, prompt: str, out: Path) -> None:
    """What the engine computes becomes the reference: enough to measure with."""
    work = out / "deep-dump"
    work.mkdir()
    tokens = work / "tokens.txt"
    tokens.write_text("".join(f"{token}\n" for token in shallow.tokens))
    dump = work / "dump"
    subprocess.run([engine, "--model", gguf_path, "--tokens", tokens, "--dump", dump], check=True, capture_output=True)
    slots = {name: np.load(dump / f"{name}.npy") for name in fixture_file.slot_names(DEEP_LAYERS)}
    manifest = {**shallow.manifest, "hf_model": "bench/deep", "n_layers": DEEP_LAYERS}
    path = out / "store" / fixture_file.store_path("bench/deep", "main", "float32", prompt)
    fixture_file.write_fixture(path, fixture_file.Fixture(manifest, shallow.tokens, shallow.positions, slots))
    shutil.rmtree(work)


def write_warm(out: Path, engine: str) -> None:
    folder = ROOT / "matrix"
    matrix = json.loads((folder / "matrix.json").read_text())
    tests = []
    for entry in matrix["tests"]:
        path = folder / entry["engine_gguf"]
        if entry["engine"] == "embedded" and entry["n_layers"] == 4 and path.is_file():
            tests.append({**entry, "engine_gguf": str(path.resolve())})
    out.mkdir(parents=True)
    shutil.copytree(folder / "prompts", out / "prompts")
    deep_gguf = out.resolve() / "deep.gguf"
    write_deep_gguf(Path(tests[0]["engine_gguf"]), deep_gguf)
    prompts = [prompt for prompt in tests[0]["prompts"] if isinstance(prompt, str)]
    deep = {"name": "deep", "hf_model": "bench/deep", "n_layers": DEEP_LAYERS, "engine_gguf": str(deep_gguf)}
    tests.append({**tests[0], **deep, "prompts": prompts})
    write_project(out, {"engines": {"embedded": matrix["engines"]["embedded"]}, "tests": tests})
    for prompt in prompts:
        stored = fixture_file.store_path(tests[0]["hf_model"], "main", "float32", prompt)
        shallow = fixture_file.read_fixture(ROOT / "fixtures" / "store" / stored)
        write_deep_fixture(engine, deep_gguf, shallow, prompt, out)


def write_many(out: Path) -> None:
    engine = {"argv": ["{target:refparity-embedded}", "{gguf}"], "layout": "npy"}
    entry = {"hf_model": "bench/many", "n_layers": 30, "engine": "embedded", "engine_gguf": "none.gguf"}
    tests = [{"name": f"model-{i}", **entry, "prompts": ["a", "b", "c", "d"]} for i in range(25)]
    write_project(out, {"engines": {"embedded": engine}, "tests": tests})


def main() -> None:
    if sys.argv[1] == "warm":
        write_warm(Path(sys.argv[2]), sys.argv[3])
    else:
        write_many(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
