"""The sweep: every unit at every level once, on inputs that nothing has changed yet.

One walk over the blocks, one of them in memory; a sweep that was stopped goes on with the next block.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int64
from torch import Tensor

from whet.base.record import Record
from whet.base.seed import stream_seed
from whet.calibrate.backward import Report
from whet.calibrate.statistics import Gram, Stats
from whet.calibrate.walk import Stop, walk
from whet.formats.activate import quantized
from whet.formats.activation import Activation
from whet.formats.weight import Weight
from whet.kernels.arithmetic import arithmetic, usual
from whet.kernels.linear import multiplied
from whet.methods.solve.slabs import inner
from whet.model.linear import Linear
from whet.model.source import Source
from whet.search.database import Database, named, told
from whet.search.gradients import Felt, Gradients, costs
from whet.search.outside import Outside
from whet.search.rounding import rounding_of
from whet.search.unit import Level, Unit

Made = tuple[dict[str, Tensor], list[Record]]


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """A sweep under way."""

    source: Source
    units: Sequence[Unit]
    database: Database
    gradients: Gradients
    seed: int
    heed: Report
    quick: bool = False  # compare levels without the last rounds of their methods
    screen: Callable[[], Collection[str]] = tuple  # levels that the first block has ruled out

    @torch.no_grad()
    def run(self, ids: Int64[Tensor, "samples time"]) -> None:
        """Fill the database; parts that are there stay."""
        done = self.database.done
        parts = 1 + max((self.database.part(unit) for unit in self.units), default=0)
        for unit in (unit for unit in self.units if unit.layer is None):
            part = self.database.part(unit)
            if part >= done:
                self.heed(part / parts, f"levels, {unit.name}")
                self.database.keep(part, *self._outside(unit))
        if done >= parts:
            return
        states = self.database.folder / "hidden-states"
        states.mkdir(parents=True, exist_ok=True)
        for stop in walk(self.source, ids, states):
            part = len(self.database.outside) + stop.layer
            if part >= done:
                self.heed(part / parts, f"levels, block {stop.layer + 1}")
                self.database.keep(part, *self._block(stop))

    def _outside(self, unit: Unit) -> Made:
        """Write every level of the embedding or of the head."""
        outside = Outside(self.source, self.gradients)
        made: dict[str, Tensor] = {}
        records: list[Record] = []
        old = {unit.sites[0].role: Linear(self.source.weight(unit.sites[0]))}
        stats = {unit.sites[0].tap: outside.statistics(unit)}
        whole = _energy(unit, {role: one.weight.dense() for role, one in old.items()}, stats)
        for level, written in self._all_written(unit, old, stats):
            new = written.weights[unit.sites[0].role]
            made |= named(level, written.weights)
            lost = _energy(unit, _deltas(written, old), stats)
            kl = outside.cost(unit, new, rounding_of(level))
            error = lost / whole if whole else 0.0
            records.append(told(unit, level, kl, error, written.fallback))
        return made, records

    def _block(self, stop: Stop) -> Made:
        """Write every level of the units of a block."""
        felt = self.gradients.block(stop.layer)
        made: dict[str, Tensor] = {}
        records: list[Record] = []
        for unit in _in_order(self.units, stop):
            judge = _Judge(unit, stop.block.linears, felt, self.gradients.ids.numel())
            taps = dict.fromkeys(site.tap for site in unit.sites)
            stats = {tap: stop.look(tap, Gram) for tap in taps}
            for level, written in self._all_written(unit, stop.block.linears, stats):
                made |= named(level, written.weights)
                kl, error = judge.costs(level, written)
                records.append(told(unit, level, kl, error, written.fallback))
        return made, records

    def _levels(self, unit: Unit) -> list[Level]:
        """Return the levels that a unit is to be written at."""
        offers = self.database.offers[unit.name]
        past = self.screen() if unit.layer else frozenset[str]()
        return [level for level in offers if level.format is not None and str(level) not in past]

    def _all_written(
        self, unit: Unit, linears: Mapping[str, Linear], stats: Mapping[str, Stats]
    ) -> "Iterator[tuple[Level, Written]]":
        """Yield every level with a unit's weights, which those that differ in inputs alone share."""
        found: dict[Level, Written] = {}
        for level in self._levels(unit):
            if level.written not in found:
                found[level.written] = self._written(unit, level.written, linears, stats)
            yield level, found[level.written]

    def _written(
        self, unit: Unit, level: Level, linears: Mapping[str, Linear], stats: Mapping[str, Stats]
    ) -> "Written":
        use = level.use(alone=True, quick=self.quick)
        weights, fallbacks = dict[str, Weight](), list[str]()
        for site in unit.sites:
            seed = stream_seed(self.seed, f"{level}/{site.module}")
            with arithmetic(usual(site.shape[1])):
                weight = linears[site.role].weight.dense()
                done = use.fitted(site).rewrite(weight, stats[site.tap], site.role, seed)
            weights[site.role] = done.weight
            fallbacks += [done.fallback] if done.fallback else []
        return Written(weights, fallbacks[0] if fallbacks else None)


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A unit at a level, by role, and what a method did instead of what it was asked."""

    weights: Mapping[str, Weight]
    fallback: str | None


@dataclass(frozen=True, eq=False)
class _Judge:
    """What a unit of a block costs at a level, by what its linears have read and felt."""

    unit: Unit
    linears: Mapping[str, Linear]
    felt: Mapping[str, Felt]
    tokens: int
    _known: dict[Activation, dict[str, Tensor]] = field(default_factory=dict)

    def costs(self, level: Level, written: Written) -> tuple[float, float]:
        """Return what a level costs in KL divergence [nat per token], and ‖ΔW X‖² ÷ ‖W X‖² [1]."""
        deltas = _deltas(written, self.linears)
        felt = {role: delta for role, delta in deltas.items() if role in self.felt}
        rounding = rounding_of(level)
        rounded = self._moved(rounding) if rounding is not None else {}
        with self._arithmetic:
            kl, lost = costs(self.felt, felt, rounded)
        return kl / self.tokens, lost / self._whole if self._whole else 0.0

    @cached_property
    def _whole(self) -> float:
        """Return ‖W X‖²."""
        with self._arithmetic:
            return sum(felt.energy(weight) for felt, weight in self._pairs)

    def _moved(self, rounding: Activation) -> dict[str, Tensor]:
        """Return what rounding the inputs does to the log-likelihood at each token, by role."""
        if rounding not in self._known:
            roles = (site.role for site in self.unit.sites if site.role in self.felt)
            with self._arithmetic:
                moved = (
                    f.moved(weight, quantized(f.x, rounding) - f.x) for f, weight in self._pairs
                )
                self._known[rounding] = dict(zip(roles, moved, strict=True))
        return self._known[rounding]

    @property
    def _arithmetic(self) -> AbstractContextManager[None]:
        return arithmetic(usual(self.unit.sites[0].shape[1]))

    @property
    def _pairs(self) -> Iterator[tuple[Felt, Tensor]]:
        for site in self.unit.sites:
            if site.role in self.felt:
                yield self.felt[site.role], self.linears[site.role].weight.dense()


def _in_order(units: Sequence[Unit], stop: Stop) -> list[Unit]:
    """Return the units of a block in the order in which they run."""
    place = {tap: number for number, tap in enumerate(stop.block.taps)}
    mine = (unit for unit in units if unit.layer == stop.layer)
    return sorted(mine, key=lambda unit: place.get(unit.sites[0].tap, 0))


def _deltas(written: Written, linears: Mapping[str, Linear]) -> dict[str, Tensor]:
    """Return what the weights of a unit have changed by."""
    return {r: w.dense() - linears[r].weight.dense() for r, w in written.weights.items()}


def _energy(unit: Unit, weights: Mapping[str, Tensor], stats: Mapping[str, Stats]) -> float:
    """Return ‖W X‖² of a unit's weights, by role; without statistics, ‖W‖²."""
    found = 0.0
    for site in unit.sites:
        seen, matrix = stats[site.tap], weights[site.role]
        with arithmetic(usual(site.shape[1])):
            grown = multiplied(matrix, seen[Gram].mean()) if Gram in seen else matrix
        found += inner(grown, matrix)
    return found
