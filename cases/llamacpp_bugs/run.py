#!/usr/bin/env python3
"""Bugs and clean variants through the real llama.cpp, judged by `refparity replay`: what it detects on
an engine that is not ours.

    cases/llamacpp_bugs/run.py BUILD --csv FILE [--smollm2 DIR] [--slots LEVEL] [--weights TYPE ...]
                               [--trials REGEX] [--every N] [--work DIR]

BUILD is a tree configured with REFPARITY_LLAMA_DIR. FILE gets a line per trial, in the columns that
cases/bugs/detect.c describes. Exits 1 where a clean variant is reported or a bug above the limit is not, and,
of dumps of all operations, where a bug is reported in another place than the operation that it is in. With
--smollm2 the model is the real one that ci/get-smollm2.sh puts into DIR.

Whether a bug is above the limit is measured without replay's verdict: what it changes at its own slot, by
the dump of the same run without it, over the limit that replay gives there. Of a bug in the whole model
(layer "all") it is measured in the first layer alone, and the layers are right when that one is reported and
none without a bug.
"""

import argparse
import concurrent.futures
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

sys.dont_write_bytecode = True

import gguf
import numpy as np
from kinds import KINDS, VARIANTS, Bug, Kind, Model, Variant
from mutate_gguf import mutate

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "matrix" / "prompts"
ARCHITECTURES = ("qwen3", "llama", "qwen35")
TINY_WEIGHTS = ("f32", "bf16", "f16", "q8_0", "q4_0")
SMOLLM2_WEIGHTS = ("f32", "q8_0", "q4_1")
COLUMNS = [
    *("ground", "slots", "weights", "arch", "kind", "magnitude", "layer", "mode", "above", "detected"),
    *("layers_right", "operation_right", "position_right", "name_given", "name_right", "ratio"),
    *("pos0_rule", "rule_5pct"),
]


class TrialError(Exception):
    """A program failed, or a bug did not do what its kind says."""


