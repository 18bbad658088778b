#!/usr/bin/env python3
"""clang-tidy of the tracked C files, as many at once as there are processors.

    ci/tidy.py BUILD_DIR [FILE ...]

A file that passed is not read again while it, all that it includes, its compile command, .clang-tidy and clang-tidy
itself are the same: ~/.cache/refparity/tidy has a file of that hash. Another folder: REFPARITY_TIDY_CACHE; none: "".
Exit codes: 0 all passed, 1 some did not, 2 the environment is not complete.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def included(compile_command: list[str], folder: Path) -> list[Path]:
    """What the compiler reads; empty where it fails, which clang-tidy then says better."""
    without_output = [word for i, word in enumerate(compile_command) if "-o" not in (word, compile_command[i - 1])]
    listed = run(*without_output, "-M", "-MT", "x", cwd=folder)
    if listed.returncode != 0:
        return []
    words = listed.stdout.replace("\\\n", " ").split()[1:]
    return sorted(folder / word for word in words)


def key_of(common: bytes, compile_command: list[str], folder: Path) -> str | None:
    files = included(compile_command, folder)
    if not files:
        return None
    digest = hashlib.sha256(common)
    for word in compile_command:
        digest.update(word.replace(str(ROOT), "").encode() + b"\0")
    for file in files:
        digest.update(str(file).replace(str(ROOT), "").encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 0 if sys.argv[1:2] == ["--help"] else 2
    build = Path(sys.argv[1]).resolve()
    commands = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        commands[entry["file"]] = (shlex.split(entry["command"]), Path(entry["directory"]))
    names = sys.argv[2:] or [
        name for name in run("git", "ls-files", "*.c").stdout.split() if not name.endswith("_fuzz.c")
    ]
    if not names:
        print("error: no files", file=sys.stderr)
        return 2
    cache_name = os.environ.get("REFPARITY_TIDY_CACHE", str(Path.home() / ".cache/refparity/tidy"))
    cache = Path(cache_name) if cache_name else None
    common = run("clang-tidy", "--version").stdout.encode() + (ROOT / ".clang-tidy").read_bytes()

    def check(name: str) -> str:
        """What is wrong; "" nothing, "known" nothing, as before."""
        key = key_of(common, *commands[str(ROOT / name)]) if cache and str(ROOT / name) in commands else None
        if key and (cache / key).exists():
            return "known"
        done = run("clang-tidy", "--quiet", "-p", str(build), name)
        if done.returncode != 0:
            return done.stdout + done.stderr
        if key:
            cache.mkdir(parents=True, exist_ok=True)
            (cache / key).touch()
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, names))
    wrong = [result for result in results if result not in ("", "known")]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(names) - len(wrong)} passed, {len(wrong)} failed ({results.count('known')} as before)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
