#!/usr/bin/env python3
"""Does the replay with transformers' own modules say what refparity's says, and does it find what is wrong where
refparity's own model does not know the architecture?

    hf_replay_test.py BUILD_DIR, a tree configured with -DREFPARITY_LLAMA_DIR

1. Tiny Qwen3, dumps of the embedded engine with and without a bug, and of llama.cpp: every slot's verdict and its
   number of failing positions are those of `refparity replay`.
2. Granite and OLMo 2, random weights, in llama.cpp: nothing is reported of the right file; of one with other values,
   its slot alone.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "fixtures"))

import numpy as np
import transformers

import hf_replay
from fixture_file import write_fixture

# What is dumped; bugs of the catalogue (cases/bugs).
BUGS = (
    ("operations",),
    ("layers",),
    ("operations", "--bug", "eps", "--layer", "1"),
    ("layers", "--bug", "rope-interleaved-for-neox", "--layer", "2"),
)
# What is changed in the file that the engine reads, and the slots that fail.
CHANGES = {
    "granite": (
        (("--tensor", "blk.2.attn_k.weight=scale:1.001"), ["h2_k"]),
        (("--set", "granite.attention.scale=0.201"), ["h0_attn", "h1_attn", "h2_attn", "h3_attn"]),
        (("--set", "granite.logit_scale=2.01"), ["logits"]),
    ),
    "olmo2": (
        (("--tensor", "blk.1.attn_q_norm.weight=scale:1.001"), ["h1_qnorm"]),
        (("--tensor", "blk.2.post_attention_norm.weight=ones"), ["h2_attnnorm"]),
    ),
}


class ReplayError(Exception):
    pass


def run(*command, codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise ReplayError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


class Test:
    def __init__(self, build: Path, work: Path) -> None:
        self.bin, self.work, self.dump = build / "bin", work, work / "dump"
        self.prompt = work / "prompt"
        self.prompt.write_text("The quick brown fox")
        self.n = 0

    def llamacpp(self, model: Path, level: str) -> None:
        shutil.rmtree(self.dump, ignore_errors=True)
        engine = self.bin / "refparity-llamacpp"
        run(engine, "--model", model, "--prompt-file", self.prompt, "--dump", self.dump, "--slots", level)

    def by_hf(self, name: str, model: Path, activations: str) -> list[dict]:
        words = ["--replay", self.dump, "--model", name, "--checkpoints", self.work, "--gguf", model]
        args = hf_replay.parse_arguments([str(word) for word in (*words, "--activations", activations)])
        expected = self.work / "expected.npz"
        write_fixture(expected, hf_replay.make(args, lambda _text: None))
        self.n += 1
        printed = run(self.bin / "refparity", "replay", "--json", "--expected", expected, self.dump, codes=(0, 1))
        return json.loads(printed)["slots"]

    def by_refparity(self, model: Path, activations: str) -> list[dict]:
        options = ("--json", "--no-explain", "--activations", activations)
        return json.loads(run(self.bin / "refparity", "replay", *options, model, self.dump, codes=(0, 1)))["slots"]

    def agree(self, model: Path, activations: str, what: str) -> None:
        keys = ("slot", "verdict", "n_failing", "first_position", "carried", "from")
        found, wanted = (
            {slot["slot"]: [sorted(slot["from"]) if key == "from" else slot.get(key) for key in keys] for slot in slots}
            for slots in (self.by_hf("tiny/qwen3", model, activations), self.by_refparity(model, activations))
        )
        if found != wanted or len(found) < 20:
            names = [slot for slot in found | wanted if found.get(slot) != wanted.get(slot)]
            raise ReplayError(f"{what}: " + "\n".join(f"{found.get(n)}; refparity: {wanted.get(n)}" for n in names))

    def only(self, name: str, model: Path, wanted: list[str], what: str) -> None:
        slots = self.by_hf(f"wide/{name}", model, "by_weight")
        bad = [slot["slot"] for slot in slots if slot["verdict"] != "PASS"]
        if bad != wanted or len(slots) < 15:
            messages = [f"{slot['slot']}: {slot['message']}" for slot in slots if slot["slot"] in bad]
            raise ReplayError(f"{what}: expected {wanted or 'nothing'} to fail, found {bad}\n" + "\n".join(messages))

    def qwen3(self) -> None:
        folder = ROOT / "fixtures/tiny/qwen3"
        tokens = self.work / "tokens"
        self.llamacpp(folder / "qwen3-bf16.gguf", "layers")
        np.savetxt(tokens, np.load(self.dump / "tokens.npy"), fmt="%d")
        for options in BUGS:
            shutil.rmtree(self.dump)
            engine, model = self.bin / "refparity-embedded-bugs", folder / "qwen3-bf16.gguf"
            run(engine, "--model", model, "--tokens", tokens, "--dump", self.dump, "--slots", *options)
            self.agree(model, "f32", f"embedded engine, {options}")
        for level in ("operations", "layers"):
            self.llamacpp(folder / "qwen3-q8_0.gguf", level)
            self.agree(folder / "qwen3-q8_0.gguf", "by_weight", f"llama.cpp, {level}")
        print(f"qwen3: {self.n} dumps, every verdict as refparity replay's")

    def unknown(self, name: str) -> None:
        before = self.n
        run(sys.executable, ROOT / "fixtures/tiny/make_wide.py", self.work, name)
        wide = self.work / "wide" / name / f"{name}-bf16.gguf"
        for at, kind in enumerate(("f32", "q8_0")):
            model = self.work / f"{kind}.gguf"
            run(self.bin / "refparity-llamacpp-quantize", kind, wide, model)
            self.llamacpp(model, "operations")
            refused = run(self.bin / "refparity", "replay", model, self.dump, codes=(2,))
            if refused:
                raise ReplayError(f"{name}: refparity replay knows it by now: take another architecture")
            for level in ("operations", "layers")[: at + 1]:
                self.llamacpp(model, level)
                self.only(name, model, [], f"{name}, {kind}, {level}")
            for change, slots in CHANGES[name][at::2]:
                mutated = self.work / "mutated.gguf"
                run(sys.executable, ROOT / "cases/llamacpp_bugs/mutate_gguf.py", model, mutated, *change)
                self.llamacpp(mutated, "operations")
                self.only(name, model, slots, f"{name}, {kind}, {change}")
        print(f"{name}: {self.n - before} dumps of llama.cpp replayed, with and without a bug")


def main() -> int:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "bin/refparity-llamacpp").is_file():
        print("usage: hf_replay_test.py BUILD_DIR, a tree configured with -DREFPARITY_LLAMA_DIR", file=sys.stderr)
        return 2
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="refparity-") as folder:
        test = Test(Path(sys.argv[1]), Path(folder))
        try:
            test.qwen3()
            for name in CHANGES:
                test.unknown(name)
        except ReplayError as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
