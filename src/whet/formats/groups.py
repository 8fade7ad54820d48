"""A matrix seen as groups of weights that share a scale, and the contest for their best scales."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Near = Callable[[Tensor, Tensor | None], Tensor]  # ratios w / scale, zero points -> nearest units
Sums = Float[Tensor, "#rows #groups"]

PART = 1 << 18  # weights looked at together [weight]: what fits a core's cache


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Some rows cut into groups, the last one filled up with zeros of no weight.

    `parts` has more than one entry only where the whole matrix is one group (`pooled`).
    """

    parts: tuple[Float[Tensor, "rows groups size"], ...]
    weights: Float[Tensor, "1 groups size"] | None
    pooled: bool

    def extremes(self, quantile: float = 1.0) -> tuple[Sums, Sums]:
        """Return the least and the greatest weight, or their quantiles, on either side of zero."""
        ends = [_ends(part, quantile) for part in self._whole(quantile)]
        low, high = (torch.cat(side) for side in zip(*ends, strict=True))
        if self.pooled:
            low, high = low.amin(0, keepdim=True), high.amax(0, keepdim=True)
        return low.clamp(max=0), high.clamp(min=0)

    def total(self, of_parts: Iterable[Float[Tensor, "*many rows groups"]]) -> Tensor:
        """Return sums over each group from those of each part."""
        if not self.pooled:
            return next(iter(of_parts))
        sums = [part.double().sum((-2, -1), keepdim=True) for part in of_parts]
        return torch.stack(sums).sum(0)

    def loss(self, near: Near, scale: Sums, zero: Sums | None) -> Sums:
        """Return the (weighted) squared error of rounding with these parameters."""
        s, z = scale.unsqueeze(-1), None if zero is None else zero.unsqueeze(-1)
        errors = (near(part / s, z).mul_(s).sub_(part).square_() for part in self.parts)
        weighted = errors if self.weights is None else (e.mul_(self.weights) for e in errors)
        return self.total(error.sum(-1) for error in weighted)

    def moments(
        self, near: Near, scale: Sums, zero: Sums | None
    ) -> Float[Tensor, "5 #rows #groups"]:
        """Return the (weighted) sums of 1, u, uu, w and uw, where u is the unit of each w."""
        s, z = scale.unsqueeze(-1), None if zero is None else zero.unsqueeze(-1)
        return self.total(_moments(part, near(part / s, z), self.weights) for part in self.parts)

    def _whole(self, quantile: float) -> tuple[Tensor, ...]:
        """Return the parts, as one where a quantile of the whole matrix is asked for."""
        if self.pooled and quantile < 1:
            return (torch.cat([part.reshape(1, 1, -1) for part in self.parts], -1),)
        return self.parts


def _moments(
    part: Float[Tensor, "rows groups size"],
    unit: Float[Tensor, "rows groups size"],
    weights: Float[Tensor, "1 groups size"] | None,
) -> Float[Tensor, "5 rows groups"]:
    """Return the (weighted) sums of 1, u, uu, w and uw over each group of a part."""
    known = torch.ones_like(part) if weights is None else weights.expand_as(part)
    weighted = unit * known
    terms = known, weighted, weighted * unit, part * known, part * weighted
    return torch.stack([term.sum(-1) for term in terms])


def _ends(
    part: Float[Tensor, "rows groups size"], quantile: float
) -> tuple[Float[Tensor, "rows groups"], Float[Tensor, "rows groups"]]:
    if quantile >= 1:
        low, high = part.aminmax(dim=-1)
        return low, high
    spare = round((1 - quantile) * part.shape[-1])  # how many weights may lie beyond, at each end
    last = part.shape[-1] - spare
    return part.kthvalue(spare + 1, -1).values, part.kthvalue(max(last, 1), -1).values


@dataclass(slots=True, eq=False)
class Contest:
    """The best parameters of each group so far; of equals the first stays.

    Law: an offer never raises a loss.
    """

    groups: Groups
    near: Near
    criterion: Callable[[Sums, Sums | None], Sums]
    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    scale: Tensor = field(default_factory=lambda: torch.empty(0))
    zero: Tensor | None = None

    def offer(
        self, scale: Sums, zero: Sums | None = None, allowed: Bool[Tensor, "..."] | None = None
    ) -> None:
        """Try parameters on every group where they are allowed."""
        loss = self.criterion(scale, zero)
        if allowed is not None:
            loss = loss.masked_fill(~allowed, torch.inf)
        if not self.loss.numel():
            self.loss, self.scale, self.zero = loss, scale, zero
            return
        better = loss < self.loss
        self.loss = torch.where(better, loss, self.loss)
        self.scale = torch.where(better, scale, self.scale)
        if zero is not None and self.zero is not None:
            self.zero = torch.where(better, zero, self.zero)

    def pair(self) -> tuple[Sums, Sums]:
        """Return the best scale and zero point."""
        assert self.zero is not None
        return self.scale, self.zero


def cut(
    weight: Float[Tensor, "out in"],
    size: int,
    importance: Float[Tensor, "in"] | None,
    *,
    pooled: bool,
) -> Iterator[Groups]:
    """Yield the groups of a matrix, some rows at a time, or once for one pooled group."""
    rows, inputs = weight.shape
    step = max(1, PART // max(inputs, 1))
    filled = -inputs % size
    weights = None
    if importance is not None or filled:
        known = torch.ones(inputs, device=weight.device) if importance is None else importance
        weights = torch.nn.functional.pad(known.float(), (0, filled)).reshape(1, -1, size)
    parts = (
        torch.nn.functional.pad(weight[start : start + step].float(), (0, filled)).reshape(
            -1, (inputs + filled) // size, size
        )
        for start in range(0, rows, step)
    )
    if pooled:
        yield Groups(tuple(parts), weights, pooled)
    else:
        yield from (Groups((part,), weights, pooled) for part in parts)
