"""Fewer experts: in every block those that matter least are dropped.

The criterion by shares counts how often an expert is chosen, weighted by its gate
(arXiv:2606.15716 compares it with others).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Seen, Statistic
from whet.calibrate.walk import Stop, walk
from whet.model.architecture import Experts as Kind
from whet.model.config import Config
from whet.model.cut import Cutting, Piece
from whet.model.family import find
from whet.model.fields import resized
from whet.model.mlp import routes
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task

Facts = dict[str, dict[str, Quantity]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts(ModelPass):
    """Keep some experts of each block; tokens that would have gone to others go to the next best.

    An expert is worth the shares that the router gives it (activation), or its weights (magnitude).
    """

    name: ClassVar[str] = "experts"

    keep: int = field(metadata=says("experts that stay in each block [1]"))
    criterion: Literal["activation", "magnitude"] = field(
        default="activation", metadata=says("activation (shares of the router) or magnitude")
    )
    samples: int = field(default=64, metadata=says("calibration windows [1]"))
    length: int = field(default=512, metadata=says("tokens a window [token]"))

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        experts = find(config).architecture(config).experts
        if experts is None:
            return "it has no experts"
        if not experts.active <= self.keep < experts.count:
            most = experts.count - 1
            return (
                f"of its {experts.count} experts {experts.active} run for each token, so "
                f"{experts.active} to {most} can stay, not {self.keep}"
            )
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        return resized(config, find(config).name, experts=self.keep)

    def run(self, task: Task) -> Outcome:
        """Return the model with fewer experts."""
        facts: Facts = {}
        return Outcome(self._tensors(task, facts), facts=facts)

    def _tensors(self, task: Task, facts: Facts) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, self.config(task.source.config))
        ids = task.windows(self.samples, min(self.length, cutting.old.context))
        for stop in walk(task.source, ids, task.work, budget=task.budget):
            task.heed(stop.layer / cutting.old.layers, f"block {stop.layer + 1}")
            piece = Piece(stop.layer)
            if stop.block.router is not None:
                worth = self._worth(stop)
                kept = worth.argsort(descending=True, stable=True)[: self.keep].sort().values
                piece = Piece(stop.layer, {"expert": kept})
                left = float(worth[kept].sum() / worth.sum())
                told = {"share_kept": Quantity(left, "1", f"of the experts' {self.criterion}")}
                facts[stop.block.names["mlp.router"]] = told
            yield from cutting.block(stop.layer, piece)

    def _worth(self, stop: Stop) -> Tensor:
        """Return what each expert is worth."""
        kind, router = stop.block.arch.experts, stop.block.router
        assert kind is not None
        assert router is not None
        if self.criterion == "activation":
            return _shares(stop, kind, router)
        worth = torch.zeros(kind.count)
        for site in stop.block.sites:
            if ".experts." in site.role:
                weight = stop.block.linears[site.role].weight.dense()
                worth[int(site.role.split(".")[2])] += weight.square().sum()
        return worth


def _shares(stop: Stop, kind: Kind, router: Tensor) -> Tensor:
    """Return the sum of the shares that the router gives to each expert."""

    class Shares(Statistic):
        """What the router of this block gives to each expert."""

        def __init__(self, channels: int) -> None:
            self.worth, self.tokens = torch.zeros(kind.count), 0

        def add(self, seen: Seen) -> None:
            """Account for some tokens."""
            self.tokens += len(seen.x)
            for expert, _, share in routes(kind, router.float(), seen.x.float()):
                self.worth[expert] += share.sum()

        def merge(self, other: Statistic) -> None:
            """Account for what another instance has seen."""
            assert isinstance(other, Shares)
            self.worth += other.worth
            self.tokens += other.tokens

    return stop.look("mlp.in", Shares)[Shares].worth
