"""The calibration tokens' hidden states between two blocks, in the compressed and the original model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from whet.calibrate.spool import Spool
from whet.calibrate.statistics import Stats
from whet.calibrate.sweep import Tapped, advance, drift, observe
from whet.recipe.rewrite import Kinds, Part

TOKENS_AT_ONCE = 4096
Embed = Callable[[Tensor], Tensor]  # tokens [batch time] -> hidden [batch time hidden]


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """Two spools in lock step; both are files, so that a killed run can go on from them."""

    working: Spool
    reference: Spool

    @property
    def batch(self) -> int:
        """Return how many windows go through a block at once."""
        return max(1, TOKENS_AT_ONCE // self.working.time)

    def look(self, part: Part, reference: Part, tap: str, kinds: Kinds) -> Stats:
        """Gather statistics at one tap; the uncompressed model is run only for statistics of pairs."""
        block, ideal = cast("Tapped", part), cast("Tapped", reference)
        if any(kind.pairs for kind in kinds):
            return observe(block, ideal, self.working, self.reference, tap, kinds, self.batch)
        return observe(block, None, self.working, None, tap, kinds, self.batch)

    def advanced(self, block: Tapped, reference: Tapped, folder: Path, part: int) -> "Streams":
        """Return the hidden states that leave the two blocks."""
        working = advance(block, self.working, _path(folder, "working", part), self.batch)
        other = advance(reference, self.reference, _path(folder, "reference", part), self.batch)
        return Streams(working, other).flushed()

    def drift(self) -> float:
        """Return ‖x − x̃‖² / ‖x̃‖² over all calibration tokens [1]."""
        return drift(self.working, self.reference, self.batch)

    def flushed(self) -> "Streams":
        """Return the same, once both are safely on disk."""
        self.working.flush()
        self.reference.flush()
        return self

    def delete(self) -> None:
        """Remove the files."""
        self.working.delete()
        self.reference.delete()


def entered(ids: Tensor, working: Embed, reference: Embed, hidden: int, folder: Path) -> Streams:
    """Return the hidden states that enter the first block."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (*ids.shape, hidden)
    streams = Streams(
        Spool.create(_path(folder, "working", 0), shape),
        Spool.create(_path(folder, "reference", 0), shape),
    )
    for start in range(0, len(ids), streams.batch):
        some = ids[start : start + streams.batch]
        streams.working.write(start, working(some))
        streams.reference.write(start, reference(some))
    return streams.flushed()


def reopened(folder: Path, part: int) -> Streams:
    """Return the hidden states that a part of an earlier run has left."""
    return Streams(
        Spool.open(_path(folder, "working", part)), Spool.open(_path(folder, "reference", part))
    )


def _path(folder: Path, name: str, part: int) -> Path:
    return folder / f"{name}-{part:04d}.bin"
