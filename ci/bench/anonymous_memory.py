"""Runs a command and prints the most anonymous memory it had, in MiB, and its seconds.

anonymous_memory.py COMMAND [ARGUMENT...]: exits as the command does. Anonymous memory is what it
allocated itself; pages of mapped files, which the kernel can drop, are not in it. Linux only.
"""

import subprocess
import sys
import time
from pathlib import Path


def anonymous_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended
    return 0


def main() -> int:
    start = time.monotonic()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, anonymous_kib(process.pid))
        time.sleep(0.001)
    print(f"{most / 1024:.1f} {time.monotonic() - start:.1f}")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
