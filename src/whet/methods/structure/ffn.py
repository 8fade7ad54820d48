"""A narrower feed-forward layer: the least needed channels of each block go, the rest is refitted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Gram
from whet.calibrate.walk import Stop, walk
from whet.formats.spec import Float
from whet.formats.weight import Weight
from whet.methods.solve.removal import Criterion, Removal, removal
from whet.methods.solve.target import aimed, needed
from whet.model.architecture import Architecture
from whet.model.config import Config
from whet.model.cut import Cutting, Piece
from whet.model.family import find
from whet.model.fields import resized
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task

Facts = dict[str, dict[str, Quantity]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffn(ModelPass):
    """Remove a share of the channels of every feed-forward layer; the other weights make up for them.

    The channels of least cost go, as many in every block, so the result is a plain smaller model.
    Source: arXiv:2302.04089 (ZipLM), §3; the fit is that of arXiv:2408.09632 (MoDeGPT), §3.2.
    """

    name: ClassVar[str] = "ffn"

    share: float = field(default=0.25, metadata=says("of the channels to remove [1]"))
    multiple: int = field(default=32, metadata=says("channels are left in multiples of this [1]"))
    criterion: Criterion = field(
        default="obs",
        metadata=says("magnitude, activation (energy), or obs (cost after refitting)"),
    )
    refit: bool = field(default=True, metadata=says("fit the last linear to the channels left"))
    damping: float = field(default=0.01, metadata=says("ridge ÷ mean of the Gram's diagonal [1]"))
    alpha: float = field(
        default=0.5, metadata=says("how far to make up for inputs that have drifted [1]")
    )
    rho: float = field(
        default=0.5, metadata=says("how far to make up for a residual stream that has drifted [1]")
    )
    samples: int = field(default=128, metadata=says("calibration windows [1]"))
    length: int = field(default=512, metadata=says("tokens a window [token]"))

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not 0 < self.share < 1 or self.multiple < 1:
            raise ValueError("share must be between 0 and 1, multiple at least 1")

    def left(self, channels: int) -> int:
        """Return how many channels stay: the nearest multiple, at least one of them."""
        wanted = channels * (1 - self.share)
        return max(1, round(wanted / self.multiple)) * self.multiple

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        for channels in set(_widths(find(config).architecture(config)).values()):
            if self.left(channels) >= channels:
                return (
                    f"of {channels} channels {self.share:.0%} are to go, and "
                    f"{self.multiple} at a time leaves {self.left(channels)}; take another multiple"
                )
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        widths = _widths(family.architecture(config))
        return resized(config, family.name, **{k: self.left(n) for k, n in widths.items()})

    @property
    def _followed(self) -> bool:
        return self.refit and bool(self.alpha or self.rho)

    def run(self, task: Task) -> Outcome:
        """Return the model with fewer channels."""
        facts: Facts = {}
        return Outcome(self._tensors(task, facts), facts=facts)

    def _tensors(self, task: Task, facts: Facts) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, self.config(task.source.config))
        ids = task.windows(self.samples, min(self.length, cutting.old.context))
        for stop in walk(task.source, ids, task.work, followed=self._followed):
            task.heed(stop.layer / cutting.old.layers, f"block {stop.layer + 1}")
            yield from cutting.block(stop.layer, self._cut(stop, facts))

    def _cut(self, stop: Stop, facts: Facts) -> Piece:
        """Choose the channels of a block, and refit its last linears."""
        kept: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for site in stop.block.sites:
            if not site.role.endswith(".down"):
                continue
            done = self._removal(stop, site.role, site.tap)
            stop.block.linears[site.role].replace(_float(done.weight))
            prefix = site.role.removeprefix("mlp.").removesuffix("down")
            kept[f"{prefix}ffn"] = done.kept
            weights[site.role] = done.weight
            facts[site.module] = _facts(done)
        return Piece(stop.layer, kept, weights)

    def _removal(self, stop: Stop, role: str, tap: str) -> Removal:
        weight = stop.block.linears[role].weight.dense()
        seen = stop.look(tap, *(needed(self.alpha, self.rho) if self.refit else (Gram,)))
        if self.refit:
            weight = aimed(weight, seen, self.alpha, self.rho, self.damping)
        cost = _makers(stop, role.removesuffix("down"))
        keep = self.left(weight.shape[1])
        return removal(
            weight,
            seen[Gram].mean(),
            keep,
            self.criterion,
            refit=self.refit,
            damping=self.damping,
            cost=cost,
        )


def _widths(arch: Architecture) -> dict[str, int]:
    """Return the channels of feed-forward layers, by what `fields` calls them."""
    found = {"ffn": arch.ffn}
    if arch.experts is not None:
        dense = len(arch.experts.layers) < arch.layers
        found = ({"ffn": arch.ffn} if dense else {}) | {"expert_ffn": arch.experts.ffn}
    return found


def _makers(stop: Stop, prefix: str) -> Tensor:
    """Return the squares of the rows that make each channel."""
    total = torch.zeros(stop.block.linears[f"{prefix}down"].shape[1])
    for name in ("gate", "up", "gate_up"):
        linear = stop.block.linears.get(f"{prefix}{name}")
        if linear is not None:
            total += linear.weight.dense().square().sum(1).view(-1, len(total)).sum(0)
    return total


def _float(value: Tensor) -> Weight:
    return Weight(Float("F32"), {"value": value}, (value.shape[0], value.shape[1]))


def _facts(done: Removal) -> dict[str, Quantity]:
    how = "‖W'x−Wx‖² ÷ ‖Wx‖² on the calibration tokens"
    return {
        "kept": Quantity(len(done.kept), "1", "channels that stay"),
        "output_error": Quantity(done.error, "1", how),
        "output_error_plain": Quantity(done.plain, "1", f"{how}, nothing refitted"),
    }
