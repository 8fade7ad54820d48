"""How many threads a solver uses: torch one for a small matrix, whose steps are too short to share.

The native solver always takes all that the caller had: its results do not depend on their number.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from whet.kernels.threads import torch_threads

SMALL = 1 << 21  # weights


@contextmanager
def threads_for(weights: int) -> Generator[None]:
    """Solve with one thread if there are few weights; also, results then do not depend on them."""
    with torch_threads(1 if weights <= SMALL else torch.get_num_threads()):
        yield
