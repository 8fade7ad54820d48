"""A worker: how fast memory is read, and integers of 8 bits are multiplied, by the same threads.

python with_memory.py - THREADS
"""

import sys

import torch
from worker import serve, typical

from whet.kernels.native import native

READ = 1 << 30  # memory that is read [byte]
SIZE = 2048  # of the matrices: rows, inputs and columns


class Worker:
    """Two matrices."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.threads = threads
        self.a = torch.randint(-127, 127, (SIZE, SIZE), dtype=torch.int8)
        self.b = torch.randint(-127, 127, (SIZE, SIZE), dtype=torch.int8).T

    def bandwidth(self) -> float:
        """Bytes a second."""
        return native().read_bandwidth(READ, self.threads, 3)

    def products(self) -> float:
        """Additions and multiplications a second of torch's product of int8 matrices."""
        return 2 * SIZE**3 / typical(lambda _: torch._int_mm(self.a, self.b), 9)


def main() -> None:
    """Serve."""
    worker = Worker(int(sys.argv[2]))
    serve({"bandwidth": worker.bandwidth, "products": worker.products}, {"seconds to load": 0.0})


if __name__ == "__main__":
    main()
