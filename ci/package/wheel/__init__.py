"""The recorder of refparity, as a wheel has it: the programs refparity-record-hf and refparity-replay-hf. Its
modules are those of the folder fixtures/, which find each other by their plain names."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("torch", "transformers", "safetensors", "gguf")


def run(module: str) -> int:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"refparity: error: the recorder needs {', '.join(missing)}, which this Python does not have: "
            "pip install 'refparity[record]'",
            file=sys.stderr,
        )
        return 2
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    return import_module(module).main()


def record() -> int:
    """Records fixtures: what Hugging Face transformers computes for a prompt."""
    return run("hf_reference")


def replay() -> int:
    """Replays a dump with Hugging Face's own modules."""
    return run("hf_replay")
