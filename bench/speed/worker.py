"""The line protocol of workers: one process an engine, kept alive while the others have their turn.

A worker reads a request a line and answers with a number, or an object of numbers, as a line of
JSON. Standard library only, since each engine lives in an environment of its own.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from statistics import median

Answer = float | dict[str, float]


def serve(works: dict[str, Callable[..., Answer]], ready: dict[str, object]) -> None:
    """Say what has been loaded, then answer requests `name number …` until the input ends."""
    _say(ready)
    for line in sys.stdin:
        name, *numbers = line.split()
        if name == "peak":
            _say(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        else:
            _say(works[name](*map(int, numbers)))


def typical(step: Callable[[int], object], count: int) -> float:
    """Return the median time of `step(0)`, `step(1)` … [s]."""
    spent: list[float] = []
    for i in range(count):
        begin = time.perf_counter()
        step(i)
        spent.append(time.perf_counter() - begin)
    return median(spent)


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)
