"""The nearest of some ascending levels: one rule, the same everywhere.

A value half-way between two levels goes to the one whose place, counted from the level at zero, is
even. For integers and floating-point levels that is IEEE's round-half-to-even.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Int64, UInt8
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


def borders(levels: Float[Tensor, "rows codes"]) -> Float[Tensor, "rows gaps"]:
    """Return the greatest float32 that still belongs to each level but the last of each row."""
    edges = (levels[:, 1:] + levels[:, :-1]).mul_(0.5)
    upward = edges[:, 1::2]  # borders below an even place
    upward.copy_(torch.nextafter(upward, torch.full_like(upward, -torch.inf)))
    return edges


def places(
    x: Float[Tensor, "rows cols"], levels: Float[Tensor, "rows codes"]
) -> Int64[Tensor, "rows cols"]:
    """Return the place of the level nearest to each value, each row having its own levels."""
    codes, edges = levels.shape[1], borders(levels)
    if codes > 16 or x.shape[1] < 64:
        return torch.searchsorted(edges, x.contiguous())
    place, above = torch.zeros_like(x), torch.empty_like(x)
    for k in range(codes - 1):  # compares in long runs are several times faster than bisection
        place += torch.gt(x, edges[:, k : k + 1], out=above)
    return place.long()


class Lookup:
    """Nearest-level search in one table.

    The axis is cut into even cells, each with at most one bound inside, so that a value's cell and
    one comparison give its level. Law: equal to bisection for every float32.
    """

    def __init__(self, levels: Float[Tensor, "codes"]) -> None:
        self.levels = levels
        self.distinct = levels.unique()
        self.bounds = bounds(self.distinct, int(self.distinct.abs().argmin()))
        self.cells, self.split = 0, False
        span = float(self.bounds[-1] - self.bounds[0]) if len(self.bounds) > 1 else 1.0
        while self.cells < CELLS and len(self.bounds) and not self.split:
            self.split = self._cut(max(16, 2 * self.cells), span)

    def _cut(self, cells: int, span: float) -> bool:
        """Cut the axis into cells; return whether no two bounds share one."""
        self.cells = cells
        self.rate = (cells - 2) / span
        self.start = 0.5 - float(self.bounds[0]) * self.rate
        home = self._cell(self.bounds).long()
        if (home.diff() == 0).any():
            return False
        self.bound = torch.full((cells,), torch.inf)
        self.bound[home] = self.bounds
        passed = torch.zeros(cells, dtype=torch.int64)
        passed[home] = 1
        below = passed.cumsum(0) - passed
        self.ends = self.distinct[torch.stack([below, below + passed], 1).reshape(-1)]
        return True

    def _cell(self, x: Float[Tensor, "..."]) -> Tensor:
        return x.mul(self.rate).add_(self.start).clamp_(0, self.cells - 1).floor_()

    def nearest(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the level nearest to each value."""
        if not self.split:
            return self.distinct[torch.bucketize(x, self.bounds)]
        flat = x.reshape(-1)
        cell = self._cell(flat)
        bound = self.bound.index_select(0, cell.long())
        above = torch.gt(flat, bound, out=bound)  # into floats: several times faster than bools
        return self.ends.index_select(0, cell.add_(cell).add_(above).long()).reshape(x.shape)

    def places(self, units: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
        """Return which level each unit is, 0 for the lowest."""
        return torch.bucketize(units, self.levels).to(torch.uint8)


@lru_cache(maxsize=256)
def lookup(levels: tuple[float, ...]) -> Lookup:
    """Return the search in a table, made once for each."""
    return Lookup(torch.tensor(levels))
