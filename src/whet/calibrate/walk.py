"""A walk through a whole model, block by block, for passes that look at one block after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.allocator import retain
from whet.calibrate.carried import Carried
from whet.calibrate.hidden_states import HiddenStates, MemoryBudget, create_states
from whet.calibrate.statistics import Statistic, Stats
from whet.calibrate.sweep import advance, observe
from whet.kernels.arithmetic import arithmetic, usual
from whet.model import decoder
from whet.model.block import Block
from whet.model.family import find
from whet.model.source import Source

TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Stop:
    """A block, and the samples that have come to it. What the block becomes is what they go through.

    `reference` is the block as it was, and `ideals` the samples as they would come to it if no
    block before had been changed: where both are followed.
    """

    layer: int
    block: Block
    samples: Carried
    batch: int
    reference: Block | None = None
    ideals: Carried | None = None

    def look(self, tap: str, *kinds: type[Statistic]) -> Stats:
        """Return statistics of one tap."""
        ideals = self.ideals if any(kind.pairs for kind in kinds) else None
        with arithmetic(usual(self.block.arch.hidden)):
            return observe(self.block, self.reference, self.samples, ideals, tap, kinds, self.batch)

    def entering(self) -> Iterator[Tensor]:
        """Yield what enters the block, some samples at a time."""
        for _, hidden in self.samples.inputs.chunks(self.batch):
            yield hidden

    @torch.no_grad()
    def leaving(self) -> Iterator[Tensor]:
        """Yield what leaves the block as it is now, some samples at a time."""
        for hidden in self.entering():
            with arithmetic(usual(self.block.arch.hidden)):
                left = self.block(hidden)
            yield left

    def onward(self, folder: Path) -> tuple[HiddenStates, HiddenStates | None]:
        """Return what leaves the block as it is now and, if followed, as it was."""
        name, ideals = f"{self.layer + 1:04d}.bin", None
        with arithmetic(usual(self.block.arch.hidden)):
            states = advance(self.block, self.samples, folder / f"hidden-{name}", self.batch)
            if self.reference is not None and self.ideals is not None:
                ideals = advance(self.reference, self.ideals, folder / f"ideal-{name}", self.batch)
        return states, ideals

    def delete(self) -> None:
        """Give the memory of the samples back, and remove their files."""
        for samples in (self.samples, self.ideals):
            if samples is not None:
                samples.delete()


def walk(
    source: Source,
    ids: Int64[Tensor, "samples time"],
    folder: Path,
    *,
    followed: bool = False,
    budget: MemoryBudget | None = None,
) -> Iterator[Stop]:
    """Yield the blocks of a model in order, one in memory; hidden states beyond the budget lie in a folder.

    Linears of a block may be replaced at its stop, but none before a tap that was looked at. With
    `followed`, statistics of pairs compare with the model as it was.
    """
    retain()
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    batch = max(1, TOKENS_AT_ONCE // ids.shape[1])
    budget = MemoryBudget() if budget is None else budget
    states = _entered(source, ids, folder / "hidden-0000.bin", batch, budget)
    ideals = None
    if followed:
        ideals = _entered(source, ids, folder / "ideal-0000.bin", batch, budget)
    for layer in range(arch.layers):
        block = decoder.block(source, family, arch, layer)
        reference = decoder.block(source, family, arch, layer) if followed else None
        ideal = None if ideals is None else Carried(ideals)
        stop = Stop(layer, block, Carried(states), batch, reference, ideal)
        del block, reference
        yield stop
        if layer + 1 < arch.layers:
            states, ideals = stop.onward(folder)
        stop.delete()
        del stop


@torch.no_grad()
def _entered(
    source: Source, ids: Tensor, path: Path, batch: int, budget: MemoryBudget
) -> HiddenStates:
    """Return the embedded tokens."""
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    embedding = decoder.embedding(source, family, arch)
    states = create_states(path, (len(ids), ids.shape[1], arch.hidden), budget=budget)
    for start in range(0, len(ids), batch):
        states.write(start, embedding(ids[start : start + batch]))
    return states
