"""How many threads a solver uses: torch one for a small matrix, whose steps are too short to share.

The native solver always takes all that the caller had: its results do not depend on their number.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

SMALL = 1 << 21  # weights
_given: ContextVar[int] = ContextVar("_given", default=0)


@contextmanager
def threads_for(weights: int) -> Generator[None]:
    """Solve with one thread if there are few weights; also, results then do not depend on them."""
    before = torch.get_num_threads()
    token = _given.set(workers())
    torch.set_num_threads(1 if weights <= SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _given.reset(token)


def workers() -> int:
    """Return how many threads the native solver takes: those that torch had outside `threads_for`."""
    return _given.get() or torch.get_num_threads()
