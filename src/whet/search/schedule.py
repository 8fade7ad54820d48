"""The schedule of a sweep: which levels each block is compressed to, so that the sweep keeps its time.

The first block is compressed to as many levels as a fixed part of the time allows, the most useful
ones first. What it took decides the solver and the levels of the others; what each further block took
corrects that. Levels that the blocks so far have shown to be useless are left out by the caller.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whet.search.clock import Clock
from whet.search.unit import PLAIN, THOROUGH, Level, Solver, Unit
from whet.store.durable import write_json
from whet.store.json_file import read_json

FIRST_FRACTION = 0.12  # of the sweep's time, for the first block
OUTSIDE_FRACTION = 0.2  # of the sweep's time, for the embedding and the head
LEAST_LEVELS = 4  # of a unit of a block, in any time
LEAST_OUTSIDE = 2  # of the embedding and the head, of which each takes as long as a few blocks
USUAL_FACTORS = {0: 1.0, 1: 1.4, 4: 2.8}  # times GPTQ alone, by rounds of descent; measured at once


@dataclass(slots=True)
class Rate:
    """Time per unit of work, averaged over all that was done."""

    seconds: float = 0.0
    work: float = 0.0

    def add(self, seconds: float, work: float) -> None:
        """Add a measurement."""
        self.seconds += seconds
        self.work += work

    @property
    def each(self) -> float:
        """Time per unit of work [s]; 0 where nothing was measured."""
        return self.seconds / self.work if self.work else 0.0


@dataclass(slots=True)
class Schedule:
    """The levels and the solver of every block. Law: planned blocks end by the deadline.

    order     levels by name, the most useful first
    deadline  after which the sweep should be over, as spent on the clock [s]
    """

    clock: Clock
    order: Sequence[str]
    layers: int
    block_weights: int
    deadline_s: float
    path: Path | None = None
    solver: Solver = PLAIN
    factors: dict[int, float] = field(default_factory=lambda: dict(USUAL_FACTORS))
    statistics: Rate = field(default_factory=Rate)  # per block
    outside: Rate = field(default_factory=Rate)  # per weight and level
    levels: dict[str, Rate] = field(default_factory=dict[str, Rate])  # per weight
    solvers: dict[int, Rate] = field(default_factory=dict[int, Rate])  # by rounds of descent
    probed: Rate = field(default_factory=Rate)  # GPTQ alone on one linear, per weight
    began_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Take up what an earlier run has timed."""
        self.began_s = self.clock.spent
        if self.path is not None and self.path.is_file():
            self._restore(read_json(self.path))

    @property
    def seconds(self) -> float:
        """Time of the whole sweep [s]."""
        return max(0.0, self.deadline_s - self.began_s)

    def record(self, level: Level, weights: int, seconds: float, *, outside: bool = False) -> None:
        """Take the time of compressing a unit to a level."""
        if outside:
            self.outside.add(seconds, float(weights))
        else:
            self.levels.setdefault(str(level.written), Rate()).add(seconds, float(weights))

    def record_solver(self, solver: Solver, seconds: float) -> None:
        """Take the time of a solver; those of all solvers must be of the same work."""
        self.solvers.setdefault(solver.sweeps, Rate()).add(seconds, 1.0)
        alone = self.solvers[PLAIN.sweeps].seconds
        if alone > 0:
            self.factors |= {n: max(1.0, rate.seconds / alone) for n, rate in self.solvers.items()}

    def probe(self, solver: Solver, weights: int, seconds: float) -> None:
        """Take the time of a solver on one linear, before the sweep."""
        self.record_solver(solver, seconds)
        if solver == PLAIN:
            self.probed.add(seconds, float(weights))

    @property
    def solving_s(self) -> float:
        """Time in which blocks were compressed to levels, so far [s]."""
        rates = (*self.solvers.values(), *self.levels.values())
        return sum((rate.seconds for rate in rates), 0.0)

    def rank(self, name: str) -> int:
        """Return the place of a level in the order of use; unknown ones come last."""
        return self.order.index(name) if name in self.order else len(self.order)

    def has_time(self, began_s: float, done: int, share: float, least: int) -> bool:
        """Return whether a unit that began at `began_s` on the clock is compressed to one more level.

        It is compressed to `done` levels, and to `least` in any time; `share` is the part of the
        sweep's time that it may take.
        """
        if done < least:
            return True
        spent = self.clock.spent - began_s
        return spent * (1 + 1 / done) <= share * self.seconds

    def first_share(self, unit: Unit) -> float:
        """Return the part of the sweep's time that a unit of the first block may take."""
        block = max(FIRST_FRACTION, 1 / self.layers)
        return block * unit.weights / max(1, self.block_weights)

    def useful(self, layer: int, offered: Collection[str]) -> frozenset[str]:
        """Return the levels to compress a block to: of those offered, as many as there is time for."""
        left = (self.deadline_s - self.clock.spent) / max(1, self.layers - layer)
        spare = left - self.statistics.each
        taken: dict[str, None] = {}  # weights, by the level that writes them
        cost = 0.0
        for name in sorted(map(_written, offered), key=self.rank):
            each = 0.0 if name in taken else self._level_s(name)
            if cost + each <= spare or len(taken) < LEAST_LEVELS:
                taken[name] = None
                cost += each
        return frozenset(name for name in offered if _written(name) in taken)

    def choose_solver(self, offered: Collection[str]) -> bool:
        """Choose the solver after the first block; return whether that block is to be done again.

        The thorough one is taken if all blocks, the first again, fit into the time that is left.
        """
        written = {_written(name) for name in offered}
        growth = self.factors[THOROUGH.sweeps] / self.factors[self.solver.sweeps]
        block = self.statistics.each + growth * sum(map(self._level_s, written), 0.0)
        if self.solver == THOROUGH or self.layers * block > self.deadline_s - self.clock.spent:
            return False
        self.levels = {
            name: Rate(growth * rate.seconds, rate.work) for name, rate in self.levels.items()
        }
        self.solver = THOROUGH
        return True

    def solve_s(self) -> float:
        """Return the time of GPTQ alone at one level, for a weight of a block [s]."""
        rates = [rate.each for rate in self.levels.values() if rate.work]
        if not rates:
            return self.probed.each
        return sorted(rates)[len(rates) // 2] / self.factors[self.solver.sweeps]

    def keep(self) -> None:
        """Write what was timed, for a run that goes on."""
        if self.path is not None:
            rates = {name: [rate.seconds, rate.work] for name, rate in self.levels.items()}
            told = {
                "sweeps": self.solver.sweeps,
                "factors": {str(sweeps): factor for sweeps, factor in self.factors.items()},
                "statistics": [self.statistics.seconds, self.statistics.work],
                "outside": [self.outside.seconds, self.outside.work],
                "levels": rates,
            }
            write_json(self.path, told)

    def _restore(self, held: Mapping[str, Any]) -> None:
        self.levels = {name: Rate(*rate) for name, rate in held["levels"].items()}
        self.factors = {int(sweeps): factor for sweeps, factor in held["factors"].items()}
        self.solver = THOROUGH if held["sweeps"] == THOROUGH.sweeps else PLAIN
        self.statistics, self.outside = Rate(*held["statistics"]), Rate(*held["outside"])

    def _level_s(self, name: str) -> float:
        """Return the time of a block at a level [s]; of one that was not tried, that of the dearest."""
        rate = self.levels.get(_written(name))
        dearest = max((one.each for one in self.levels.values()), default=0.0)
        return self.block_weights * (rate.each if rate is not None and rate.work else dearest)


def _written(name: str) -> str:
    """Return the name of the level whose weights are the same, whatever they multiply."""
    return name.partition(" on ")[0]
