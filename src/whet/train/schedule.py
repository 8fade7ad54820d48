"""How the learning rate goes over a run: warm-up, then cosine, or level with a decay at the end."""

import math
from typing import Literal

Schedule = Literal["cosine", "wsd", "constant"]


def share(step: int, steps: int, schedule: Schedule, warmup: float, decay: float = 0.2) -> float:
    """Return the share of the peak learning rate at a step, counted from 0.

    `warmup` and `decay` are shares of all steps. cosine: arXiv:1608.03983, to 0; wsd: level, then
    linear to 0 over the last `decay` (arXiv:2404.06395, §4). Law: in (0, 1], and 1 somewhere.
    """
    first = int(warmup * steps)
    if step < first:
        return (step + 1) / (first + 1)
    left = (steps - step) / max(steps - first, 1)
    match schedule:
        case "cosine":
            return max((1 + math.cos(math.pi * (1 - left))) / 2, 1 / (steps + 1))
        case "wsd":
            return min(1.0, left * max(steps - first, 1) / max(decay * steps, 1))
        case "constant":
            return 1.0
