"""Several processes that train one model together: each takes some of the parts of a step.

Started by `torchrun`; gradients are added up by all processes after the backward pass (data
parallelism, arXiv:2006.15704), so that all of them take the same step.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn

from whet.base.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Team:
    """This process's number among `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> "Team":
        """Return the team that `torchrun` has started, or this process alone."""
        if not distributed.is_available() or "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Return whether this process writes what all of them know."""
        return self.rank == 0

    def share(self, parts: int) -> range:
        """Return the parts of a step that are this process's own."""
        if parts % self.size:
            raise RecipeError(
                f"a step of {parts} parts cannot be shared by {self.size} processes",
                f"Set parts to a multiple of {self.size}.",
            )
        each = parts // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def agreed(self, *, asked: bool) -> bool:
        """Return whether any process was asked; so all of them stop before the same step."""
        if self.size == 1:
            return asked
        whole = torch.tensor(float(asked))
        distributed.all_reduce(whole)
        return bool(whole)

    def summed(self, value: float, parameters: Iterable[nn.Parameter]) -> float:
        """Return the sum of a number over all processes, and add up their gradients in place."""
        if self.size == 1:
            return value
        whole = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(whole)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
        return float(whole)
