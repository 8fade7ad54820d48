"""The calibration tokens' hidden states between two blocks, in the compressed and the original model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from whet.calibrate.spool import Spool
from whet.calibrate.statistics import Stats
from whet.calibrate.sweep import Tapped, advance, drift, observe
from whet.kernels.arithmetic import arithmetic
from whet.recipe.parts import probed
from whet.recipe.rewrite import Kinds, Part

TOKENS_AT_ONCE = 4096
NAMES = ("working", "reference", "probe")
Embed = Callable[[Tensor], Tensor]  # tokens [batch time] -> hidden [batch time hidden]


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """Spools in lock step; all are files, so that a killed run can go on from them.

    `probe` is a small part of the working one, always computed exactly and at once, as the process
    that reloads the result will compute it.
    """

    working: Spool
    reference: Spool
    probe: Spool
    precision: str

    @property
    def batch(self) -> int:
        """Return how many windows go through a block at once."""
        return max(1, TOKENS_AT_ONCE // self.working.time)

    def look(self, part: Part, reference: Part, tap: str, kinds: Kinds) -> Stats:
        """Gather statistics at one tap; the uncompressed model is run only for statistics of pairs."""
        block, ideal = cast("Tapped", part), cast("Tapped", reference)
        with arithmetic(self.precision):
            if any(kind.pairs for kind in kinds):
                return observe(block, ideal, self.working, self.reference, tap, kinds, self.batch)
            return observe(block, None, self.working, None, tap, kinds, self.batch)

    def advanced(self, block: Tapped, reference: Tapped, folder: Path, part: int) -> "Streams":
        """Return the hidden states that leave the two blocks."""
        paths = [_path(folder, name, part) for name in NAMES]
        with arithmetic(self.precision):
            working = advance(block, self.working, paths[0], self.batch)
            ideal = advance(reference, self.reference, paths[1], self.batch)
        probe = advance(block, self.probe, paths[2], self.probe.samples)
        return Streams(working, ideal, probe, self.precision).flushed()

    def drift(self) -> float:
        """Return ‖x − x̃‖² / ‖x̃‖² over all calibration tokens [1]."""
        return drift(self.working, self.reference, self.batch)

    def flushed(self) -> "Streams":
        """Return the same, once both are safely on disk."""
        for spool in (self.working, self.reference, self.probe):
            spool.flush()
        return self

    def delete(self) -> None:
        """Remove the files."""
        for spool in (self.working, self.reference, self.probe):
            spool.delete()


def entered(
    ids: Tensor, working: Embed, reference: Embed, hidden: int, folder: Path, precision: str
) -> Streams:
    """Return the hidden states that enter the first block."""
    folder.mkdir(parents=True, exist_ok=True)
    few = probed(ids)
    whole, part = (len(ids), ids.shape[1], hidden), (len(few), few.shape[1], hidden)
    streams = Streams(
        Spool.create(_path(folder, "working", 0), whole),
        Spool.create(_path(folder, "reference", 0), whole),
        Spool.create(_path(folder, "probe", 0), part),
        precision,
    )
    streams.probe.write(0, working(few))
    for start in range(0, len(ids), streams.batch):
        some = ids[start : start + streams.batch]
        streams.working.write(start, working(some))
        streams.reference.write(start, reference(some))
    return streams.flushed()


def reopened(folder: Path, part: int, precision: str) -> Streams:
    """Return the hidden states that a part of an earlier run has left."""
    working, reference, probe = (Spool.open(_path(folder, name, part)) for name in NAMES)
    return Streams(working, reference, probe, precision)


def _path(folder: Path, name: str, part: int) -> Path:
    return folder / f"{name}-{part:04d}.bin"
