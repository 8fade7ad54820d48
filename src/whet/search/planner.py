"""The plan of a search: its clock, the unit costs that were timed, and what follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from whet.measure.windows import WINDOWS
from whet.search.clock import Clock, Timeline
from whet.search.effort import (
    MARGIN_FRACTION,
    MEASURE_FRACTION,
    STATISTICS_COST,
    Deadlines,
    FolderCosts,
    FolderEffort,
    ForwardTimes,
    TextSizes,
    efforts,
    plan_deadlines,
    plan_folder,
    plan_measurement,
)
from whet.search.schedule import LEAST_LEVELS, LEAST_OUTSIDE, Schedule
from whet.search.unit import Unit

if TYPE_CHECKING:
    from whet.search.limits import Limits

FIRST_SWEEP_FRACTION = 0.45  # of the time that is left, for a sweep of which nothing is timed yet
PREDICTOR_FRACTION = 0.05  # of the time, for predictions of speed that no limit depends on
PREDICTOR_WINDOWS = 24  # forward passes that timing a model's decoding and prompts takes, about
SPEED_WINDOWS = 24  # and timing a folder beside the original


@dataclass(slots=True)
class Planner:
    """What a search has time for.

    times    of one window of text, timed before anything else
    sizes    of the text
    samples  windows that there are to calibrate on
    sweep_s  time that the first sweep took, which those of other shapes may take too [s]
    folder   time that a folder took, as a multiple of what was estimated
    """

    clock: Clock
    times: ForwardTimes
    sizes: TextSizes
    samples: int
    timeline: Timeline = field(init=False)
    sweep_s: float | None = None
    folder: float = 1.0

    def __post_init__(self) -> None:
        """Begin a timeline."""
        self.timeline = Timeline(self.clock)

    def learn_forward(self, windows: int, spent: float) -> None:
        """Correct the times of one window by what the backward pass over some took [s]."""
        factor = spent / max(windows * self.times.gradient_s, 1e-9)
        self.times = ForwardTimes(
            self.times.layers, factor * self.times.block_s, factor * self.times.head_s
        )

    @property
    def offers(self) -> Sequence[FolderEffort]:
        """How a folder may be compressed, the most thorough first."""
        return tuple(efforts(self.samples, self.sizes.swept))

    def schedule(self, units: Sequence[Unit], order: Sequence[str], path: Path) -> Schedule:
        """Return the schedule of a sweep over some units."""
        inside = [unit for unit in units if unit.layer is not None]
        weights = sum(unit.weights for unit in inside) // max(1, self.times.layers)
        share = self.sweep_s
        if share is None:
            share = FIRST_SWEEP_FRACTION * self.clock.left
        deadline = self.clock.spent + min(share, self.clock.left)
        return Schedule(self.clock, order, self.times.layers, weights, deadline, path)

    def folder_costs(self, schedule: Schedule, units: Sequence[Unit]) -> FolderCosts:
        """Return what a folder costs, by what a sweep has shown so far."""
        inside = sum(unit.weights for unit in units if unit.layer is not None)
        outside = sum(unit.weights for unit in units if unit.layer is None)
        statistics_s = STATISTICS_COST * self.times.block_s
        if schedule.statistics.work:
            statistics_s = schedule.statistics.each / max(1, self.sizes.swept)
        return FolderCosts(
            times=self.times,
            statistics_s=statistics_s,
            solve_s=schedule.solve_s() * inside,
            outside_s=(schedule.outside.each or schedule.solve_s()) * outside,
            factors=schedule.factors,
        )

    def may_sweep(self, schedule: Schedule, units: Sequence[Unit]) -> bool:
        """Return whether the least sweep leaves time for the most thorough folder, and to measure it."""
        costs = self.folder_costs(schedule, units)
        statistics_s = self.times.layers * self.sizes.swept * costs.statistics_s
        least_s = statistics_s + LEAST_LEVELS * costs.solve_s + LEAST_OUTSIDE * costs.outside_s
        return least_s + self.folder_s(costs, self.offers[0]) + self.measure_s <= self.clock.left

    @property
    def estimate_s(self) -> float:
        """Time of estimating what levels cost: one product as large as a pass, for each window [s]."""
        return self.sizes.gradients * self.times.forward_s

    def replan(self, schedule: Schedule, units: Sequence[Unit]) -> None:
        """Move the end of a sweep to where what comes after it keeps the time."""
        if not schedule.statistics.work:
            return
        planned = self.deadlines(self.folder_costs(schedule, units)).sweep_s
        if self.sweep_s is not None:
            planned = min(planned, schedule.began_s + self.sweep_s)
        schedule.deadline_s = planned

    def deadlines(self, costs: FolderCosts) -> Deadlines:
        """Return when the sweep and evolution must end, and the folder that is planned."""
        corrected = self._corrected(costs)
        return plan_deadlines(corrected, self.offers, self.clock.seconds, self.clock.spent)

    def folder_effort(self, costs: FolderCosts) -> FolderEffort:
        """Return how the folder is compressed in the time that is left."""
        reserve = (MARGIN_FRACTION + MEASURE_FRACTION) * self.clock.seconds
        return plan_folder(self._corrected(costs), self.offers, self.clock.left - reserve)

    def folder_s(self, costs: FolderCosts, effort: FolderEffort) -> float:
        """Return the time that a folder is estimated to take [s]."""
        return self._corrected(costs).seconds(effort)

    def learn_folder(self, costs: FolderCosts, effort: FolderEffort, spent: float) -> None:
        """Correct the estimates of further folders by what one took."""
        self.folder *= spent / max(self.folder_s(costs, effort), 1e-9)

    def _corrected(self, costs: FolderCosts) -> FolderCosts:
        factor = self.folder
        times = replace(
            costs.times,
            block_s=factor * costs.times.block_s,
            head_s=factor * costs.times.head_s,
        )
        return replace(
            costs,
            times=times,
            statistics_s=factor * costs.statistics_s,
            solve_s=factor * costs.solve_s,
            outside_s=factor * costs.outside_s,
        )

    def measured_windows(self) -> int:
        """Return the windows on which a folder is measured."""
        share = max(self.clock.left / 3, MEASURE_FRACTION * self.clock.seconds)
        return plan_measurement(self.times, min(share, 0.6 * self.clock.left), WINDOWS)

    @property
    def measure_s(self) -> float:
        """Time to keep for a measurement and what no estimate covers [s]."""
        return (MARGIN_FRACTION + MEASURE_FRACTION) * self.clock.seconds

    def predicts_speed(self, limits: "Limits") -> bool:
        """Return whether there is time to predict speed that no limit depends on."""
        return limits.timed or (
            PREDICTOR_WINDOWS * self.times.forward_s <= PREDICTOR_FRACTION * self.clock.seconds
        )

    def may_time_again(self) -> bool:
        """Return whether a disturbed timing of a folder may be repeated."""
        return SPEED_WINDOWS * self.times.forward_s < self.clock.left / 4


def order_levels(
    bits: Mapping[str, float], plain: Mapping[str, bool], target: float | None
) -> list[str]:
    """Return levels by name, the most useful first.

    `bits` are those of a weight, `plain` says whether GPTQ writes it, which costs least. Those nearest to
    the `target` size [bit per weight] are useful most, one that is no larger before all others, and then
    the smallest: units that are offered less may need the room. Without a target the middle of the
    range comes first.
    """
    middle = sorted(bits.values())[len(bits) // 2] if target is None else target

    def key(name: str) -> tuple[bool, float, str]:
        return (not plain[name], abs(bits[name] - middle), name)

    found = sorted(bits, key=key)
    below = [name for name in found if bits[name] <= middle]
    first = dict.fromkeys([*below[:1], min(found, key=lambda name: (not plain[name], bits[name]))])
    return [*first, *(name for name in found if name not in first)]
