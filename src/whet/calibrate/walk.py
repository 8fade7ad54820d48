"""A walk through a whole model, block by block, for passes that look at one block after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.calibrate.carried import Carried
from whet.calibrate.spool import Spool
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
    """A block, and the samples that have come to it. What the block becomes is what they go through."""

    layer: int
    block: Block
    samples: Carried
    batch: int

    def look(self, tap: str, *kinds: type[Statistic]) -> Stats:
        """Return statistics of one tap."""
        with arithmetic(usual(self.block.arch.hidden)):
            return observe(self.block, None, self.samples, None, tap, kinds, self.batch)

    @torch.no_grad()
    def leaving(self) -> Iterator[Tensor]:
        """Yield what leaves the block as it is now, some samples at a time."""
        for hidden in self.entering():
            with arithmetic(usual(self.block.arch.hidden)):
                left = self.block(hidden)
            yield left

    def onward(self, path: Path) -> Spool:
        """Return what leaves the block as it is now, in a new file."""
        with arithmetic(usual(self.block.arch.hidden)):
            return advance(self.block, self.samples, path, self.batch)

    def entering(self) -> Iterator[Tensor]:
        """Yield what enters the block, some samples at a time."""
        for _, hidden in self.samples.inputs.chunks(self.batch):
            yield hidden


def walk(source: Source, ids: Int64[Tensor, "samples time"], folder: Path) -> Iterator[Stop]:
    """Yield the blocks of a model in order, one in memory; hidden states lie in a folder.

    Linears of a block may be replaced at its stop, but none before a tap that was looked at.
    """
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    batch = max(1, TOKENS_AT_ONCE // ids.shape[1])
    spool = _entered(source, ids, folder, batch)
    for layer in range(arch.layers):
        stop = Stop(layer, decoder.block(source, family, arch, layer), Carried(spool), batch)
        yield stop
        if layer + 1 < arch.layers:
            spool = stop.onward(folder / f"hidden-{layer + 1:04d}.bin")
        stop.samples.delete()


@torch.no_grad()
def _entered(source: Source, ids: Tensor, folder: Path, batch: int) -> Spool:
    """Return the embedded tokens, on disk."""
    family = find(source.config)
    arch = family.architecture(source.config, source.names())
    embedding = decoder.embedding(source, family, arch)
    spool = Spool.create(folder / "hidden-0000.bin", (*ids.shape, arch.hidden))
    for start in range(0, len(ids), batch):
        spool.write(start, embedding(ids[start : start + batch]))
    return spool
