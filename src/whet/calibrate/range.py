"""What values an activation takes: its extremes and a histogram that widens as it must."""

from math import frexp

import torch
from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Seen, Statistic

BINS = 4096  # over [-reach, reach)
SMALLEST = 2.0**-100


class Range(Statistic):
    """Least and greatest value, and how often each value between them was seen [activation unit].

    The histogram spans ±`reach`, a power of two, so that widening it merges whole bins.
    Law: the order of merging changes nothing at all.
    """

    def __init__(self, channels: int) -> None:
        self.low = 0.0
        self.high = 0.0
        self.reach = SMALLEST
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.tokens = 0

    def add(self, seen: Seen) -> None:
        """Account for some tokens."""
        if seen.x.numel():
            x = seen.x.float()
            low, high = (float(v) for v in x.aminmax())
            self.low, self.high = min(self.low, low), max(self.high, high)
            self._widen(power_above(max(-low, high)))
            self.counts += torch.histc(x, BINS, -self.reach, self.reach).double()
            self.tokens += len(x)

    def merge(self, other: Statistic) -> None:
        """Account for what another instance has seen."""
        assert isinstance(other, Range)
        reach = max(self.reach, other.reach)
        self._widen(reach)
        self.counts += coarser(other.counts, other.reach, reach)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.tokens += other.tokens

    def values(self) -> tuple[Float[Tensor, "bins"], Float[Tensor, "bins"]]:
        """Return the centres of the bins that were hit, and how often each was."""
        width = 2 * self.reach / BINS
        centres = (torch.arange(BINS, dtype=torch.float64) + 0.5) * width - self.reach
        hit = self.counts > 0
        return centres[hit], self.counts[hit]

    def _widen(self, reach: float) -> None:
        if reach > self.reach:
            self.counts = coarser(self.counts, self.reach, reach)
            self.reach = reach


def power_above(size: float) -> float:
    """Return the least power of two that is greater than `size`."""
    return max(2.0 ** frexp(size)[1], SMALLEST)


def coarser(counts: Float[Tensor, "bins"], reach: float, wider: float) -> Float[Tensor, "bins"]:
    """Return a histogram over ±`reach` as one over ±`wider`, both powers of two."""
    while reach < wider and counts.any():
        reach *= 2
        inner = counts.view(-1, 2).sum(1)
        outer = torch.zeros(BINS // 4, dtype=counts.dtype)
        counts = torch.cat((outer, inner, outer))
    return counts
