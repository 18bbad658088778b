"""The comparer beside NumPy, on the same files: compare.py COMPARE_BENCH FOLDER.

Prints one row of ci/bench.sh's table a line, separated by tabs. Both sides run in turn, so that a
machine whose speed drifts does not favour one; figures are medians.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pairs

TURNS = 5
# One pair that a CPU's cache holds, and two that it does not.
CASES = (("h0", 256, 4096), ("h1", 4096, 4096), ("logits", 64, 151936))


def row_metrics(r: np.ndarray, e: np.ndarray) -> tuple[float, ...]:
    """L2_rel, cosine, both norms, max_abs of one position, accumulated in double. [dim], [dim]"""
    x, y = r.astype(np.float64), e.astype(np.float64)
    d = y - x
    norm_r, norm_e = np.sqrt(x @ x), np.sqrt(y @ y)
    return np.sqrt(d @ d) / norm_r, x @ y / (norm_r * norm_e), norm_r, norm_e, np.abs(d).max()


def numpy_by_row(r: np.ndarray, e: np.ndarray) -> object:
    return [row_metrics(r[i], e[i]) for i in range(len(r))]


def numpy_at_once(r: np.ndarray, e: np.ndarray) -> object:
    """The same of all positions: [n_positions][dim], [n_positions][dim]."""
    x, y = r.astype(np.float64), e.astype(np.float64)
    d = y - x
    norm_r, norm_e = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    cosine = np.einsum("ij,ij->i", x, y) / (norm_r * norm_e)
    return np.linalg.norm(d, axis=1) / norm_r, cosine, norm_r, norm_e, np.abs(d).max(axis=1)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x -= x.max()
    return x - np.log(np.exp(x).sum())


def logits_metrics(r: np.ndarray, e: np.ndarray, k: int = 5) -> object:
    """Top-1, overlap of the top k, and KL divergence of each position, as the comparer has them."""
    result = []
    for i in range(len(r)):
        top_r, top_e = np.argpartition(r[i], -k)[-k:], np.argpartition(e[i], -k)[-k:]
        log_p, log_q = log_softmax(r[i]), log_softmax(e[i])
        kl = np.exp(log_p) @ (log_p - log_q)
        result.append((r[i].argmax(), e[i].argmax(), np.intersect1d(top_r, top_e).size, kl))
    return result


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def numpy_whole(folder: Path, slot: str, metrics: Callable[[np.ndarray, np.ndarray], object]) -> object:
    with np.load(folder / "reference.npz", allow_pickle=False) as archive:
        r = archive[slot]
    e = np.load(folder / "dump" / f"{slot}.npy", mmap_mode="r")
    return metrics(r, e), logits_metrics(r, e) if slot == "logits" else None


def bench_program(program: str, folder: Path, slot: str) -> dict[str, float]:
    rounds = "30" if slot == "h0" else "5"
    command = [program, str(folder / "reference.npz"), str(folder / "dump"), slot, rounds]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in output.splitlines()]
    return {line[0]: float(line[1]) for line in lines if line[0] != "checksum"}


def measure(program: str, folder: Path, slot: str, n_positions: int, dim: int) -> None:
    pairs.write_pair(folder, 2, iter([(slot, n_positions, dim)]), n_positions)
    with np.load(folder / "reference.npz") as archive:
        r = archive[slot]
    e = np.load(folder / "dump" / f"{slot}.npy")
    gigabytes = 2 * r.nbytes / 1e9
    turns = []
    for _ in range(TURNS):
        turn = bench_program(program, folder, slot)
        timed = {f: min(seconds(lambda f=f: f(r, e)) for _ in range(2)) for f in (numpy_by_row, numpy_at_once)}
        faster = min(timed, key=timed.__getitem__)
        turn["numpy"] = timed[faster]
        turn["numpy_whole"] = min(seconds(lambda f=faster: numpy_whole(folder, slot, f)) for _ in range(2))
        turns.append(turn)

    def rate(name: str) -> str:
        return f"{gigabytes / statistics.median(t[name] for t in turns):.1f} GB/s"

    def ratio(slower: str, faster: str) -> str:
        return f"{statistics.median(t[slower] / t[faster] for t in turns):.2g}"

    where = f"{slot} [{n_positions}][{dim}], 2 x {r.nbytes / 1e6:.0f} MB"
    print(
        f"Metrics in memory, {where}",
        f"{rate('kernel')}; NumPy {rate('numpy')}, plain read {rate('read')}: "
        f"{ratio('numpy', 'kernel')} times NumPy, {ratio('read', 'kernel')} of a read",
        "4 times NumPy, 0.8 of a read",
        sep="\t",
    )
    also = ", top-k and KL" if slot == "logits" else ""
    print(
        f"From stored files to verdict, {where}: opening, CRC, metrics{also}",
        f"{rate('whole')}; NumPy {rate('numpy_whole')}: {ratio('numpy_whole', 'whole')} times NumPy",
        "4 times NumPy",
        sep="\t",
    )


def main() -> None:
    program, folder = sys.argv[1], Path(sys.argv[2])
    for slot, n_positions, dim in CASES:
        measure(program, folder / slot, slot, n_positions, dim)


if __name__ == "__main__":
    main()
