"""Two walks over the calibration samples: what linears read, and what a block makes of it.

Both go batch by batch, from file to file; nothing of the block outlives the call.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whet.base.errors import NumericalError
from whet.calibrate.spool import Spool
from whet.calibrate.statistics import Statistic, Stats
from whet.formats.activate import quantized
from whet.model.linear import Linear
from whet.model.site import Site

Kinds = tuple[type[Statistic], ...]
RESIDUAL = ".residual"  # a block announces "attn.out.residual" before "attn.out": what is added to
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

    def __call__(self, hidden: Tensor, cache: None = ..., tap: "Recorder | None" = ...) -> Tensor:
        """Run the block on [batch time hidden]; announce each activation to `tap`."""
        ...


class _Enough(Exception):  # noqa: N818 - not an error: the rest of the forward pass is not needed
    """Every activation that was asked for has been seen."""


class Recorder:
    """Keeps the activations of some taps during one forward pass, and ends it after the last."""

    def __init__(self, wanted: Mapping[str, Kinds], order: Sequence[str]) -> None:
        self.wanted = wanted
        self.after = set(order[max(order.index(tap) for tap in wanted) :])
        self.values: dict[str, Tensor] = {}

    def __call__(self, name: str, value: Tensor) -> None:
        """See one activation; raises once nothing that is wanted can follow."""
        if name.removesuffix(RESIDUAL) in self.wanted:
            self.values[name] = value
        if name in self.after:
            raise _Enough


def observe(
    block: Tapped,
    reference: Tapped | None,
    inputs: Spool,
    reference_inputs: Spool | None,
    tap: str,
    kinds: Kinds,
    batch: int = 8,
) -> Stats:
    """Return statistics of one tap of a block; see `observe_taps`."""
    wanted = {tap: kinds}
    return observe_taps(block, reference, inputs, reference_inputs, wanted, batch)[tap]


@torch.no_grad()
def observe_taps(
    block: Tapped,
    reference: Tapped | None,
    inputs: Spool,
    reference_inputs: Spool | None,
    wanted: Mapping[str, Kinds],
    batch: int = 8,
) -> dict[str, Stats]:
    """Return statistics of some taps, from one partial forward pass of all samples.

    `reference` is the uncompressed block, run in lock step on `reference_inputs`, for statistics of
    pairs. What is seen is what linears read: quantized, where they quantize their input. Samples
    that are not finite are left out, named in `Stats.dropped`; too many are an error. An expert's
    tap sees only the tokens that were routed to it, and no pairs.
    """
    width = inputs.hidden
    stats = {tap: Stats(kinds, _channels(block, tap, width)) for tap, kinds in wanted.items()}
    order = list(block.taps)
    for start, hidden, ideal in _together(inputs, reference_inputs, batch):
        usable = _finite(hidden) if ideal is None else _finite(hidden) & _finite(ideal)
        numbers = torch.arange(start, start + len(hidden))
        for one in stats.values():
            one.dropped.update(numbers[~usable].tolist())
        if usable.any():
            seen = _record(block, hidden[usable], Recorder(wanted, order))
            ideals: dict[str, Tensor] = {}
            if reference is not None and ideal is not None:
                ideals = _record(reference, ideal[usable], Recorder(wanted, order))
            for tap, one in stats.items():
                _account(one, tap, seen, ideals, numbers[usable])
    for tap, one in stats.items():
        _check_dropped(one, tap, inputs.samples)
    return stats


@torch.no_grad()
def advance(block: Tapped, inputs: Spool, into: Path, batch: int = 8) -> Spool:
    """Run a block over all samples; return what leaves it, in a new file of the same type."""
    made = Spool.create(into, inputs.shape, inputs.dtype)
    for start, hidden in inputs.chunks(batch):
        made.write(start, block(hidden))
    return made


def drift(hidden: Spool, ideal: Spool, batch: int = 8) -> float:
    """Return ‖x - x̃‖² ÷ ‖x̃‖² over all samples that are finite in both [1]."""
    lost = whole = 0.0
    for _, x, reference in _together(hidden, ideal, batch):
        assert reference is not None
        usable = _finite(x) & _finite(reference)
        lost += float((x - reference)[usable].double().square().sum())
        whole += float(reference[usable].double().square().sum())
    return lost / whole if whole else 0.0


def _together(
    inputs: Spool, ideals: Spool | None, batch: int
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    for start, hidden in inputs.chunks(batch):
        yield start, hidden, None if ideals is None else ideals.read(start, start + batch)


def _record(block: Tapped, hidden: Tensor, recorder: Recorder) -> dict[str, Tensor]:
    with suppress(_Enough):
        block(hidden, tap=recorder)
    return {name: _as_read(block, name, value) for name, value in recorder.values.items()}


def _as_read(block: Tapped, tap: str, x: Tensor) -> Tensor:
    """Return an activation as the linears of its tap read it: quantized, if they do that first."""
    readers = (block.linears.get(site.role) for site in block.sites if site.tap == tap)
    for linear in readers:
        if linear is not None and linear.activation is not None:
            return quantized(x, linear.activation, linear.input_scale)
    return x


def _account(
    stats: Stats, tap: str, seen: dict[str, Tensor], ideals: dict[str, Tensor], numbers: Tensor
) -> None:
    """Add one batch of one tap; a routed activation has no samples, only tokens."""
    if tap not in seen:
        return
    x = seen[tap]
    routed = x.dim() == 2
    reference = None if routed else ideals.get(tap)
    drifted = None if routed else _difference(ideals, seen, tap + RESIDUAL)
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
