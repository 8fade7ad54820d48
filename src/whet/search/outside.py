"""What a level of the embedding or of the head costs; an embedding may be the head as well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from whet.calibrate.backward import ROWS
from whet.calibrate.statistics import Gram, Stats
from whet.formats.activation import Activation
from whet.formats.spec import Float as Plain
from whet.formats.weight import Weight
from whet.model import decoder
from whet.model.architecture import Architecture
from whet.model.family import find
from whet.model.linear import Linear
from whet.model.source import Source
from whet.search.gradients import Gradients
from whet.search.unit import Unit

EVERY = 4  # of so many tokens one is judged: what is computed exactly needs few


@dataclass(frozen=True, eq=False)
class Outside:
    """What lies in no block of a model."""

    source: Source
    gradients: Gradients

    @cached_property
    def _arch(self) -> Architecture:
        return find(self.source.config).architecture(self.source.config, self.source.names())

    def statistics(self, unit: Unit) -> Stats:
        """Return the Gram matrix of what the head multiplies; an embedding multiplies nothing."""
        site = unit.sites[0]
        if unit.table:
            return Stats((), site.shape[1])
        head, stats = self._head(), Stats((Gram,), site.shape[1])
        for _, hidden in self.gradients.leaving().chunks(8):
            stats.add((hidden if head.norm is None else head.norm(hidden)).flatten(0, -2))
        return stats

    def cost(self, unit: Unit, weight: Weight, rounding: Activation | None = None) -> float:
        """Return the KL divergence that another weight costs [nat per token].

        `rounding` is how the head's input is rounded for it.
        """
        looked_up = self._looked_up(unit, weight) if unit.table else 0.0
        multiplied = (
            self._multiplied(weight, rounding) if not unit.table or self._arch.tied else 0.0
        )
        return looked_up + multiplied

    def _looked_up(self, unit: Unit, weight: Weight) -> float:
        """Return half the mean square of gᵀΔe over the tokens [nat], e being what is looked up."""
        delta = weight.dense() - self.source.weight(unit.sites[0]).dense()
        moved = delta[self.gradients.ids] * self._arch.embedding_scale
        change = (moved * self.gradients.entering()).sum(-1)
        return float(change.double().square().mean()) / 2

    def _multiplied(self, weight: Weight, rounding: Activation | None) -> float:
        """Return the KL divergence of what another head says of the same states [nat]."""
        say, lost, count = self._speaker(weight, rounding), 0.0, 0
        for rows, log in self._said:
            lost += float((log.exp() * (log - say(rows))).double().sum())
            count += len(rows)
        return lost / count

    @cached_property
    def _said(self) -> Sequence[tuple[Tensor, Tensor]]:
        """Return some of what the head reads, and what it says: log-probabilities."""
        say = self._speaker(self._head().linear.weight, None)
        hidden = torch.cat([part[0][::EVERY] for _, part in self.gradients.leaving().chunks(1)])
        return [(rows, say(rows)) for rows in hidden.split(ROWS)]

    def _speaker(
        self, weight: Weight, rounding: Activation | None
    ) -> Callable[[Float[Tensor, "rows hidden"]], Float[Tensor, "rows vocab"]]:
        """Return what gives the log-probabilities of a head with a weight."""
        head = self._head()
        plain = Weight(Plain("F32"), {"value": weight.dense()}, weight.shape)
        head.linear = Linear(plain, activation=rounding)
        return lambda rows: head(rows).log_softmax(-1)

    def _head(self) -> decoder.Head:
        family = find(self.source.config)
        tied = decoder.embedding(self.source, family, self._arch) if self._arch.tied else None
        return decoder.head(self.source, family, self._arch, tied)
