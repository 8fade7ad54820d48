"""The calibration tokens' hidden states between two blocks, in the compressed and the original model."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from whet.calibrate.carried import Carried
from whet.calibrate.hidden_states import (
    Dtype,
    HiddenStates,
    MemoryBudget,
    create_states,
    open_states,
)
from whet.calibrate.statistics import Stats
from whet.calibrate.sweep import Tapped, advance, drift, observe
from whet.kernels.arithmetic import arithmetic
from whet.model.block import Block
from whet.recipe.flow import Flowing, flowing
from whet.recipe.parts import probed
from whet.recipe.rewrite import Kinds, Part

TOKENS_AT_ONCE = 2048  # that go through a block together; of narrow models so many times more,
MOST_TIMES, NARROW = 4, 1024  # as their hidden channels go into these: short steps are shared badly
NAMES = ("working", "reference", "probe", "ideal")
Embed = Callable[[Tensor], Tensor]  # tokens [batch time] -> hidden [batch time hidden]


def windows_at_once(hidden: int, length: int) -> int:
    """Return how many windows of so many tokens go through a block together."""
    times = max(1, min(MOST_TIMES, NARROW // hidden))
    return max(1, times * TOKENS_AT_ONCE // length)


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """Samples in lock step; what is saved of them is where a killed run goes on.

    `reference` is followed only for methods that compare with it. `probe` is a small part of the
    working one, always computed exactly and at once, as the process that reloads the result will
    compute it, and `ideal` the same of the original model.
    """

    working: Carried
    reference: Carried | None
    probe: HiddenStates
    ideal: HiddenStates
    precision: str

    @property
    def batch(self) -> int:
        """Return how many windows go through a block at once."""
        return windows_at_once(self.working.inputs.hidden, self.working.inputs.time)

    def look(self, part: Part, reference: Part, tap: str, kinds: Kinds) -> Stats:
        """Gather statistics at one tap; the uncompressed model is run only for statistics of pairs."""
        block, ideal = cast("Tapped", part), cast("Tapped", reference)
        followed = self.reference if any(kind.pairs for kind in kinds) else None
        with arithmetic(self.precision):
            return observe(block, ideal, self.working, followed, tap, kinds, self.batch)

    def touched(self, part: Part, tap: str | None) -> None:
        """Forget what follows a tap whose linears have changed; all of the block without a tap."""
        taps = cast("Tapped", part).taps
        self.working.rewind(taps, tap)
        if tap is None and self.reference is not None:
            self.reference.rewind()

    def flows(self, block: Block, reference: Block) -> AbstractContextManager[Flowing]:
        """Return the samples on both sides of a block, for as long as a pass reads them."""
        assert self.reference is not None, "the plan follows the original for passes that ask"
        ideal = self.reference.inputs
        into = ideal.path.with_name(f"{ideal.path.stem}.leaving.bin")
        return flowing(block, reference, self.working.inputs, ideal, into, self.look, self.batch)

    def advanced(self, block: Tapped, reference: Tapped, folder: Path, part: int) -> "Streams":
        """Return the hidden states that leave the two blocks."""
        paths = {name: _path(folder, name, part) for name in NAMES}
        ideal = None
        with arithmetic(self.precision):
            working = advance(block, self.working, paths["working"], self.batch)
            if self.reference is not None:
                ideal = advance(
                    reference, self.reference, paths["reference"], self.batch, rounds=True
                )
        few = self.probe.samples
        states = {"working": working} | ({"reference": ideal} if ideal else {})
        states["probe"] = advance(block, Carried(self.probe), paths["probe"], few)
        states["ideal"] = advance(reference, Carried(self.ideal), paths["ideal"], few)
        return _streams(states, self.precision)

    def drift(self) -> tuple[float, str]:
        """Return ‖x − x̃‖² / ‖x̃‖² [1] and over which tokens."""
        if self.reference is None:
            return drift(self.probe, self.ideal), "over the tokens of the reload check"
        return drift(self.working.inputs, self.reference.inputs, self.batch), (
            "over the calibration tokens"
        )

    @property
    def in_memory(self) -> bool:
        """Return whether a killed run loses any of them unless they are saved."""
        return any(states.in_memory for states in self._all())

    def save(self) -> None:
        """Return when all are safely on disk."""
        for states in self._all():
            states.save()

    def release(self) -> None:
        """Give their memory back; what was saved stays."""
        for samples in (self.working, self.reference):
            if samples is not None:
                samples.rewind()
        for states in self._all():
            states.release()

    def _all(self) -> list[HiddenStates]:
        held = [self.working.inputs, self.probe, self.ideal]
        return held if self.reference is None else [*held, self.reference.inputs]


def entered(
    ids: Tensor,
    working: Embed,
    reference: Embed,
    hidden: int,
    folder: Path,
    precision: str,
    budget: MemoryBudget,
    *,
    followed: bool,
) -> Streams:
    """Return the hidden states that enter the first block; of the original model if `followed`."""
    folder.mkdir(parents=True, exist_ok=True)
    few = probed(ids)
    whole, part = (len(ids), ids.shape[1], hidden), (len(few), few.shape[1], hidden)
    shapes = {"probe": part, "ideal": part, "working": whole}
    shapes |= {"reference": whole} if followed else {}
    made = {
        name: create_states(_path(folder, name, 0), shape, budget=budget)
        for name, shape in shapes.items()
    }
    made["probe"].write(0, working(few))
    made["ideal"].write(0, reference(few))
    batch = windows_at_once(hidden, ids.shape[1])
    for start in range(0, len(ids), batch):
        some = ids[start : start + batch]
        made["working"].write(start, working(some))
        if followed:
            made["reference"].write(start, reference(some))
    return _streams(made, precision)


def reopened(
    folder: Path, part: int, precision: str, budget: MemoryBudget, *, followed: bool
) -> Streams:
    """Return the hidden states that a part of an earlier run has left."""
    names = [name for name in NAMES if followed or name != "reference"]
    states = {name: open_states(_path(folder, name, part), budget) for name in names}
    return _streams(states, precision)


def _streams(states: Mapping[str, HiddenStates], precision: str) -> Streams:
    read: Dtype = (
        "BF16" if precision == "fast" else "F32"
    )  # the type that linears round their input to
    ideal = states.get("reference")
    return Streams(
        Carried(states["working"], read),
        None if ideal is None else Carried(ideal, read),
        states["probe"],
        states["ideal"],
        precision,
    )


def keep_only(folder: Path, part: int) -> None:
    """Remove the hidden states that other parts have left."""
    kept = {_path(folder, name, part) for name in NAMES}
    for path in folder.iterdir():
        if path not in kept:
            path.unlink()


def _path(folder: Path, name: str, part: int) -> Path:
    return folder / f"{name}-{part:04d}.bin"
