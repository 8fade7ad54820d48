"""Fewer attention heads: key-value heads go with the query heads that read them."""

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
from whet.model import fields
from whet.model.axes import positions, sizes
from whet.model.config import Config
from whet.model.cut import Cutting, Piece
from whet.model.family import find
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task

Facts = dict[str, dict[str, Quantity]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads(ModelPass):
    """Keep some key-value heads of each block, with the query heads that read them.

    Heads stay whole, so their rotary pairs do too; as many stay in every block. The output
    projection is refitted to what is left. Source: arXiv:2302.04089 (ZipLM), §3.
    """

    name: ClassVar[str] = "heads"

    keep: int = field(metadata=says("key-value heads that stay in each block [1]"))
    criterion: Criterion = field(
        default="obs",
        metadata=says("magnitude, activation (energy), or obs (cost after refitting)"),
    )
    refit: bool = field(default=True, metadata=says("fit the output projection to what is left"))
    damping: float = field(default=0.01, metadata=says("ridge ÷ mean of the Gram's diagonal [1]"))
    alpha: float = field(
        default=0.5, metadata=says("how far to make up for inputs that have drifted [1]")
    )
    rho: float = field(
        default=0.5, metadata=says("how far to make up for a residual stream that has drifted [1]")
    )
    samples: int = field(default=128, metadata=says("calibration windows [1]"))
    length: int = field(default=512, metadata=says("tokens a window [token]"))

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        family = find(config)
        arch = family.architecture(config)
        heads = arch.kv_heads
        if fields.field(family.name, "head_dim") is None:
            return f"in {family.name}, heads share out all channels, so none can be left out"
        if not 0 < self.keep < heads:
            return f"it has {heads} key-value heads, so 1 to {heads - 1} can stay, not {self.keep}"
        odd = family.name in fields.WHOLE_HEADS and arch.hidden % (self.keep * arch.group)
        if odd and (family.name != "llama" or arch.biases):
            return (
                f"transformers wants its {arch.hidden} channels to be a multiple of the heads, "
                f"and {self.keep * arch.group} would stay"
            )
        return None

    def config(self, config: Config) -> Config:
        """Return the config.json of the result."""
        family = find(config)
        arch = family.architecture(config)
        heads = self.keep * arch.group
        if family.name == "llama" and arch.hidden % heads:
            config = fields.as_mistral(config, None)  # the same model, and any number of heads
        return fields.resized(
            config, family.name, heads=heads, kv_heads=self.keep, head_dim=arch.head_dim
        )

    @property
    def _followed(self) -> bool:
        return self.refit and bool(self.alpha or self.rho)

    def run(self, task: Task) -> Outcome:
        """Return the model with fewer heads."""
        facts: Facts = {}
        return Outcome(self._tensors(task, facts), facts=facts)

    def _tensors(self, task: Task, facts: Facts) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, self.config(task.source.config))
        ids = task.windows(self.samples, min(self.length, cutting.old.context))
        for stop in walk(task.source, ids, task.work, followed=self._followed):
            task.heed(stop.layer / cutting.old.layers, f"block {stop.layer + 1}")
            yield from cutting.block(stop.layer, self._cut(stop, facts))

    def _cut(self, stop: Stop, facts: Facts) -> Piece:
        """Choose the heads of a block, and refit its output projection."""
        linear, arch = stop.block.linears["attn.o"], stop.block.arch
        weight = linear.weight.dense()
        seen = stop.look("attn.out", *(needed(self.alpha, self.rho) if self.refit else (Gram,)))
        if self.refit:
            weight = aimed(weight, seen, self.alpha, self.rho, self.damping)
        done = removal(
            weight,
            seen[Gram].mean(),
            self.keep,
            self.criterion,
            size=arch.group * arch.head_dim,
            refit=self.refit,
            damping=self.damping,
            cost=_makers(stop),
        )
        shape = (weight.shape[0], weight.shape[1])
        linear.replace(Weight(Float("F32"), {"value": done.weight}, shape))
        site = next(s for s in stop.block.sites if s.role == "attn.o")
        facts[site.module] = _facts(done)
        return Piece(stop.layer, {"kv": done.kept}, {"attn.o": done.weight})


def _makers(stop: Stop) -> Tensor:
    """Return the squares of the rows that make each key-value head and its queries."""
    arch = stop.block.arch
    total = torch.zeros(arch.kv_heads)
    for site in stop.block.sites:
        if site.tap == "attn.in":
            rows = stop.block.linears[site.role].weight.dense().square().sum(1)
            for head in range(arch.kv_heads):
                own = positions(site.out, sizes(arch, arch.ffn), {"kv": torch.tensor([head])})
                assert own is not None
                total[head] += rows[own].sum()
    return total


def _facts(done: Removal) -> dict[str, Quantity]:
    how = "‖W'x−Wx‖² ÷ ‖Wx‖² on the calibration tokens"
    return {
        "kept": Quantity(len(done.kept), "1", "key-value heads that stay"),
        "output_error": Quantity(done.error, "1", how),
        "output_error_plain": Quantity(done.plain, "1", f"{how}, nothing refitted"),
    }
