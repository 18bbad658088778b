"""What an installed refparity has to do: a dump that refparity_dump writes of a fixture's values passes, and one with
a wrong layer fails with that layer's name.

    smoke.py FIXTURE.npz PROGRAM VERSION
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import refparity_dump
from refparity_dump import Dump

WRONG = "h1"


def write_dump(folder: Path, fixture: np.lib.npyio.NpzFile, wrong: str = "") -> None:
    slots = [name for name in fixture.files if name not in refparity_dump.RESERVED]
    n_layers = sum(name[0] == "h" and name[1:].isdigit() for name in slots)
    with Dump(folder, n_layers, "smoke") as dump:
        dump.tokens(fixture["tokens"])
        for name in slots:
            rows = fixture[name] * (np.float32(1.5) if name == wrong else np.float32(1))
            for position, row in zip(fixture["positions"].tolist(), rows, strict=True):
                dump.rows(name, position, row)


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def expect(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"FAILED: {what}")


def main() -> int:
    path, program, version = sys.argv[1:]
    expect(run(program, "--version") == (0, f"refparity {version}\n"), f"{program} --version is not {version}")
    expect(refparity_dump.__version__ == version, f"refparity_dump is {refparity_dump.__version__}, not {version}")
    with tempfile.TemporaryDirectory() as folder, np.load(path) as fixture:
        right, wrong = Path(folder) / "right", Path(folder) / "wrong"
        write_dump(right, fixture)
        write_dump(wrong, fixture, WRONG)
        code, output = run(program, "diff", path, str(right))
        expect(code == 0, f"exit code {code}, expected 0:\n{output}")
        code, output = run(program, "diff", path, str(wrong))
        expect(code == 1 and WRONG in output, f"exit code {code}, expected 1 and {WRONG}:\n{output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
