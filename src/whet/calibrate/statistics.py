"""Sums over calibration tokens. Each is a monoid: merging halves equals seeing the whole."""

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor


class Statistic(ABC):
    """Something accumulated from the inputs of one tap.

    `reference` is the same activation in the uncompressed model (`None` where it is not followed).
    Law: `merge` is associative and commutative up to rounding; a split sees what the whole sees.
    """

    pairs: bool = False  # needs `reference`

    @abstractmethod
    def __init__(self, channels: int) -> None:
        """Start from no tokens."""

    @abstractmethod
    def add(
        self,
        x: Float[Tensor, "tokens in"],
        reference: Float[Tensor, "tokens in"] | None = None,
    ) -> None:
        """Account for some tokens."""

    @abstractmethod
    def merge(self, other: "Statistic") -> None:
        """Account for what another instance has seen."""


class Gram(Statistic):
    """Mean outer product of the inputs, H = E[x xᵀ] [activation unit squared]."""

    def __init__(self, channels: int) -> None:
        self.total = torch.zeros(channels, channels)
        self.tokens = 0

    def add(
        self,
        x: Float[Tensor, "tokens in"],
        reference: Float[Tensor, "tokens in"] | None = None,
    ) -> None:
        """Account for some tokens."""
        self.total.addmm_(x.T, x)
        self.tokens += len(x)

    def merge(self, other: Statistic) -> None:
        """Account for what another instance has seen."""
        assert isinstance(other, Gram)
        self.total += other.total
        self.tokens += other.tokens

    def mean(self) -> Float[Tensor, "in in"]:
        """Return H."""
        return self.total / max(self.tokens, 1)


class Cross(Statistic):
    """Mean outer product of drift and input, C = E[(x̃ − x) xᵀ], x̃ the uncompressed model's input."""

    pairs = True

    def __init__(self, channels: int) -> None:
        self.total = torch.zeros(channels, channels)
        self.tokens = 0

    def add(
        self,
        x: Float[Tensor, "tokens in"],
        reference: Float[Tensor, "tokens in"] | None = None,
    ) -> None:
        """Account for some tokens."""
        assert reference is not None
        self.total.addmm_((reference - x).T, x)
        self.tokens += len(x)

    def merge(self, other: Statistic) -> None:
        """Account for what another instance has seen."""
        assert isinstance(other, Cross)
        self.total += other.total
        self.tokens += other.tokens

    def mean(self) -> Float[Tensor, "in in"]:
        """Return C."""
        return self.total / max(self.tokens, 1)


S = TypeVar("S", bound=Statistic)


class Stats:
    """The statistics gathered at one tap, by type: `stats[Gram].mean()`."""

    def __init__(self, kinds: tuple[type[Statistic], ...], channels: int) -> None:
        self.held = {kind: kind(channels) for kind in kinds}
        self.tokens = 0

    def add(self, x: Float[Tensor, "tokens in"], reference: Tensor | None = None) -> None:
        """Account for some tokens in every kind."""
        self.tokens += len(x)
        for statistic in self.held.values():
            statistic.add(x, reference)

    def __getitem__(self, kind: type[S]) -> S:
        """Return the statistic of a kind that was asked for."""
        found = self.held[kind]
        assert isinstance(found, kind)
        return found
