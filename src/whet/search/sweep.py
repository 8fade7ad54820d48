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
from whet.search.schedule import LEAST_LEVELS, LEAST_OUTSIDE, OUTSIDE_FRACTION, Schedule
from whet.search.unit import BRIEF, PLAIN, THOROUGH, Level, Solver, Unit

Made = tuple[dict[str, Tensor], list[Record]]


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """A sweep under way.

    The `schedule` says how many levels there is time for. `screen` returns the levels that are useless
    by the blocks so far and some records more; `replan` is called after each block.
    """

    source: Source
    units: Sequence[Unit]
    database: Database
    gradients: Gradients
    seed: int
    heed: Report
    schedule: Schedule
    screen: Callable[[Sequence[Record]], Collection[str]] = lambda _: ()
    replan: Callable[[], None] = lambda: None

    @torch.no_grad()
    def run(self, ids: Int64[Tensor, "samples time"]) -> None:
        """Fill the database; parts that are there stay."""
        done = self.database.done
        parts = 1 + max((self.database.part(unit) for unit in self.units), default=0)
        for unit in (unit for unit in self.units if unit.layer is None):
            part = self.database.part(unit)
            if part >= done:
                self.heed(part / parts, f"levels, {unit.name}")
                self._keep(part, self._outside(unit))
        if done >= parts:
            return
        hidden_states = self.database.folder / "spool"
        hidden_states.mkdir(parents=True, exist_ok=True)
        began = self._now
        for stop in walk(self.source, ids, hidden_states):
            part = len(self.database.outside) + stop.layer
            if part >= done:
                self.heed(part / parts, f"levels, block {stop.layer + 1}")
                self._keep(part, self._block(stop, began))
            began = self._now

    @property
    def _now(self) -> float:
        return self.schedule.clock.spent

    def _keep(self, part: int, made: Made) -> None:
        """Make a part last, with the times that it has shown."""
        self.schedule.keep()
        self.database.keep(part, *made)
        self.replan()

    def _outside(self, unit: Unit) -> Made:
        """Compress the embedding or the head to every level that there is time for."""
        outside = Outside(self.source, self.gradients)
        made: dict[str, Tensor] = {}
        records: list[Record] = []
        old = {unit.sites[0].role: Linear(self.source.weight(unit.sites[0]))}
        stats = {unit.sites[0].tap: outside.statistics(unit)}
        whole = _energy(unit, {role: one.weight.dense() for role, one in old.items()}, stats)
        levels, share = self._levels(unit), OUTSIDE_FRACTION / len(self.database.outside)
        for level, written in self._all_written(unit, old, stats, levels, share):
            new = written.weights[unit.sites[0].role]
            made |= named(level, written.weights)
            lost = _energy(unit, _deltas(written, old), stats)
            kl = outside.cost(unit, new, rounding_of(level))
            error = lost / whole if whole else 0.0
            records.append(told(unit, level, kl, error, written.fallback))
        return made, records

    def _block(self, stop: Stop, began: float) -> Made:
        """Compress the units of a block, which `began` to be reached then on the clock [s].

        The first block is done again where it shows that there is time for the thorough solver.
        """
        made = self._compressed(stop, began)
        if stop.layer == 0:
            swept = {record.notes["level"] for record in made[1]}
            if self.schedule.choose_solver(swept - set(self.screen(made[1]))):
                return self._compressed(stop, self._now)
        return made

    def _compressed(self, stop: Stop, began: float) -> Made:
        """Compress the units of a block to every level that there is time for."""
        gradients = self.gradients.block(stop.layer)
        made: dict[str, Tensor] = {}
        records: list[Record] = []
        solving = self.schedule.solving_s
        allowed = self._allowed(stop.layer)
        for unit in _in_order(self.units, stop):
            judge = _Judge(unit, stop.block.linears, gradients, self.gradients.ids.numel())
            taps = dict.fromkeys(site.tap for site in unit.sites)
            stats = {tap: stop.look(tap, Gram) for tap in taps}
            levels = [level for level in self._levels(unit) if str(level) in allowed]
            share = None if stop.layer else self.schedule.first_share(unit)
            for level, written in self._all_written(unit, stop.block.linears, stats, levels, share):
                made |= named(level, written.weights)
                kl, error = judge.costs(level, written)
                records.append(told(unit, level, kl, error, written.fallback))
        spent = self._now - began - (self.schedule.solving_s - solving)
        self.schedule.statistics.add(spent, 1.0)
        return made, records

    def _allowed(self, layer: int) -> Collection[str]:
        """Return the levels that the units of a block are compressed to."""
        mine = (unit for unit in self.units if unit.layer == layer)
        offered = {str(one) for unit in mine for one in self._levels(unit)}
        if not layer:
            return offered
        return self.schedule.useful(layer, offered - set(self.screen(())))

    def _levels(self, unit: Unit) -> list[Level]:
        """Return the levels that a unit may be compressed to, the most useful first."""
        levels = [one for one in self.database.offers[unit.name] if one.format is not None]
        return sorted(levels, key=lambda level: self.schedule.rank(str(level)))

    def _all_written(
        self,
        unit: Unit,
        linears: Mapping[str, Linear],
        stats: Mapping[str, Stats],
        levels: Sequence[Level],
        share: float | None,
    ) -> "Iterator[tuple[Level, Written]]":
        """Yield levels with a unit's weights, which those that differ in inputs alone share.

        It ends where the unit has taken its `share` of the sweep's time. What is done with a level
        until the next one counts as its time.
        """
        found: dict[Level, Written] = {}
        began, least = self._now, LEAST_OUTSIDE if unit.layer is None else LEAST_LEVELS
        for level in levels:
            if share is not None and not self.schedule.has_time(began, len(found), share, least):
                break
            start, new = self._now, level.written not in found
            if new:
                found[level.written] = self._written(unit, level.written, linears, stats)
            yield level, found[level.written]
            weights = unit.weights if new else 0
            self.schedule.record(level, weights, self._now - start, outside=unit.layer is None)
        if unit.layer == 0:
            self._time_solvers(unit, linears, stats, levels)

    def _time_solvers(
        self,
        unit: Unit,
        linears: Mapping[str, Linear],
        stats: Mapping[str, Stats],
        levels: Sequence[Level],
    ) -> None:
        """Time each solver at one level, to know what a thorough sweep and the folder would take."""
        level = next((one.written for one in levels if one.method == "gptq"), None)
        if level is None or self.schedule.solver == THOROUGH:
            return
        for solver in (PLAIN, BRIEF, THOROUGH):
            start = self._now
            self._written(unit, level, linears, stats, solver)
            self.schedule.record_solver(solver, self._now - start)

    def _written(
        self,
        unit: Unit,
        level: Level,
        linears: Mapping[str, Linear],
        stats: Mapping[str, Stats],
        solver: Solver | None = None,
    ) -> "Written":
        use = level.use(alone=True, solver=solver or self.schedule.solver)
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
