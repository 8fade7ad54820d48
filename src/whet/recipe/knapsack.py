"""One choice for each of many items: least loss at an exact size (a multiple-choice knapsack).

Dynamic programming over sizes in units of their greatest common divisor; where that makes too many
steps, sizes are rounded up to a coarser unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np
from numpy.typing import NDArray

LONGEST = 400_000  # steps that sizes are divided into


@dataclass(frozen=True, slots=True)
class Item:
    """The sizes [byte] and losses of the choices that one item has."""

    sizes: tuple[int, ...]
    losses: tuple[float, ...]


def choose(items: Sequence[Item], budget: int) -> tuple[int, ...] | None:
    """Return the number of the choice for each item, or None where not even the smallest fit.

    Law: as large as any choices within the budget can be together, so the total size does not depend
    on the losses; of those of that size, the one of least loss (equal to counting all).
    """
    least = [min(item.sizes) for item in items]
    room = budget - sum(least)
    if room < 0:
        return None
    extra = [[size - low for size in item.sizes] for item, low in zip(items, least, strict=True)]
    room = min(room, sum(max(sizes) for sizes in extra))
    unit = reduce(gcd, (size for sizes in extra for size in sizes), 0) or 1
    unit *= -(-(room // unit + 1) // LONGEST)
    steps = room // unit
    places = [[-(-size // unit) for size in sizes] for sizes in extra]
    return _solve(items, places, steps)


def _solve(items: Sequence[Item], places: Sequence[Sequence[int]], steps: int) -> tuple[int, ...]:
    """Return the choices of least loss among those of the greatest total place within `steps`."""
    best = np.full(steps + 1, np.inf)
    best[0] = 0.0
    taken: list[NDArray[np.int8]] = []
    for item, place in zip(items, places, strict=True):
        onward, chosen = np.full(steps + 1, np.inf), np.zeros(steps + 1, np.int8)
        for number, (more, loss) in enumerate(zip(place, item.losses, strict=True)):
            if more <= steps:
                offered = best[: steps + 1 - more] + loss
                better = offered < onward[more:]
                onward[more:][better], chosen[more:][better] = offered[better], number
        best = onward
        taken.append(chosen)
    at = int(np.flatnonzero(np.isfinite(best)).max())
    found: list[int] = []
    for place, chosen in zip(reversed(places), reversed(taken), strict=True):
        found.append(int(chosen[at]))
        at -= place[found[-1]]
    return tuple(reversed(found))
