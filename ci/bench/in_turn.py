"""Runs two commands in turn: in_turn.py ROUNDS COMMAND [ARGUMENT...] -- COMMAND [ARGUMENT...].

{round} in an argument is the round's number, for folders that have to be new. Prints the least seconds and
the least CPU seconds of the first, then of the second. Load from elsewhere then meets both.
"""

import os
import subprocess
import sys
import time


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and CPU seconds, the system's among them."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"error: `{' '.join(command)}` exits with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def least(runs: list[tuple[float, float]]) -> tuple[float, float]:
    return min(seconds for seconds, _ in runs), min(cpu for _, cpu in runs)


def main() -> None:
    middle = sys.argv.index("--")
    commands = [sys.argv[2:middle], sys.argv[middle + 1 :]]
    runs: list[list[tuple[float, float]]] = [[], []]
    for round_ in range(int(sys.argv[1])):
        for i, command in enumerate(commands):
            runs[i].append(run([argument.replace("{round}", str(round_)) for argument in command]))
    print(*least(runs[0]), *least(runs[1]))


if __name__ == "__main__":
    main()
