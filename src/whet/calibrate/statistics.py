"""Sums over calibration tokens. Each is a monoid: merging halves equals seeing the whole."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from whet.kernels.gram import Factor, add_gram, add_product, strip


@dataclass(frozen=True, eq=False)
class Seen:
    """The same tokens at one tap, as the compressed and as the uncompressed model see them.

    `x` is what the linears read; `reference` (x̃) the same in the uncompressed model;
    `drift` is r̃ - r, r being the residual stream that their output will be added to.
    """

    x: Float[Tensor, "tokens in"]
    reference: Float[Tensor, "tokens in"] | None = None
    drift: Float[Tensor, "tokens out"] | None = None

    @cached_property
    def factor(self) -> Factor:
        """The inputs as a factor of products; statistics share what it is rounded to."""
        return Factor(self.x.float())


class Statistic(ABC):
    """Something accumulated from the inputs of one tap.

    Law: `merge` is associative and commutative up to rounding; a split sees what the whole sees.
    """

    pairs: bool = False  # reads `reference` or `drift`, so the uncompressed model must be followed
    tokens: int  # that it has accounted for

    @abstractmethod
    def __init__(self, channels: int) -> None:
        """Start from no tokens."""

    @abstractmethod
    def add(self, seen: Seen) -> None:
        """Account for some tokens."""

    @abstractmethod
    def merge(self, other: "Statistic") -> None:
        """Account for what another instance has seen."""


class Gram(Statistic):
    """Mean outer product of the inputs, H = E[x xᵀ] [activation unit squared]."""

    def __init__(self, channels: int) -> None:
        self.total = torch.zeros(channels, channels)
        self.tokens = 0

    def add(self, seen: Seen) -> None:
        """Account for some tokens; of a wide matrix only the lower triangle is summed."""
        add_gram(self.total, seen.factor)
        self.tokens += len(seen.x)

    def merge(self, other: Statistic) -> None:
        """Account for what another instance has seen."""
        assert isinstance(other, Gram)
        self.total += other.total
        self.tokens += other.tokens

    def mean(self) -> Float[Tensor, "in in"]:
        """Return H, symmetric."""
        return self.symmetric() / max(self.tokens, 1)

    def symmetric(self) -> Float[Tensor, "in in"]:
        """Return the sum itself, no copy: H times the number of tokens."""
        width = strip(len(self.total))
        for left in range(0, len(self.total), width):
            right = left + width
            self.total[left:right, right:] = self.total[right:, left:right].T
        return self.total

    def diagonal(self) -> Float[Tensor, "in"]:
        """Return the mean square of each channel, the diagonal of H."""
        return self.total.diagonal() / max(self.tokens, 1)


class Cross(Statistic):
    """Mean outer product of drift and input, C = E[(x̃ - x) xᵀ], x̃ the uncompressed input.

    `energy` sums the squares of each channel's drift.
    """

    pairs = True

    def __init__(self, channels: int) -> None:
        self.total, self.energy = torch.zeros(channels, channels), torch.zeros(channels)
        self.tokens = 0

    def add(self, seen: Seen) -> None:
        """Account for some tokens; those without a reference are not seen."""
        if seen.reference is not None:
            drift = Factor(seen.reference.float(), seen.x.float())
            add_product(self.total, drift, seen.factor)
            self.energy += drift.energy()
            self.tokens += len(seen.x)

    def merge(self, other: Statistic) -> None:
        """Account for what another instance has seen."""
        assert isinstance(other, Cross)
        self.total += other.total
        self.energy += other.energy
        self.tokens += other.tokens

    def mean(self) -> Float[Tensor, "in in"]:
        """Return C."""
        return self.total / max(self.tokens, 1)


class Residual(Statistic):
    """Mean outer product of residual drift and input, R = E[(r̃ - r) xᵀ].

    r is what the linear's output is added to, r̃ the same in the uncompressed model. `energy` sums
    the squares of each channel's drift.
    """

    pairs = True

    def __init__(self, channels: int) -> None:
        self.total, self.energy = torch.zeros(0, channels), torch.zeros(0)
        self.tokens = 0

    def add(self, seen: Seen) -> None:
        """Account for some tokens; those whose residual stream is unknown are not seen."""
        if seen.drift is not None:
            self._widen(seen.drift.shape[1])
            drift = Factor(seen.drift.float())
            add_product(self.total, drift, seen.factor)
            self.energy += drift.energy()
            self.tokens += len(seen.x)

    def merge(self, other: Statistic) -> None:
        """Account for what another instance has seen."""
        assert isinstance(other, Residual)
        self._widen(len(other.total))
        other._widen(len(self.total))
        self.total += other.total
        self.energy += other.energy
        self.tokens += other.tokens

    def mean(self) -> Float[Tensor, "out in"]:
        """Return R; it has no rows where no residual stream was known."""
        return self.total / max(self.tokens, 1)

    def _widen(self, rows: int) -> None:
        if not len(self.total):
            self.total, self.energy = torch.zeros(rows, self.total.shape[1]), torch.zeros(rows)


class Energy(Statistic):
    """Size of each channel: mean |x|, mean x² and max |x| [activation unit, its square]."""

    def __init__(self, channels: int) -> None:
        self.magnitude = torch.zeros(channels, dtype=torch.float64)
        self.square = torch.zeros(channels, dtype=torch.float64)
        self.peak = torch.zeros(channels)
        self.tokens = 0

    def add(self, seen: Seen) -> None:
        """Account for some tokens."""
        if len(seen.x):
            size = seen.x.float().abs()
            self.peak = torch.maximum(self.peak, size.amax(0))
            self.magnitude += size.sum(0, dtype=torch.float64)
            self.square += size.square_().sum(0, dtype=torch.float64)
            self.tokens += len(size)

    def merge(self, other: Statistic) -> None:
        """Account for what another instance has seen."""
        assert isinstance(other, Energy)
        self.magnitude += other.magnitude
        self.square += other.square
        self.peak = torch.maximum(self.peak, other.peak)
        self.tokens += other.tokens

    def mean_magnitude(self) -> Float[Tensor, "in"]:
        """Return E|x|."""
        return (self.magnitude / max(self.tokens, 1)).float()

    def mean_square(self) -> Float[Tensor, "in"]:
        """Return E[x²]: the diagonal of H."""
        return (self.square / max(self.tokens, 1)).float()


S = TypeVar("S", bound=Statistic)


class Stats:
    """The statistics gathered at one tap, by type: `stats[Gram].mean()`.

    `tokens` were accounted for; `dropped` names the samples left out since they were not finite.
    """

    def __init__(self, kinds: tuple[type[Statistic], ...], channels: int) -> None:
        self.channels = channels
        self.held = {kind: kind(channels) for kind in kinds}
        self.tokens = 0
        self.dropped: set[int] = set()

    def add(
        self,
        x: Float[Tensor, "tokens in"],
        reference: Float[Tensor, "tokens in"] | None = None,
        drift: Float[Tensor, "tokens out"] | None = None,
    ) -> None:
        """Account for some tokens in every kind."""
        self.tokens += len(x)
        seen = Seen(x, reference, drift)
        for statistic in self.held.values():
            statistic.add(seen)

    def merge(self, other: "Stats") -> None:
        """Account for what another instance has seen. Both must hold the same kinds."""
        for kind, statistic in self.held.items():
            statistic.merge(other.held[kind])
        self.tokens += other.tokens
        self.dropped |= other.dropped

    def __contains__(self, kind: type[Statistic]) -> bool:
        """Return whether a kind was asked for."""
        return kind in self.held

    def __getitem__(self, kind: type[S]) -> S:
        """Return the statistic of a kind that was asked for."""
        found = self.held[kind]
        assert isinstance(found, kind)
        return found
