"""What a megabyte more would buy and one less would cost, read off the predicted frontier."""

from dataclasses import dataclass
from itertools import pairwise
from math import exp, floor, log, log10

from whet.report.search.found import Mark, Search, Unit, known

BEYOND = 4  # steps that are told on each side


@dataclass(frozen=True, slots=True)
class Step:
    """Another size: what it adds to the chosen one, and the KL that is predicted there."""

    more: float  # [byte], negative: smaller
    size: float  # [byte]
    kl: float  # [nat]
    ratio: float  # of the KL to that of the chosen size
    price: float | None  # what each byte costs on the way from the step before, or buys [nat/byte]


def curve(search: Search) -> list[tuple[float, float]]:
    """Return the frontier as (size [byte], KL [nat]): what is larger and no better is left out."""
    found: list[tuple[float, float]] = []
    for mark in search.frontier:
        better = mark.kl is not None and (not found or mark.kl < found[-1][1])
        if mark.size is not None and mark.kl is not None and better:
            found.append((mark.size, mark.kl))
    return found


def between(points: list[tuple[float, float]], size: float) -> float | None:
    """Return the KL of the frontier at a size, log KL being linear between its points.

    Law: it is exact at the points, falls between them, and is None beyond the ends.
    """
    for (left, high), (right, low) in pairwise(points):
        if left <= size <= right:
            share = (size - left) / (right - left) if right > left else 0.0
            return exp(log(high) + share * (log(low) - log(high)))
    return None


def unit_of(size: float) -> float:
    """Return the step in which sizes are asked about: 1, 2 or 5 × 10ⁿ, some 5 % of a size [byte]."""
    power = 10.0 ** floor(log10(size / 15))
    return power * max(m for m in (1, 2, 5) if m * power <= size / 15 * (1 + 1e-9))


def place(search: Search) -> float | None:
    """Return the size at which the frontier is asked: the predicted one, for it is predicted too."""
    head = search.head.facts.get("size_predicted")
    return known(head.value if head else None) or search.chosen.size


def steps(search: Search) -> tuple[Step, ...]:
    """Return what sizes around the chosen one would have, the smallest first."""
    size, points = place(search), curve(search)
    here = None if size is None else between(points, size)
    if size is None or here is None:
        return ()
    each = unit_of(size)
    at = {i: between(points, size + i * each) for i in range(-BEYOND, BEYOND + 1)} | {0: here}
    found: list[Step] = []
    for i, kl in at.items():
        nearer = at[i - 1 if i > 0 else i + 1] if i else None
        if kl is not None:
            price = None if nearer is None else abs(kl - nearer) / each
            found.append(Step(i * each, size + i * each, kl, kl / here, price))
    return tuple(found)


def slopes(search: Search) -> tuple[float | None, float | None]:
    """Return what the frontier's next smaller and next larger point cost and buy [nat/byte]."""
    size, points = place(search), curve(search)
    here = None if size is None else between(points, size)
    if size is None or here is None:
        return None, None
    less = next((end for end in reversed(points) if end[0] < size * (1 - 1e-9)), None)
    more = next((end for end in points if end[0] > size * (1 + 1e-9)), None)
    return _slope((size, here), less), _slope((size, here), more)


def _slope(here: tuple[float, float], end: tuple[float, float] | None) -> float | None:
    """Return how fast the KL falls between two points [nat/byte]."""
    return None if end is None else (here[1] - end[1]) / (end[0] - here[0])


def nearest_uniform(search: Search) -> tuple[Mark, float] | None:
    """Return the best uniform level that is no larger than the chosen size, and its KL there.

    One that is known to be slower than was asked for is none.
    """
    size = place(search)
    asked = (limit.limit for limit in search.limits if limit.name == "decode")
    least = max((rate.value for rate in asked if rate is not None), default=0.0)
    fits = [
        (mark, mark.kl)
        for mark in search.uniforms
        if size and mark.size and mark.kl and mark.size <= size * (1 + 1e-9)
        if mark.decode is None or mark.decode >= least
    ]
    return min(fits, key=lambda pair: pair[1], default=None)


def price(unit: Unit, *, more: bool) -> float | None:
    """Return what the unit's best larger level buys, or its best smaller one costs [nat/byte].

    Best is the steepest fall of KL per byte upwards, the least rise per byte saved downwards.
    """
    if unit.kl is None or unit.nbytes is None:
        return None
    found = [
        (unit.kl - option.kl) / (option.nbytes - unit.nbytes)
        for option in unit.options
        if option.kl is not None
        and option.nbytes is not None
        and (option.nbytes - unit.nbytes) * (1 if more else -1) > 0
    ]
    return (max if more else min)(found, default=None)
