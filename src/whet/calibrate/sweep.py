"""Two walks over the calibration samples: what linears read, and what a block makes of it.

Both go batch by batch; nothing of the block outlives the call.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whet.base.errors import NumericalError
from whet.calibrate.carried import Carried
from whet.calibrate.hidden_states import HiddenStates
from whet.calibrate.statistics import Statistic, Stats
from whet.formats.activate import quantized
from whet.model.block import Moment
from whet.model.linear import Linear, held
from whet.model.site import Site

Kinds = tuple[type[Statistic], ...]
RESIDUAL = ".residual"  # announced before a tap: what the output of its linears is added to
STREAM = ".stream"  # announced where a block can go on from a tap: the residual stream there
TOLERATED = 0.01  # share of the samples that may be left out for not being finite


@runtime_checkable
class Tapped(Protocol):
    """What the sweep asks of a block: its taps in the order in which they run, and its sites."""

    @property
    def taps(self) -> Sequence[str]:
        """Return the names under which the inputs of linears are announced, in order."""
        ...

    @property
    def sites(self) -> Sequence[Site]:
        """Return what the linears are called, and which tap each reads."""
        ...

    @property
    def linears(self) -> Mapping[str, Linear]:
        """Return the linears by role."""
        ...

    def __call__(
        self,
        hidden: Tensor,
        cache: None = ...,
        tap: "Recorder | None" = ...,
        since: Moment | None = ...,
    ) -> Tensor:
        """Run the block on [batch time hidden]; announce each activation to `tap`."""
        ...


class _Enough(Exception):  # noqa: N818 - not an error: the rest of the forward pass is not needed
    """Every activation that was asked for has been seen."""


@dataclass(slots=True, eq=False)
class Recorder:
    """Keeps the activation of one tap during a forward pass, and ends it there."""

    wanted: str
    order: Sequence[str]
    values: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __call__(self, name: str, value: Tensor) -> None:
        """See one activation; raises once the wanted one is past."""
        tap, dot, kind = name.rpartition(".")
        if dot + kind in (RESIDUAL, STREAM):
            if tap == self.wanted:
                self.values[dot + kind] = value
            return
        if name == self.wanted:
            self.values[""] = value
        if name in self.order and self.order.index(name) >= self.order.index(self.wanted):
            raise _Enough

    def moment(self) -> Moment | None:
        """Return where the pass has stopped, if it can go on from there."""
        if STREAM in self.values and "" in self.values:
            return Moment(self.wanted, self.values[""], self.values[STREAM])
        return None


@torch.no_grad()
def observe(
    block: Tapped,
    reference: Tapped | None,
    inputs: Carried,
    reference_inputs: Carried | None,
    tap: str,
    kinds: Kinds,
    batch: int = 8,
) -> Stats:
    """Return statistics of one tap of a block, and carry the samples up to there.

    `reference` is the uncompressed block, run in lock step on `reference_inputs`, for statistics of
    pairs. What is seen is what linears read: quantized, where they quantize their input. Samples
    that are not finite are left out, named in `Stats.dropped`; too many are an error. An expert's
    tap sees only the tokens that were routed to it, and no pairs.
    """
    stats = Stats(kinds, _channels(block, tap, inputs.inputs.hidden))
    samples = inputs.inputs.samples
    inputs.rewind(block.taps, tap)
    if reference_inputs is not None:
        reference_inputs.rewind(block.taps, tap)
    with held(_linears(block)), held(_linears(reference), rounds=True):
        for start in range(0, samples, batch):
            seen = _carry(block, inputs, tap, start, batch)
            ideals: dict[str, Tensor] = {}
            if reference is not None and reference_inputs is not None:
                ideals = _carry(reference, reference_inputs, tap, start, batch)
            _account(stats, seen, ideals, torch.arange(start, min(start + batch, samples)))
    inputs.arrive()
    if reference_inputs is not None:
        reference_inputs.arrive()
    _check_dropped(stats, tap, samples)
    return stats


@torch.no_grad()
def advance(
    block: Tapped, inputs: Carried, into: Path, batch: int = 8, *, rounds: bool = False
) -> HiddenStates:
    """Run what is left of a block over all samples; return what leaves it.

    With `rounds`, weights that are plain numbers may be rounded to 8 bits, and what they read.
    """
    made = inputs.inputs.like(into)
    with held(_linears(block), rounds=rounds):
        for start in range(0, inputs.inputs.samples, batch):
            hidden, since = inputs.read(start, start + batch)
            made.write(start, block(hidden) if since is None else block(hidden, since=since))
    return made


def _linears(block: Tapped | None) -> Iterator[Linear]:
    return iter(()) if block is None else iter(block.linears.values())


def drift(hidden: HiddenStates, ideal: HiddenStates, batch: int = 8) -> float:
    """Return ‖x - x̃‖² ÷ ‖x̃‖² over all samples that are finite in both [1]."""
    lost = whole = 0.0
    for start, x in hidden.chunks(batch):
        reference = ideal.read(start, start + batch)
        usable = _finite(x) & _finite(reference)
        chosen = slice(None) if usable.all() else usable
        lost += _energy(x[chosen] - reference[chosen])
        whole += _energy(reference[chosen])
    return lost / whole if whole else 0.0


def _energy(x: Tensor) -> float:
    """Return the sum of squares, token by token in float32, then in float64."""
    return float(torch.linalg.vector_norm(x, dim=-1).double().square_().sum())


def _carry(block: Tapped, samples: Carried, tap: str, start: int, batch: int) -> dict[str, Tensor]:
    """Run some samples up to a tap; return what was announced there, as its linears read it."""
    stream, since = samples.read(start, start + batch)
    recorder = Recorder(tap, block.taps)
    with suppress(_Enough):
        if since is None:
            block(stream, tap=recorder)
        else:
            block(stream, tap=recorder, since=since)
    if (moment := recorder.moment()) is not None:
        samples.write(start, moment, stream)
    seen = recorder.values
    return seen | {"": _as_read(block, tap, seen[""])} if "" in seen else seen


def _as_read(block: Tapped, tap: str, x: Tensor) -> Tensor:
    """Return an activation as the linears of its tap read it: quantized, if they do that first."""
    readers = (block.linears.get(site.role) for site in block.sites if site.tap == tap)
    for linear in readers:
        if linear is not None and linear.activation is not None:
            return quantized(x, linear.activation, linear.input_scale)
    return x


def _account(
    stats: Stats, seen: dict[str, Tensor], ideals: dict[str, Tensor], numbers: Tensor
) -> None:
    """Add one batch of one tap; a routed activation has no samples, only tokens."""
    if "" not in seen:
        return
    x = seen[""]
    routed = x.dim() == 2
    reference = None if routed else ideals.get("")
    drifted = None if routed else _difference(ideals, seen, RESIDUAL)
    keep = _finite(x)
    for other in (reference, drifted):
        keep = keep if other is None else keep & _finite(other)
    if not keep.all():
        stats.dropped.update([] if routed else numbers[~keep].tolist())
        x, reference, drifted = (None if t is None else t[keep] for t in (x, reference, drifted))
    stats.add(*(None if t is None else t.flatten(0, -2) for t in (x, reference, drifted)))


def _difference(left: dict[str, Tensor], right: dict[str, Tensor], name: str) -> Tensor | None:
    return left[name] - right[name] if name in left and name in right else None


def _finite(x: Float[Tensor, "batch *rest"]) -> Bool[Tensor, "batch"]:
    """Return which entries of the first axis are finite throughout; mostly by one sum."""
    if torch.isfinite(x.sum()):
        return torch.ones(len(x), dtype=torch.bool)
    return torch.isfinite(x).flatten(1).all(1)


def _channels(block: Tapped, tap: str, hidden: int) -> int:
    """Return the width of a tap; one that no linear reads is that of a router."""
    return next((site.shape[1] for site in block.sites if site.tap == tap), hidden)


def _check_dropped(stats: Stats, tap: str, samples: int) -> None:
    if len(stats.dropped) > TOLERATED * samples:
        named = ", ".join(str(number) for number in sorted(stats.dropped)[:5])
        raise NumericalError(
            f"{len(stats.dropped)} of {samples} calibration samples give non-finite activations at "
            f"{tap} (samples {named}); at most {TOLERATED:.0%} are tolerated",
            "Look for non-finite or huge weights in the source, or calibrate on other text.",
        )
