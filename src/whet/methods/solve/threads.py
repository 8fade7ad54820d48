"""How many threads a solver uses: one for a small matrix, whose steps are too short to share."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

SMALL = 1 << 21  # weights


@contextmanager
def threads_for(weights: int) -> Generator[None]:
    """Solve with one thread if there are few weights; also, results then do not depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if weights <= SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
