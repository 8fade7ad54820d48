"""Intervals: bootstrap over documents, and order statistics for medians. Needs numpy only.

Tokens of one document resemble each other, so documents are what is drawn again, not tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 2000
NORMAL = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and the interval that it lies in; without ends where one cannot be known."""

    value: float
    low: float | None = None
    high: float | None = None


def bootstrap(
    sums: Mapping[str, Numbers],
    statistics: Mapping[str, Callable[[Mapping[str, Numbers]], Numbers]],
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Return each statistic with its percentile interval (Efron & Tibshirani 1993, §13.3).

    `sums` holds a sum for each document; a statistic is a function of their totals, e.g. a ratio,
    and works on arrays. All see the same resamples, so that the difference of two is paired.

    Law: the interval covers the truth about as often as `confidence` says.
    Law: a paired difference of alike samples has a narrower interval than an unpaired one.
    Law: deterministic by seed; the order of documents does not matter to the value.
    """
    whole = {name: values.sum(keepdims=True) for name, values in sums.items()}
    found = {name: float(statistic(whole)[0]) for name, statistic in statistics.items()}
    documents = len(next(iter(sums.values())))
    if documents < 2:
        return {name: Interval(value) for name, value in found.items()}
    drawn = {name: np.empty(resamples) for name in sums}
    chance = np.random.default_rng(seed)
    for index in range(resamples):
        often = np.bincount(chance.integers(documents, size=documents), minlength=documents)
        for name, values in sums.items():
            drawn[name][index] = often @ values
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    spans = {name: np.quantile(s(drawn), ends) for name, s in statistics.items()}
    return {
        name: Interval(found[name], float(low), float(high)) for name, (low, high) in spans.items()
    }


def proportion(count: int, total: int) -> Interval:
    """Return a proportion with its 95 % score interval (Wilson 1927, JASA 22).

    Law: the interval lies in [0, 1], and is wider than a point even where `count` is 0 or `total`.
    """
    share, z = count / total, NORMAL
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2) / (1 + z**2 / total)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def matched_difference(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Interval:
    """Return mean(mine) − mean(theirs) of matched answers with its 95 % interval.

    The interval is Wald's after half a pair is added to each cell of the 2 × 2 table (Agresti & Min
    2005, Statistics in Medicine 24, §3): it is no point even where no answer differs.
    """
    gained, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    total = len(mine) + 2
    centre = (gained - lost) / total
    half = NORMAL * sqrt((gained + lost + 1) - (gained - lost) ** 2 / total) / total
    return Interval((gained - lost) / len(mine), max(-1.0, centre - half), min(1.0, centre + half))


def median(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[Interval, float]:
    """Return the median between two order statistics, and how sure that interval is.

    It is the narrowest symmetric pair that is at least as sure as `confidence`, or the extremes
    where there are too few values (David & Nagaraja 2003, §7.1: no assumption on the distribution).

    Law: the interval covers the true median at least as often as it says.
    """
    ordered = np.sort(values)
    count = len(ordered)
    inner = [k for k in range((count + 1) // 2) if _coverage(count, k) >= confidence]
    rank = max(inner, default=0)
    middle = float(np.median(ordered))
    return Interval(middle, float(ordered[rank]), float(ordered[-1 - rank])), _coverage(count, rank)


def _coverage(count: int, rank: int) -> float:
    """Return how likely the median lies between the `rank`-th smallest and largest of `count`."""
    return 1 - 2 * sum(comb(count, below) for below in range(rank + 1)) / 2**count
