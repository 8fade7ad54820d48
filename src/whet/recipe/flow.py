"""The calibration samples on both sides of a block, for passes that read them one by one."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.calibrate.carried import Carried
from whet.calibrate.hidden_states import HiddenStates
from whet.calibrate.statistics import Statistic, Stats
from whet.calibrate.sweep import advance
from whet.model.block import Block

Look = Callable[[Block, Block, str, tuple[type[Statistic], ...]], Stats]


@dataclass(frozen=True, slots=True, eq=False)
class Flowing:
    """A `Flow` over hidden states."""

    block: Block
    original: Block
    inputs: HiddenStates
    targets: HiddenStates
    look: Look

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.inputs.samples

    def entering(self, numbers: Int64[Tensor, "batch"]) -> Float[Tensor, "batch time hidden"]:
        """Return what enters the block now."""
        return _read(self.inputs, numbers)

    def leaving(self, numbers: Int64[Tensor, "batch"]) -> Float[Tensor, "batch time hidden"]:
        """Return what leaves the original block in the original model."""
        return _read(self.targets, numbers)

    def __call__(self, tap: str, kinds: tuple[type[Statistic], ...]) -> Stats:
        """Return what was seen at a tap."""
        return self.look(self.block, self.original, tap, kinds)


@contextmanager
def flowing(
    block: Block,
    original: Block,
    inputs: HiddenStates,
    ideal: HiddenStates,
    into: Path,
    look: Look,
    batch: int,
) -> Generator[Flowing]:
    """Run the original block over its own inputs; what leaves it is kept for the time being."""
    targets = advance(original, Carried(ideal), into, batch)
    try:
        yield Flowing(block, original, inputs, targets, look)
    finally:
        targets.delete()


def _read(
    states: HiddenStates, numbers: Int64[Tensor, "batch"]
) -> Float[Tensor, "batch time hidden"]:
    return torch.cat([states.read(number, number + 1) for number in numbers.tolist()])