def run(*argv: object, accept: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    if done.returncode not in accept:
        raise TrialError(f"exit code {done.returncode}: {' '.join(map(str, argv))}\n{done.stderr[-2000:]}")
    return done


def layer_of(slot: str) -> int:
    """-1: outside the layers."""
    layer = re.match(r"h(\d+)", slot)
    return int(layer[1]) if layer else -1


def read_dump(folder: Path) -> dict[str, np.ndarray]:
    """Slots by name, in no order."""
    return {path.stem: np.load(path) for path in folder.glob("*.npy") if path.stem != "tokens"}


def l2_rel(rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    difference = rows.astype(np.float64) - reference
    return np.linalg.norm(difference, axis=1) / np.linalg.norm(reference.astype(np.float64), axis=1)


def five_percent(dump: dict[str, np.ndarray], reference: dict[str, np.ndarray], positions: slice) -> bool:
    """Does the field's rule report it: 5% at required slots, cosine 0.90 of the logits?"""
    for slot, rows in dump.items():
        a, b = rows[positions].astype(np.float64), reference[slot][positions].astype(np.float64)
        if slot == "logits":
            cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
            if not (cosine > 0.90).all():
                return True
        elif ("_" not in slot or slot == "post_norm") and not (l2_rel(a, b) < 0.05).all():
            return True
    return False


def describe(path: Path) -> Model:
    reader = gguf.GGUFReader(path)
    arch = reader.get_field("general.architecture").contents()

    def key(name: str, default: object = None) -> object:
        field = reader.get_field(f"{arch}.{name}")
        return field.contents() if field else default

    return Model(
        arch=arch,
        n_layers=key("block_count"),
        n_heads=key("attention.head_count"),
        n_kv_heads=key("attention.head_count_kv"),
        head_dim=key("attention.key_length", key("embedding_length") // key("attention.head_count")),
        dim=key("embedding_length"),
        eps=key("attention.layer_norm_rms_epsilon"),
        theta=key("rope.freq_base"),
        n_rot=key("rope.dimension_count"),
        tensors={t.name: (tuple(map(int, t.shape)), t.tensor_type.name) for t in reader.tensors},
    )


class Ground:
    """One GGUF: what it is, and its clean dumps."""

    def __init__(self, lab: "Lab", arch: str, weights: str, gguf: Path, reference_gguf: Path) -> None:
        self.lab, self.arch, self.weights = lab, arch, weights
        self.gguf, self.reference_gguf = gguf, reference_gguf
        self.model = describe(self.gguf)
        self.lock = threading.Lock()
        self.clean: dict[str, dict] = {}
        self.reference: dict[str, np.ndarray] | None = None

    def clean_dump(self, mode: str) -> dict[str, np.ndarray]:
        with self.lock:
            if mode not in self.clean:
                with tempfile.TemporaryDirectory(dir=self.lab.work) as folder:
                    self.lab.engine(self.gguf, Path(folder) / "dump", Variant(mode=mode))
                    self.clean[mode] = read_dump(Path(folder) / "dump")
            if self.reference is None:
                with tempfile.TemporaryDirectory(dir=self.lab.work) as folder:
                    self.lab.engine(self.reference_gguf, Path(folder) / "dump", Variant())
                    self.reference = read_dump(Path(folder) / "dump")
        return self.clean[mode]


class Lab:
    """The programs, a folder for models and dumps, and what all runs have in common."""

    def __init__(self, build: Path, work: Path, slots: str, prompt: Path) -> None:
        self.bin, self.work, self.models = build / "bin", work, work / "models"
        self.slots, self.prompt = slots, prompt

    def grounds(self, weights: list[str]) -> list[Ground]:
        """The tiny architectures, and wide ones in a K-quant."""
        if not (self.models / "wide-qwen35-q4_k_m.gguf").exists():
            self.make_models()
        found = []
        for kind in weights:
            for arch in ARCHITECTURES:
                wide = "wide-" if kind.startswith("q4_K") else ""
                paths = [self.models / f"{wide}{arch}-{name.lower()}.gguf" for name in (kind, "f32")]
                found.append(Ground(self, arch, kind, *paths))
        return found

    def make_models(self) -> None:
        self.models.mkdir(parents=True, exist_ok=True)
        quantize = self.bin / "refparity-llamacpp-quantize"
        run(sys.executable, ROOT / "fixtures/tiny/make_wide.py", self.work)
        for arch in ARCHITECTURES:
            tiny, wide = ROOT / "fixtures/tiny" / arch, self.work / "wide" / arch
            for weights in ("bf16", "q8_0", "q4_0"):
                shutil.copyfile(tiny / f"{arch}-{weights}.gguf", self.models / f"{arch}-{weights}.gguf")
            for weights in ("f32", "f16"):
                run(quantize, weights, tiny / f"{arch}-bf16.gguf", self.models / f"{arch}-{weights}.gguf")
            for weights in ("f32", "q4_k_m"):
                run(quantize, weights, wide / f"{arch}-bf16.gguf", self.models / f"wide-{arch}-{weights}.gguf")

    def engine(self, model: Path, dump: Path, variant: Variant, changes: list[str] | None = None) -> None:
        flash = "on" if variant.flash else "off"
        options = ["--model", model, "--prompt-file", self.prompt, "--dump", dump, "--mode", variant.mode]
        options += ["--slots", self.slots] if self.slots != "layers" else []
        options += ["--cache-type", variant.cache, "--flash-attn", flash, "--threads", variant.threads]
        for text in changes or []:
            options += ["--change", text]
        run(self.bin / ("refparity-llamacpp-bugs" if changes else "refparity-llamacpp"), *options)

    def replay(self, model: Path, dump: Path, variant: Variant) -> "Replayed":
        options = ["--activations", "by_weight", "--kv-cache", variant.cache]
        options += ["--attention", "flash" if variant.flash else "plain", "--mode", variant.mode]
        done = run(self.bin / "refparity", "replay", model, dump, *options, "--json", accept=(0, 1, 2))
        if not done.stdout:
            raise TrialError(f"replay of {dump}: {done.stderr}")
        return Replayed(json.loads(done.stdout))


def smollm2_grounds(lab: Lab, folder: Path, weights: Iterable[str]) -> list[Ground]:
    def path(kind: str) -> Path:
        return folder / f"smollm2-135m-{kind}.gguf"

    return [Ground(lab, "smollm2", kind, path(kind), path("f32")) for kind in weights]


class Replayed:
    """What replay said."""

    def __init__(self, report: dict) -> None:
        self.slots = {slot["slot"]: slot for slot in report["slots"]}
        self.explanations = {found["slot"]: found for found in report["explanations"]}
        for slot in self.slots.values():
            # null: a value that is not finite
            introduced = np.array([np.inf if x is None else x for x in slot["introduced"]])
            slot["ratio"] = float(np.max(introduced / np.array(slot["limit"]), initial=0.0))

    @property
    def failing(self) -> list[dict]:
        """In forward order."""
        return [slot for slot in self.slots.values() if slot["verdict"] in ("FAIL", "ERROR")]

    @property
    def reported(self) -> list[int]:
        """Layers, -1 for what is outside of them."""
        return sorted({layer_of(slot["slot"]) for slot in self.failing})

    def first_slot(self, layer: int) -> str | None:
        return next((slot["slot"] for slot in self.failing if layer_of(slot["slot"]) == layer), None)

    def worst(self) -> str:
        return "; ".join(f"{slot['slot']}: {slot['message']}" for slot in self.failing[:4])


class Trial:
    """A bug in one place of one model."""

    def __init__(self, ground: Ground, kind: Kind, layer: int | None, magnitude: float | None, mode: str) -> None:
        self.ground, self.kind, self.layer, self.magnitude, self.mode = ground, kind, layer, magnitude, mode
        self.bug: Bug | None = kind.make(ground.model, layer or 0, magnitude if magnitude is not None else 0.0)

    @property
    def text(self) -> str:
        at = "" if self.magnitude is None else f" {self.magnitude:g}"
        return f"{self.ground.weights} {self.ground.arch} {self.kind.name}{at} layer {self.layer_text} {self.mode}"

    @property
    def layer_text(self) -> str:
        if self.kind.layers == "outside":
            return "-"
        return "all" if self.kind.layers.startswith("all") else str(self.layer)

    @property
    def slot(self) -> str:
        """The first one that the bug changes, of those that are dumped."""
        slot = self.bug.shown_in(self.ground.lab.slots)[0]
        if self.kind.layers == "outside":
            return slot
        return f"h{self.layer}" + (f"_{slot}" if slot else "")

    def is_own(self, slot: str) -> bool:
        """Is the bug in the operation that writes that slot?"""
        own = self.bug.shown_in(self.ground.lab.slots)
        part = re.sub(r"^h\d+_?", "", slot)
        return "*" in own or part in own

    def expected_layers(self) -> list[int]:
        model = self.ground.model
        if self.kind.layers == "outside":
            return [-1]
        if self.kind.layers == "all":
            return [-1, *range(model.n_layers)]
        if self.kind.layers == "all full":
            return [layer for layer in range(model.n_layers) if model.is_full(layer)]
        return [self.layer]

    def run(self, lab: Lab) -> dict:
        clean, variant = self.ground.clean_dump(self.mode), Variant(mode=self.mode)
        with tempfile.TemporaryDirectory(dir=lab.work) as folder:
            model, dump = self.ground.gguf, Path(folder) / "dump"
            if self.bug.keys or self.bug.tensors:
                model = Path(folder) / "mutated.gguf"
                mutate(self.ground.gguf, model, self.bug.keys, self.bug.tensors)
            lab.engine(model, dump, variant, self.bug.changes)
            replayed = lab.replay(self.ground.gguf, dump, variant)
            return self.judge(read_dump(dump), clean, replayed)

    def changed(self, dump: dict, clean: dict, slots: list[str]) -> np.ndarray:
        """What the bug changes at its own slot, relative, by position. slots: in forward order."""
        for slot in slots:
            if slot == self.slot:
                return l2_rel(dump[slot], clean[slot])
            if not np.array_equal(dump[slot], clean[slot]):
                raise TrialError(f"{self.text}: changes {slot} before {self.slot}")
        raise TrialError(f"{self.text}: no slot {self.slot}")

    def judge(self, dump: dict, clean: dict, replayed: Replayed) -> dict:
        changed = self.changed(dump, clean, list(replayed.slots))
        found = replayed.slots[self.slot]
        ratio = np.nan_to_num(changed / np.asarray(found["limit"]), nan=np.inf)  # what is not finite is above
        above = ratio > 1
        reported, expected = replayed.reported, self.expected_layers()
        if self.kind.layers.startswith("all"):
            layers_right = bool(reported) and set(reported) <= set(expected) and int(self.layer) in reported
        else:
            layers_right = reported == expected
        failing = [slot["slot"] for slot in replayed.failing]
        operation_right = layers_right and self.slot in failing and all(map(self.is_own, failing))
        own_layer = -1 if self.kind.layers == "outside" else self.layer
        position_right = operation_right and bool(above.any()) and found.get("first_position") == int(np.argmax(above))
        explanation = replayed.explanations.get(replayed.first_slot(own_layer), {})
        given = explanation.get("name", "") or ("unexplained" if explanation else "")
        reference = self.ground.reference
        mode = self.mode + (f"@p{self.kind.at}" if self.kind.at is not None else "")
        row = {
            "ground": "llamacpp",
            "slots": self.ground.lab.slots,
            "weights": self.ground.weights,
            "arch": self.ground.arch,
            "kind": self.kind.name,
            "magnitude": "" if self.magnitude is None else f"{self.magnitude:g}",
            "layer": self.layer_text,
            "mode": mode + (f"@h{self.kind.head}" if self.kind.head is not None else ""),
            "above": int(above.any()),
            "detected": int(bool(reported)),
            "layers_right": int(layers_right),
            "operation_right": int(operation_right),
            "position_right": int(position_right),
            "name_given": given,
            "name_right": int(given in self.kind.accepted) if given else 0,
            "ratio": f"{np.max(ratio):g}",
            "pos0_rule": int(five_percent(dump, reference, slice(0, 1))),
            "rule_5pct": int(five_percent(dump, reference, slice(None))),
        }
        row["note"] = (
            f"{self.text}: changed {np.nanmax(changed):.3g}, limit {np.max(found['limit']):.3g}, reported {reported}: "
            f"{replayed.worst()} | {explanation.get('text', '')}"
        )
        return row


class CleanTrial:
    """A variant without a bug."""

    def __init__(self, ground: Ground, variant: Variant) -> None:
        self.ground, self.variant = ground, variant
        self.text = f"{ground.weights} {ground.arch} clean:{variant.name} {variant.mode}"

    def run(self, lab: Lab) -> dict:
        self.ground.clean_dump("batched")
        with tempfile.TemporaryDirectory(dir=lab.work) as folder:
            dump = Path(folder) / "dump"
            lab.engine(self.ground.gguf, dump, self.variant)
            replayed = lab.replay(self.ground.gguf, dump, self.variant)
            rows, reference = read_dump(dump), self.ground.reference
        row = dict.fromkeys(COLUMNS, "")
        row |= {"ground": "llamacpp", "slots": self.ground.lab.slots, "weights": self.ground.weights, "arch": self.ground.arch, "layer": "-"}
        row |= {"kind": f"clean:{self.variant.name}", "mode": self.variant.mode, "above": 0}
        row["detected"] = int(bool(replayed.reported))
        row["ratio"] = f"{max(slot['ratio'] for slot in replayed.slots.values() if slot['limit']):g}"
        row["pos0_rule"] = int(five_percent(rows, reference, slice(0, 1)))
        row["rule_5pct"] = int(five_percent(rows, reference, slice(None)))
        row["note"] = f"{self.text}: reported {replayed.reported}: {replayed.worst()}"
        return row


def layers_of(kind: Kind, model: Model) -> list[int | None]:
    """First, middle and last of those that the bug can be in."""
    full = [layer for layer in range(model.n_layers) if model.is_full(layer)]
    linear = [layer for layer in range(model.n_layers) if not model.is_full(layer)]
    every = list(range(model.n_layers))
    if kind.layers == "outside":
        return [None]
    if kind.layers.startswith("all"):
        return [full[0] if kind.layers == "all full" else 0]
    of = {"any": every, "later": every[1:], "full": full, "linear": linear}[kind.layers]
    return [of[i] for i in sorted({0, (len(of) - 1) // 2, len(of) - 1})] if of else []


def list_trials(grounds: list[Ground]) -> list:
    trials: list = []
    for ground in grounds:
        model = ground.model
        for variant in VARIANTS:
            quantized = variant.cache.startswith("q")
            if not (quantized and model.head_dim % 32):  # llama.cpp refuses
                trials.append(CleanTrial(ground, variant))
        for i, kind in enumerate(KINDS):
            for j, magnitude in enumerate(kind.magnitudes or (None,)):
                layers = layers_of(kind, model)
                if kind.magnitudes and j not in (0, 2) and len(layers) > 1:
                    layers = [layers[(i + j) % len(layers)]]  # all places, but not at each magnitude
                for k, layer in enumerate(layers):
                    mode = kind.modes[(i + j + k) % len(kind.modes)]
                    trial = Trial(ground, kind, layer, magnitude, mode)
                    if trial.bug is not None:
                        trials.append(trial)
    return trials


def is_wanted(trial: object, wanted: re.Pattern) -> bool:
    return wanted.search(trial.text) is not None


def is_sampled(trial: object, every: int) -> bool:
    return int(hashlib.sha256(trial.text.encode()).hexdigest(), 16) % every == 0


def percent(rows: list[dict], column: str) -> str:
    n = sum(int(row[column] or 0) for row in rows)
    return f"{n}/{len(rows)}" + (f" ({100 * n / len(rows):.1f}%)" if rows else "")


def summarize(rows: list[dict], judges_place: bool) -> bool:
    """Prints the table; returns whether nothing is wrong."""
    clean = [row for row in rows if row["kind"].startswith("clean:")]
    bugs = [row for row in rows if not row["kind"].startswith("clean:")]
    by_weights = defaultdict(list)
    for row in bugs:
        by_weights[row["weights"]].append(row)
    for weights, group in [*sorted(by_weights.items()), ("all", bugs)]:
        above = [row for row in group if row["above"]]
        named = [row for row in above if row["detected"]]
        wrong = [row for row in named if not row["name_right"] and row["name_given"] not in ("", "unexplained")]
        below = [row for row in group if not row["above"]]
        print(
            f"{weights}: {len(group)} bugs, {len(above)} above the limit: detected {percent(above, 'detected')}, "
            f"layers {percent(above, 'layers_right')}, operation {percent(above, 'operation_right')}, "
            f"position {percent(above, 'position_right')}, name {percent(named, 'name_right')}, "
            f"wrong name {len(wrong)}; 5% {percent(above, 'rule_5pct')}, at position 0 {percent(above, 'pos0_rule')}; "
            f"of {len(below)} below: detected {percent(below, 'detected')}"
        )
    alarms = [row for row in clean if row["detected"]]
    missed = [row for row in bugs if row["above"] and not row["detected"]]
    elsewhere = [row for row in bugs if row["above"] and row["detected"] and not row["operation_right"]]
    print(f"clean: {len(clean)} runs, {len(alarms)} false alarms, by the 5% rule {percent(clean, 'rule_5pct')}")
    for title, bad in (("false alarm", alarms), ("missed", missed), ("in another place", elsewhere)):
        for kind, n in Counter(row["kind"] for row in bad).most_common():
            print(f"  {title}: {kind} {n}")
    return not alarms and not missed and not (judges_place and elsewhere)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, metavar="BUILD")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--trials", default="", help="a regular expression of what --list prints")
    parser.add_argument("--smollm2", type=Path, metavar="DIR", help="on this model instead of the tiny ones")
    parser.add_argument("--slots", choices=("layers", "operations"), default="layers", help="what is dumped")
    parser.add_argument(
        "--weights",
        nargs="*",
        help="of f32 bf16 f16 q8_0 q4_0 q4_K_M, of smollm2's f16 bf16 q5_1 q4_0 f32 q8_0 q4_1: all, the last three",
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one trial in N, always the same ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, help="where models are made, or were; a new folder by default")
    parser.add_argument("--list", action="store_true", help="print the trials, run none")
    parser.add_argument("--verbose", action="store_true", help="a line on each trial")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    try:
        prompt = PROMPTS / ("smollm2-short.txt" if args.smollm2 else "long.txt")
        lab = Lab(args.build.resolve(), work.resolve(), args.slots, prompt)
        if args.smollm2:
            grounds = smollm2_grounds(lab, args.smollm2.resolve(), args.weights or SMOLLM2_WEIGHTS)
        else:
            known = (*TINY_WEIGHTS, "q4_K_M")
            grounds = lab.grounds([w for w in known if w in (args.weights or known)])
        wanted = re.compile(args.trials)
        trials = [t for t in list_trials(grounds) if is_wanted(t, wanted) and is_sampled(t, args.every)]
        if args.list:
            print(*(t.text for t in trials), sep="\n")
            return 0
        return run_trials(lab, trials, args)
    finally:
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)


def run_trials(lab: Lab, trials: list, args: argparse.Namespace) -> int:
    rows, errors = [], []
    with open(args.csv, "w", newline="") as file, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for future in concurrent.futures.as_completed([pool.submit(t.run, lab) for t in trials]):
            try:
                row = future.result()
            except TrialError as error:
                errors.append(str(error))
                print(error, file=sys.stderr)
                continue
            writer.writerow(row)
            file.flush()
            rows.append(row)
            is_clean = row["kind"].startswith("clean:")
            is_bad = row["detected"] if is_clean else row["above"] and not row["position_right"]
            if args.verbose or is_bad:
                print("  BAD" if is_bad else "  ok ", row["note"])
    is_good = summarize(rows, judges_place=args.slots == "operations")
    if errors or not rows:
        print(f"{len(errors)} trials could not be run", file=sys.stderr)
        return 2
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
