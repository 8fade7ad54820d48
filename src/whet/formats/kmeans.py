"""Levels of least weighted squared error for numbers on a line, many rows at once.

Sorted rows and running sums make the error of any stretch of numbers a matter of three
differences. The borders are the best among some candidates, found exactly by dynamic programming;
then levels and borders are moved in turn until they rest. Numbers with no more distinct values than
there are levels get these values, exactly.

Sources: S. Lloyd, "Least squares quantization in PCM" (1982); H. Wang and M. Song, "Ckmeans.1d.dp"
(2011); the weights are those of SqueezeLLM (arXiv:2306.07629, section 4.1).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

STEPS = 60  # at most; rows settle earlier
CANDIDATES = 128  # borders that are looked at in a row
MANY = 32  # more levels than this start from equal shares
SEVERAL = 1 << 20  # stretches looked at together; bounds the memory of many rows


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Sorted numbers of each row and the running sums of their weights and moments."""

    x: Float[Tensor, "rows n"]
    mass: Float[Tensor, "rows more"]
    first: Float[Tensor, "rows more"]
    second: Float[Tensor, "rows more"]

    def rows(self, some: slice) -> "Line":
        """Return some rows alone."""
        return Line(self.x[some], self.mass[some], self.first[some], self.second[some])

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
        return self.second[:, -1:] + (wide * (wide * mass - 2 * first)).sum(1, keepdim=True)


def line(x: Float[Tensor, "rows n"], weights: Float[Tensor, "#rows n"]) -> Line:
    """Sort the numbers of each row."""
    ordered, order = x.sort(dim=1)
    mass = weights.expand_as(x).gather(1, order).double()
    first = mass * ordered
    running = (torch.nn.functional.pad(m.cumsum(1), (1, 0)) for m in (mass, first, first * ordered))
    return Line(ordered.contiguous(), *running)


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
    at: Line, codes: int, ends: tuple[float | None, float | None], start: Tensor | None = None
) -> Float[Tensor, "rows codes"]:
    """Return levels of little error; `ends` says where the outermost stay, if they do.

    `start` is where to begin, when not from the best borders. Rows of few distinct numbers get
    these numbers instead.
    """
    pinned = torch.zeros(codes, dtype=torch.bool)
    pinned[[0, -1]] = torch.tensor([end is not None for end in ends])
    size = min(CANDIDATES if len(at.x) > 1 else 4 * CANDIDATES, at.x.shape[1])
    step = max(1, SEVERAL // (size + 1) ** 2)
    if start is None:
        pieces = [at.rows(slice(a, a + step)) for a in range(0, len(at.x), step)]
        start = torch.cat([_divided(piece, codes, size, ends) for piece in pieces])
    few, values = _distinct(at.x, codes)
    start = start.clamp(*ends) if pinned.any() else start
    return torch.where(few, values, settled(at, start, pinned))


def _divided(
    at: Line, codes: int, size: int, ends: tuple[float | None, float | None]
) -> Float[Tensor, "rows codes"]:
    """Return the means between the best of `size` candidate borders."""
    places = torch.linspace(0, at.x.shape[1], size + 1).round().long()
    if codes <= MANY:
        cuts = places[_borders(at, places, codes, ends)]
    else:
        cuts = torch.linspace(0, at.x.shape[1], codes + 1).round().long().expand(len(at.x), -1)
    held, moment = (sums.gather(1, cuts).diff(dim=1) for sums in (at.mass, at.first))
    nearest = at.x.gather(1, cuts[:, :-1].clamp(max=at.x.shape[1] - 1)).double()
    levels = torch.where(held > 0, moment / held, nearest).float().sort(1).values
    for place, end in zip((0, -1), ends, strict=True):
        if end is not None:
            levels[:, place] = end
    return levels


def _borders(
    at: Line,
    places: Int64[Tensor, "places"],
    codes: int,
    ends: tuple[float | None, float | None],
) -> Int64[Tensor, "rows borders"]:
    """Return which places divide each row into stretches of least error, by dynamic programming."""
    mass, first, second = (
        sums[:, None, places] - sums[:, places, None] for sums in (at.mass, at.first, at.second)
    )  # of the stretch from one place [dim 1] to another [dim 2]
    backward = torch.ones(mass.shape[1:]).tril(-1).bool()
    error = second - first.square() / mass.clamp(min=torch.finfo(mass.dtype).tiny)
    error = error.clamp_(min=0).masked_fill_(backward, torch.inf)
    lowest, highest = ends
    least = error[:, 0]
    if lowest is not None:  # an outermost level may be no mean
        least = (second - 2 * lowest * first + lowest**2 * mass)[:, 0]
    chosen = list[Tensor]()
    for k in range(1, codes):
        if highest is not None and k == codes - 1:
            error = second - 2 * highest * first + highest**2 * mass
            error = error.masked_fill_(backward, torch.inf)
        least, before = (least[:, :, None] + error).min(dim=1)
        chosen.append(before)
    borders = [torch.full((len(at.x), 1), len(places) - 1)]
    for before in reversed(chosen):
        borders.append(before.gather(1, borders[-1]))
    return torch.cat([torch.zeros_like(borders[0]), *reversed(borders)], 1)


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
