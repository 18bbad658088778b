"""What a warm run of the matrix costs per pair: harness_time.py RESULTS [CTEST_SECONDS FIRST].

With one argument, the means of a run that started the engines, for a later call's FIRST. With all,
the table's text: FIRST's means, and what ctest took for a run that kept every dump.
"""

import json
import statistics
import sys
from pathlib import Path


def main() -> None:
    pairs = [p for p in json.loads(Path(sys.argv[1]).read_text())["pairs"] if p["verdict"] != "SKIP"]
    if not pairs:
        sys.exit("error: no pair was compared")
    if len(sys.argv) == 2:
        means = [statistics.median(pair[key] for pair in pairs) * 1e3 for key in ("engine_s", "harness_s", "compare_s")]
        print(*means)
        return
    engine, harness, compare = map(float, Path(sys.argv[3]).read_text().split())
    whole = float(sys.argv[2]) / len(pairs) * 1e3
    n_tests = pairs[0]["n_layers"] + 7
    print(
        f"{harness + compare:.0f} ms (run {harness:.1f}, compare {compare:.1f}) beside the engine's {engine:.0f} ms; "
        f"{whole:.0f} ms of ctest's wall time with dumps kept, for its {n_tests} tests ({len(pairs)} pairs)"
    )


if __name__ == "__main__":
    main()
