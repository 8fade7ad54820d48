"""Levels of least weighted squared error for numbers on a line, many rows at once.

Sorted rows and running sums make one step cost the search of the borders alone. Numbers with no
more distinct values than there are levels get these values, exactly. Sources: S. Lloyd, "Least
squares quantization in PCM" (1982); the weights are those of SqueezeLLM (arXiv:2306.07629, section
4.1).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STEPS = 60  # at most; rows settle earlier


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Sorted numbers of each row and the running sums of their weights and moments."""

    x: Float[Tensor, "rows n"]
    mass: Float[Tensor, "rows more"]
    first: Float[Tensor, "rows more"]
    second: Float[Tensor, "rows 1"]

    def within(
        self, levels: Float[Tensor, "rows codes"]
    ) -> tuple[Float[Tensor, "rows codes"], Float[Tensor, "rows codes"]]:
        """Return weight and moment of what lies nearest to each level; a tie goes down."""
        borders = ((levels[:, 1:] + levels[:, :-1]) / 2).contiguous()
        inner = torch.searchsorted(self.x, borders, right=True)
        edges = torch.nn.functional.pad(inner, (1, 0))
        edges = torch.nn.functional.pad(edges, (0, 1), value=self.x.shape[1])
        return self.mass.gather(1, edges).diff(dim=1), self.first.gather(1, edges).diff(dim=1)

    def loss(self, levels: Float[Tensor, "rows codes"]) -> Float[Tensor, "rows 1"]:
        """Return the squared error of rounding to these levels."""
        mass, first = self.within(levels)
        wide = levels.double()
        return self.second + (wide * (wide * mass - 2 * first)).sum(1, keepdim=True)


def line(x: Float[Tensor, "rows n"], weights: Float[Tensor, "#rows n"]) -> Line:
    """Sort the numbers of each row."""
    ordered, order = x.sort(dim=1)
    mass = weights.expand_as(x).gather(1, order).double()
    first = mass * ordered
    second = (first * ordered).sum(1, keepdim=True)
    running = [torch.nn.functional.pad(sums.cumsum(1), (1, 0)) for sums in (mass, first)]
    return Line(ordered.contiguous(), running[0], running[1], second)


def settled(
    at: Line, start: Float[Tensor, "rows codes"], pinned: Bool[Tensor, "codes"]
) -> Float[Tensor, "rows codes"]:
    """Move levels to the means of what is nearest, until they rest; pinned ones stay.

    Law: the loss never rises.
    """
    levels = start.float()
    for _ in range(STEPS):
        mass, first = at.within(levels)
        means = (first / mass.clamp(min=torch.finfo(mass.dtype).tiny)).float()
        moved = torch.where((mass > 0) & ~pinned, means, levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    return levels


def learned(
    at: Line, starts: list[Float[Tensor, "#rows codes"]], *, ends: bool
) -> Float[Tensor, "rows codes"]:
    """Return the best levels reached from several starts; with `ends` the outermost stay.

    Rows of few distinct numbers get these numbers instead.
    """
    codes = starts[0].shape[1]
    pinned = torch.zeros(codes, dtype=torch.bool)
    if ends:
        pinned[[0, -1]] = True
    best = loss = torch.empty(0)
    for start in starts:
        found = settled(at, start.expand(len(at.x), codes), pinned)
        cost = at.loss(found)
        best = found if not loss.numel() else torch.where(cost < loss, found, best)
        loss = cost if not loss.numel() else torch.minimum(cost, loss)
    few, values = _distinct(at.x, codes)
    return torch.where(few, values, best)


def _distinct(
    x: Float[Tensor, "rows n"], codes: int
) -> tuple[Bool[Tensor, "rows 1"], Float[Tensor, "rows codes"]]:
    """Return which sorted rows have few distinct numbers, and these, the last one repeated."""
    fresh = torch.nn.functional.pad((x[:, 1:] != x[:, :-1]).long(), (1, 0))
    place = fresh.cumsum(1)
    values = x[:, -1:].repeat(1, codes)
    values.scatter_(1, place.clamp(max=codes - 1), x)
    values[:, -1] = x[:, -1]
    return place[:, -1:] < codes, values
