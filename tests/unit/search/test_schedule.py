"""A search keeps its time: simulated over sizes of models, speeds of machines, and wrong estimates."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from tests.unit.search.menus import site

from whet.search import schedule as schedules
from whet.search.clock import Clock, Timeline
from whet.search.effort import (
    FOLDER_STATISTICS_COST,
    GRADIENT_COST,
    STATISTICS_COST,
    FolderCosts,
    ForwardTimes,
    efforts,
    keep_sizes,
    kept_sizes,
    plan_folder,
    plan_measurement,
    plan_text,
)
from whet.search.limits import limits
from whet.search.planner import Planner, order_levels
from whet.search.schedule import LEAST_LEVELS, LEAST_OUTSIDE, Schedule
from whet.search.unit import BRIEF, LEVELS, PLAIN, THOROUGH, Unit, level

LENGTH, SAMPLES = 512, 128
SOLVER_FACTORS = {0: 1.0, 1: 1.5, 4: 3.0}


@dataclass
class Machine:
    """A machine whose time passes only as work is done: a simulation of a search's phases.

    `forward` operations a second; `solving` weights a second and level by GPTQ; `drift` is what the folder
    takes as a multiple of what its own unit costs say.
    """

    forward: float = 5e10
    solving: float = 2e6
    drift: float = 1.0
    time: float = 100.0

    def now(self) -> float:
        return self.time


@dataclass
class Model:
    layers: int
    weights: int  # of a block
    vocabulary: int  # weights of the head


@dataclass
class Simulation:
    """A search of a model as it is, with a limit on its size."""

    machine: Machine
    model: Model
    seconds: float
    planner: Planner = field(init=False)
    levels: list[int] = field(default_factory=list)  # of each block

    def run(self) -> float:
        """Return the time that the search took [s]."""
        clock = Clock(self.seconds, self.machine.now)
        times = self._times()
        self.machine.time += 2 * (times.block_s + times.head_s)
        sizes = plan_text(times, clock.left, LENGTH, SAMPLES)
        self.planner = Planner(clock, times, sizes, SAMPLES)
        self.machine.time += sizes.gradients * times.layers * times.block_s * GRADIENT_COST
        self.machine.time += sizes.gradients * times.head_s * GRADIENT_COST
        costs = self._sweep(times)
        self._evolve(costs, times)
        self._build(costs, times)
        self.machine.time += 2 * self.planner.measured_windows() * times.forward_s
        return clock.spent

    def _times(self) -> ForwardTimes:
        each = 2 * LENGTH / self.machine.forward
        return ForwardTimes(
            self.model.layers, each * self.model.weights, each * self.model.vocabulary
        )

    def _sweep(self, times: ForwardTimes) -> FolderCosts:
        unit = Unit("block", (site("mlp.up", 0),))
        order = order_levels(*of_levels(), 4.5)
        schedule = self.planner.schedule((unit,), order, Path("unwritten"))
        schedule.path, schedule.block_weights = None, self.model.weights
        self._outside(schedule)
        statistics = STATISTICS_COST * times.block_s * self.planner.sizes.swept
        for layer in range(times.layers):
            self.machine.time += statistics
            allowed = self._first(schedule) if not layer else schedule.useful(layer, order)
            self._solve(schedule, allowed if layer else ())
            self.levels.append(len({name.partition(" on ")[0] for name in allowed}))
            schedule.statistics.add(statistics, 1.0)
            if not layer and schedule.choose_solver(allowed):
                self.machine.time += statistics
                self._solve(schedule, allowed)
            schedule.deadline_s = self._deadline(schedule)
        return self._costs(schedule)

    def _costs(self, schedule: Schedule) -> FolderCosts:
        return FolderCosts(
            times=self.planner.times,
            statistics_s=schedule.statistics.each / self.planner.sizes.swept,
            solve_s=schedule.solve_s() * self.model.weights * self.model.layers,
            outside_s=schedule.outside.each * self.model.vocabulary,
            factors=schedule.factors,
        )

    def _deadline(self, schedule: Schedule) -> float:
        return self.planner.deadlines(self._costs(schedule)).sweep_s

    def _outside(self, schedule: Schedule) -> None:
        began = schedule.clock.spent
        for done in range(9):
            if not schedule.has_time(began, done, schedules.OUTSIDE_FRACTION, LEAST_OUTSIDE):
                return
            each = self.model.vocabulary / (4 * self.machine.solving)
            self.machine.time += each
            schedule.record(level(LEVELS[done]), self.model.vocabulary, each, outside=True)

    def _first(self, schedule: Schedule) -> list[str]:
        """Compress the first block to levels while there is time; time the solvers."""
        began, done = schedule.clock.spent, []
        share = max(schedules.FIRST_FRACTION, 1 / self.model.layers)
        for name in schedule.order:
            written = {one.partition(" on ")[0] for one in done}
            if not schedule.has_time(began, len(written), share, LEAST_LEVELS):
                break
            done.append(name)
            if name.partition(" on ")[0] not in written:
                self._solve(schedule, [name])
        for solver in (PLAIN, BRIEF, THOROUGH):
            each = SOLVER_FACTORS[solver.sweeps] * self.model.weights / self.machine.solving
            self.machine.time += each
            schedule.record_solver(solver, each)
        return done

    def _solve(self, schedule: Schedule, names) -> None:
        factor = SOLVER_FACTORS[schedule.solver.sweeps]
        for name in {one.partition(" on ")[0] for one in names}:
            each = factor * self.model.weights / self.machine.solving
            self.machine.time += each
            schedule.record(level(name), self.model.weights, each)

    def _evolve(self, costs: FolderCosts, times: ForwardTimes) -> None:
        more = self.planner.clock.rounds_until(self.planner.deadlines(costs).evolution_s)
        self.machine.time += self.planner.sizes.held * times.evaluation_s
        while more():
            self.machine.time += 3.5 * self.planner.sizes.held * times.evaluation_s

    def _build(self, costs: FolderCosts, times: ForwardTimes) -> None:
        effort = self.planner.folder_effort(costs)
        factor = SOLVER_FACTORS[effort.solver.sweeps]
        read = FOLDER_STATISTICS_COST * STATISTICS_COST * times.block_s * times.layers
        solved = factor * self.model.weights * times.layers / self.machine.solving
        outside = self.model.vocabulary / (4 * self.machine.solving)
        self.machine.time += self.machine.drift * (
            read * effort.windows + solved + outside + 8 * times.forward_s
        )
        self.effort = effort


def of_levels():
    one = Unit("u", (site("mlp.up", 0),))
    names = {str(level(name)): level(name) for name in LEVELS}
    bits = {name: float(of.format.bits((64, 512))) / (64 * 512) for name, of in names.items()}
    assert one.weights
    return bits, {name: of.method == "gptq" for name, of in names.items()}


SMOL = Model(30, 3_540_000, 28_311_552)
MODELS = [
    Model(3, 800_000, 1_000_000),
    Model(8, 600_000, 1_000_000),
    SMOL,
    Model(22, 44_000_000, 65_000_000),
    Model(32, 218_000_000, 131_000_000),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("speed", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("drift", [0.8, 1.0, 1.15])
def test_a_search_ends_in_its_time(model: Model, speed: float, drift: float) -> None:
    for hurry in (1.0, 3.0, 20.0):
        machine = Machine(5e10 * speed, 2e6 * speed, drift)
        least = cheapest(model, machine)
        seconds = hurry * 1.5 * least
        took = Simulation(machine, model, seconds).run()
        assert took <= 1.1 * seconds, (hurry, took / seconds)


def cheapest(model: Model, machine: Machine) -> float:
    """The time of a search that does nothing but what cannot be left out."""
    each = 2 * LENGTH / machine.forward
    times = ForwardTimes(model.layers, each * model.weights, each * model.vocabulary)
    levels = LEAST_LEVELS + sum(SOLVER_FACTORS.values()) / model.layers
    solve = model.layers * model.weights / machine.solving
    outside = (LEAST_OUTSIDE + 1) * model.vocabulary / (4 * machine.solving)
    windows = 4 + 2.5 * 8
    statistics = windows * STATISTICS_COST * times.block_s * times.layers
    return (levels + 1) * solve + outside + statistics + 30 * times.forward_s


def test_more_time_is_used_for_more() -> None:
    found = []
    for minutes in (5, 10, 20, 60, 240):
        one = Simulation(Machine(), SMOL, 60.0 * minutes)
        one.run()
        sizes = one.planner.sizes
        found.append((sizes.gradients, sizes.held, sizes.swept, sum(one.levels), one.effort))
    for less, more in pairwise(found):
        assert all(a <= b for a, b in zip(less[:4], more[:4], strict=True))
        offers = list(efforts(SAMPLES, less[2]))
        assert more[4].solver.sweeps >= less[4].solver.sweeps, offers
    assert found[-1][4].solver == THOROUGH
    assert found[-1][4].windows == SAMPLES


def test_a_sweep_with_little_time_still_has_levels_to_choose_from() -> None:
    one = Simulation(Machine(), SMOL, 30.0)
    one.run()
    assert min(one.levels) == LEAST_LEVELS


def test_the_solver_is_thorough_where_all_blocks_fit() -> None:
    machine = Machine()
    schedule = Schedule(Clock(1000.0, machine.now), LEVELS, 10, 1000, 500.0)
    for solver, seconds in ((PLAIN, 1.0), (BRIEF, 2.0), (THOROUGH, 4.0)):
        schedule.record_solver(solver, seconds)
    schedule.record(level("int4-g64"), 1000, 20.0)
    assert not schedule.choose_solver(["int4-g64"])
    assert schedule.solver == PLAIN
    schedule.deadline_s = 801.0
    assert schedule.choose_solver(["int4-g64"])
    assert schedule.solver == THOROUGH
    assert schedule.solve_s() == pytest.approx(20.0 / 1000)


def test_a_schedule_goes_on_with_what_it_has_timed(tmp_path: Path) -> None:
    path, machine = tmp_path / "schedule.json", Machine()
    first = Schedule(Clock(100.0, machine.now), LEVELS, 10, 1000, 500.0, path)
    first.record(level("int4-g64"), 1000, 2.0)
    first.record_solver(PLAIN, 1.0)
    first.record_solver(THOROUGH, 5.0)
    first.statistics.add(3.0, 1.0)
    first.keep()
    again = Schedule(Clock(100.0, machine.now), LEVELS, 10, 1000, 500.0, path)
    assert again.levels == first.levels
    assert again.factors == first.factors
    assert again.statistics == first.statistics
    assert again.solve_s() == first.solve_s()


def test_levels_that_share_weights_are_counted_once() -> None:
    machine = Machine()
    schedule = Schedule(Clock(1000.0, machine.now), LEVELS, 10, 1000, 10.0)
    for name in LEVELS:
        schedule.record(level(name), 1000, 1.0)
    found = schedule.useful(1, LEVELS)
    assert {"int6-g64", "int6-g64 on int16-g32"} <= found or "int6-g64" not in found
    assert len({name.partition(" on ")[0] for name in found}) == LEAST_LEVELS


@pytest.mark.parametrize("target", [2.2, 3.6, 4.5, 6.3, 9.0])
def test_the_first_levels_keep_the_size(target: float) -> None:
    bits, plain = of_levels()
    found = order_levels(bits, plain, target)
    assert sorted(found) == sorted(bits)
    assert bits[found[0]] <= target
    smallest = min(bits[name] for name in bits if plain[name])
    assert smallest in [bits[name] for name in found[:2]]
    near = sorted(abs(bits[name] - target) for name in bits if plain[name])
    assert min(abs(bits[name] - target) for name in found[1:3]) <= near[1]


def test_sizes_of_text_grow_with_time_and_are_kept(tmp_path: Path) -> None:
    times = ForwardTimes(30, 0.1, 0.2)
    found = [plan_text(times, seconds, LENGTH, SAMPLES) for seconds in (1.0, 100.0, 1000.0, 1e6)]
    for less, more in pairwise(found):
        assert less.gradients <= more.gradients
        assert less.held <= more.held
        assert less.swept <= more.swept
    assert (found[0].gradients, found[0].held, found[0].swept) == (1, 1, 4)
    assert (found[-1].gradients, found[-1].held, found[-1].swept) == (8, 32, SAMPLES)
    keep_sizes(tmp_path / "text.json", found[1], times)
    assert kept_sizes(tmp_path / "text.json") == (found[1], times)
    assert kept_sizes(tmp_path / "none.json") is None


def test_the_most_thorough_folder_that_fits() -> None:
    times = ForwardTimes(10, 0.01, 0.01)
    costs = FolderCosts(times, 0.03, 20.0, 5.0, SOLVER_FACTORS)
    offers = list(efforts(SAMPLES, 16))
    took = [costs.seconds(one) for one in offers]
    assert took == sorted(took, reverse=True)
    for one, seconds in zip(offers, took, strict=True):
        assert plan_folder(costs, offers, seconds) == one
    assert plan_folder(costs, offers, 0.0) == offers[-1]
    assert plan_measurement(times, 0.0, 128) == 8
    assert plan_measurement(times, 1e9, 128) == 128


def test_a_folder_that_took_longer_is_estimated_so() -> None:
    machine = Machine()
    clock = Clock(1000.0, machine.now)
    times = ForwardTimes(10, 0.01, 0.01)
    planner = Planner(clock, times, plan_text(times, 1000.0, LENGTH, SAMPLES), SAMPLES)
    costs = FolderCosts(times, 0.03, 20.0, 5.0, SOLVER_FACTORS)
    effort = planner.folder_effort(costs)
    before = planner.folder_s(costs, effort)
    planner.learn_folder(costs, effort, 2 * before)
    assert planner.folder_s(costs, effort) == pytest.approx(2 * before)


def test_a_sweep_begins_where_the_best_folder_still_fits() -> None:
    times, every = ForwardTimes(10, 0.01, 0.01), (Unit("layers.0.mlp.in", (site("mlp.up", 0),)),)
    begins = []
    for seconds in (1.0, 20.0, 60.0, 400.0, 4000.0):
        planner = Planner(
            Clock(seconds, Machine().now),
            times,
            plan_text(times, seconds, LENGTH, SAMPLES),
            SAMPLES,
        )
        schedule = planner.schedule(every, ["int4-g64"], Path("unwritten"))
        for solver in (PLAIN, BRIEF, THOROUGH):
            schedule.probe(solver, 1000, SOLVER_FACTORS[solver.sweeps] / 1000)
        begins.append(planner.may_sweep(schedule, every))
    assert begins == sorted(begins)
    assert not begins[0]
    assert begins[-1]


def test_times_of_a_window_are_corrected_by_the_backward_pass() -> None:
    times = ForwardTimes(10, 0.04, 0.4)
    planner = Planner(Clock(100.0, Machine().now), times, plan_text(times, 100.0, 512, 8), 8)
    planner.learn_forward(2, times.gradient_s)  # two windows took what one was expected to
    assert planner.times.forward_s == pytest.approx(times.forward_s / 2)


def test_speed_is_predicted_where_a_limit_needs_it_or_there_is_time() -> None:
    times = ForwardTimes(10, 0.1, 0.1)
    sizes = plan_text(times, 20.0, LENGTH, SAMPLES)
    planner = Planner(Clock(20.0, Machine().now), times, sizes, SAMPLES)
    assert not planner.predicts_speed(limits(max_size="1MB"))
    assert planner.predicts_speed(limits(min_decode="10tok/s"))


def test_phases_are_recorded_as_planned_and_as_they_were() -> None:
    machine = Machine()
    timeline = Timeline(Clock(10.0, machine.now))
    with timeline.phase("sweep", 3.0, "4 windows"):
        machine.time += 5.0
    (one,) = timeline.phases
    assert (one.name, one.planned_s, one.spent_s, one.effort) == ("sweep", 3.0, 5.0, "4 windows")


def test_rounds_end_before_a_deadline() -> None:
    machine = Machine()
    clock = Clock(100.0, machine.now)
    more, count = clock.rounds_until(35.0), 0
    while more():
        machine.time += 10.0
        count += 1
    assert count == 3
    assert clock.spent == 30.0
