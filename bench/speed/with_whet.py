"""A worker: whet's native engine on a folder.

python with_whet.py FOLDER THREADS CACHE
"""

import sys
import time
from pathlib import Path

import numpy as np
from worker import serve, typical

from whet.runtime.native import Native, Piece, Settings, load
from whet.store.folder import Folder


class Worker:
    """An engine and some tokens."""

    def __init__(self, executor: Native) -> None:
        self.executor = executor
        self.ids = np.random.default_rng(0).integers(0, executor.vocab, 4096)

    def prefill(self, tokens: int) -> float:
        """Tokens a second of one prompt."""
        held = self.executor.new_cache()
        return tokens / typical(lambda _: self.executor.step(self.ids[:tokens], held), 1)

    def decode(self, context: int, count: int) -> float:
        """Tokens a second after a prompt."""
        held = self.executor.new_cache()
        self.executor.step(self.ids[: context - count], held)
        return 1 / typical(lambda i: self.executor.step(self.ids[i : i + 1], held), count)

    def batch(self, sequences: int, count: int) -> float:
        """Tokens a second of several sequences together."""
        held = [self.executor.new_cache() for _ in range(sequences)]
        for number, one in enumerate(held):
            self.executor.step(self.ids[number : number + 32], one)

        def step(i: int) -> None:
            pieces = [Piece(self.ids[i + k : i + k + 1], one) for k, one in enumerate(held)]
            self.executor.batch(pieces)

        return sequences / typical(step, count)


def main() -> None:
    """Load, and serve."""
    folder, threads, cache = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    begin = time.perf_counter()
    executor = load(Folder(Path(folder)), Settings(threads=threads, cache=cache))  # pyright: ignore[reportArgumentType]
    executor.step(np.array([1]), executor.new_cache())
    layouts = executor.program.weights.layouts.values()
    ready = {
        "seconds to load": time.perf_counter() - begin,
        "bytes a token": sum(layout.nbytes for layout in layouts),
        **executor.notes,
    }
    worker = Worker(executor)
    works = {"prefill": worker.prefill, "decode": worker.decode, "batch": worker.batch}
    serve(works, ready)


if __name__ == "__main__":
    main()
