"""The nearest of some ascending levels: one rule, the same everywhere.

A value half-way between two levels goes to the one whose place, counted from the level at zero, is
even. For integers and floating-point levels that is IEEE's round-half-to-even.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

CELLS = 1 << 16  # longest table of cells; levels that need a longer one are searched by bisection


def bounds(levels: Float[Tensor, "*tables codes"], origin: int) -> Float[Tensor, "*tables gaps"]:
    """Return the greatest float32 that still belongs to each level but the last.

    `origin` is the place of zero, from which places are counted.
    """
    exact = (levels[..., 1:].double() + levels[..., :-1].double()) / 2
    low = torch.tensor(-torch.inf, device=levels.device)
    middle = exact.float()
    middle = torch.where(middle.double() > exact, torch.nextafter(middle, low), middle)
    upper = torch.arange(1, levels.shape[-1], device=levels.device) - origin
    goes_up = (middle.double() == exact) & (upper % 2 == 0)
    return torch.where(goes_up, torch.nextafter(middle, low), middle)


class Lookup:
    """Nearest-level search in one table.

    The axis is cut into even cells, each with at most one bound inside, so that a value's cell and
    one comparison give its level. Law: equal to bisection for every float32.
    """

    def __init__(self, levels: Float[Tensor, "codes"]) -> None:
        self.levels = levels
        self.bounds = bounds(levels, int(levels.abs().argmin()))
        self.cells = 0
        span = float(self.bounds[-1] - self.bounds[0]) if len(self.bounds) > 1 else 1.0
        while self.cells < CELLS and not self._cut(max(16, 2 * self.cells), span):
            pass

    def _cut(self, cells: int, span: float) -> bool:
        """Cut the axis into cells; return whether no two bounds share one."""
        self.cells = cells
        self.rate = (cells - 2) / span
        self.start = 0.5 - float(self.bounds[0]) * self.rate
        home = self._cell(self.bounds)
        self.split = bool((home.diff() > 0).all())
        if self.split:
            self.bound = torch.full((cells,), torch.inf)
            self.bound[home] = self.bounds
            passed = torch.zeros(cells, dtype=torch.int64)
            passed[home] = 1
            below = passed.cumsum(0) - passed
            self.lower = self.levels[below]
            self.upper = self.levels[below + passed]
        return self.split

    def _cell(self, x: Float[Tensor, "..."]) -> Tensor:
        return x.mul(self.rate).add_(self.start).clamp_(0, self.cells - 1).to(torch.int32)

    def nearest(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the level nearest to each value."""
        if not self.split:
            return self.levels[torch.bucketize(x, self.bounds)]
        cell = self._cell(x).reshape(-1)
        above = x.reshape(-1) > self.bound.index_select(0, cell)
        lower, upper = self.lower.index_select(0, cell), self.upper.index_select(0, cell)
        return torch.where(above, upper, lower).reshape(x.shape)

    def places(self, units: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
        """Return which level each unit is, 0 for the lowest."""
        return torch.bucketize(units, self.levels).to(torch.uint8)


@lru_cache(maxsize=256)
def lookup(levels: tuple[float, ...]) -> Lookup:
    """Return the search in a table, made once for each."""
    return Lookup(torch.tensor(levels))
