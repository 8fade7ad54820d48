"""How fast the native engine writes and reads, beside the memory bandwidth of the same minutes.

Each round reads fresh memory, then does every kind of work once; medians over the rounds, and of the
ratios within them. The bound of decoding is bandwidth / bytes that a token reads (weights, and keys
and values of the context)::

    python bench/coded.py /tmp/shape --format int4-g32
    python bench/engine.py /tmp/shape --cache int8 --rounds 5
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np

from whet.base.machine import peak_rss
from whet.kernels.native import native
from whet.runtime.native import Native, Piece, Settings, load
from whet.runtime.sequences import Sequence
from whet.store.folder import Folder

PREFILL, DECODE, LONG, TOGETHER = 512, 24, 2048, 8
READ = 1 << 30  # [byte]
Figures = dict[str, list[float]]


def seconds(executor: Native, ids: np.ndarray, held: Sequence) -> float:
    """Return the time of one step."""
    begin = time.perf_counter()
    executor.step(ids, held)
    return time.perf_counter() - begin


def decoding(executor: Native, ids: np.ndarray, held: Sequence, count: int) -> float:
    """Return tokens a second, one after the other: of the median step."""
    return 1 / median(seconds(executor, ids[i : i + 1], held) for i in range(count))


def together(executor: Native, ids: np.ndarray, count: int) -> float:
    """Return tokens a second of several sequences that go forward at once."""
    held = [executor.new_cache() for _ in range(TOGETHER)]
    for number, one in enumerate(held):
        executor.step(ids[number : number + 32], one)
    spent: list[float] = []
    for i in range(count):
        pieces = [Piece(ids[i + k : i + k + 1], one) for k, one in enumerate(held)]
        begin = time.perf_counter()
        executor.batch(pieces)
        spent.append(time.perf_counter() - begin)
    return TOGETHER / median(spent)


def weights_read(executor: Native) -> int:
    """Return the bytes of weights that a token reads."""
    return sum(layout.nbytes for layout in executor.program.weights.layouts.values())


def one_round(executor: Native, ids: np.ndarray, found: Figures, *, longest: int) -> None:
    """Measure everything once."""
    bandwidth = native().read_bandwidth(READ, executor.threads, 3)
    held = executor.new_cache()
    found["prefill 512 [token/s]"].append(PREFILL / seconds(executor, ids[:PREFILL], held))
    held = executor.new_cache()
    executor.step(ids[:8], held)
    rate = decoding(executor, ids, held, DECODE)
    found["bandwidth [GB/s]"].append(bandwidth / 1e9)
    found["decode [token/s]"].append(rate)
    found["decode, part of its bound"].append(rate * weights_read(executor) / bandwidth)
    found["8 sequences [token/s]"].append(together(executor, ids, DECODE // 2))
    if executor.context < longest:
        return
    held = executor.new_cache()
    executor.step(ids[: longest - DECODE], held)
    name = f"decode at {longest} [token/s]"
    found[name].append(decoding(executor, ids, held, DECODE))


def profile(executor: Native, ids: np.ndarray, prompt: int) -> dict[str, float]:
    """Return the time of each kind of operator [us] of one step after `prompt` tokens."""
    held = executor.new_cache()
    count = max(1, 16 if prompt else 1)
    if prompt:
        executor.step(ids[:prompt], held)
    program = executor.program.program
    program.time(True)
    for i in range(count):
        executor.step(ids[i : i + 1] if prompt else ids[:PREFILL], held)
    spent = np.array(program.seconds) / count
    program.time(False)
    kinds: dict[str, float] = defaultdict(float)
    for name, value in zip(executor.program.names, spent, strict=False):
        kinds[name] += value * 1e6
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def main() -> None:
    """Measure, and print a line for each figure, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", default="bf16")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", type=int, default=LONG)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true", help="time of each kind of operator")
    given = parser.parse_args()
    begin = time.perf_counter()
    settings = Settings(precision=given.precision, cache=given.cache, threads=given.threads)
    executor = load(Folder(given.folder), settings)
    ids = np.random.default_rng(0).integers(0, executor.vocab, max(given.long, PREFILL) + 64)
    executor.step(ids[:1], executor.new_cache())
    found: Figures = defaultdict(list)
    found["load to the first token [s]"].append(time.perf_counter() - begin)
    for _ in range(given.rounds):
        one_round(executor, ids, found, longest=given.long)
    figures = {name: round(median(values), 3) for name, values in found.items()}
    figures["weights [MB]"] = round(weights_read(executor) / 1e6, 1)
    figures["peak memory [MB]"] = round(peak_rss() / 1e6, 1)
    if given.json:
        print(json.dumps({"threads": executor.threads, **executor.notes, **figures}))
        return
    for name, value in figures.items():
        print(f"{name:32} {value}")
    if given.profile:
        for prompt in (8, given.long - DECODE, 0):
            parts = ", ".join(f"{k} {v:.0f}" for k, v in profile(executor, ids, prompt).items())
            print(f"{f'after {prompt}' if prompt else 'prefill'} [us]: {parts}")


if __name__ == "__main__":
    main()
