"""Runs a command and writes its CPU seconds, its children's included: cpu_time.py FILE COMMAND...

On a busy machine it says what the wall time cannot. Exits as the command does.
"""

import resource
import subprocess
import sys
from pathlib import Path


def main() -> int:
    status = subprocess.run(sys.argv[2:], check=False).returncode
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    Path(sys.argv[1]).write_text(f"{usage.ru_utime + usage.ru_stime:.0f}")
    return status


if __name__ == "__main__":
    sys.exit(main())
