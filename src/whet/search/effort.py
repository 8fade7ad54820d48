"""How thoroughly a search works: what its time allows, by what has been timed in this run.

Every decision is a function of the time that is left and of measured unit costs, so it holds for a model
of any size on a machine of any speed. A decision is made as late as it can be, and the time that one
phase leaves goes to those after it:

    one window through one block ─▶ how much text
    the first block of the sweep ─▶ which levels, which solver, and which folder can be afforded
    every further block          ─▶ which levels are left out
    the end of the sweep         ─▶ the folder's solver and text, how long evolution may go on
    the folder                   ─▶ how many windows it is measured on, and whether it is trained
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from whet.search.unit import BRIEF, PLAIN, THOROUGH, Solver
from whet.store.durable import write_json
from whet.store.json_file import read_json

GRADIENT_TOKENS, HELD_TOKENS = 4096, 16384  # at most, where there is time
GRADIENT_FRACTION = 0.06  # of the time, for the backward pass
STATISTICS_FRACTION = 0.1  # of the time, for the input statistics of the sweep
EVOLUTION_FRACTION = 0.12  # of the time, for evolution
FOLDER_FRACTION = 0.4  # of the time, for the folder that is published, at most
MEASURE_FRACTION = 0.08  # of the time, to measure it
MARGIN_FRACTION = 0.05  # of the time, for what no estimate covers
PATIENCE_FRACTION = 0.01  # of the time, that one process waits for an undisturbed moment
EVALUATIONS = 24  # of whole choices that evolution needs at least to be worth it
GRADIENT_COST = 4.0  # times a forward pass: forward, forward again, backward by two products
STATISTICS_COST = 3.0  # times a forward pass of a block: each of its inputs is computed anew
FOLDER_STATISTICS_COST = 1.2  # times those of the sweep: the original and the compressed model
CHECK_WINDOWS = 8  # forward passes that checking and describing a folder takes, about
LEAST_SWEEP_WINDOWS = 4
LEAST_MEASURE_WINDOWS = 8


@dataclass(frozen=True, slots=True)
class ForwardTimes:
    """Times of one window of text: through one block, and through the head [s]."""

    layers: int
    block_s: float
    head_s: float

    @property
    def forward_s(self) -> float:
        """Time of one window through the model [s]."""
        return self.layers * self.block_s + self.head_s

    @property
    def gradient_s(self) -> float:
        """Time of one window through the model and back [s]."""
        return GRADIENT_COST * self.forward_s

    @property
    def evaluation_s(self) -> float:
        """Time to judge a choice on one window: both heads speak [s]."""
        return self.forward_s + self.head_s


@dataclass(frozen=True, slots=True)
class TextSizes:
    """How many windows each part of a search reads."""

    gradients: int
    held: int
    swept: int


def plan_text(times: ForwardTimes, seconds: float, length: int, samples: int) -> TextSizes:
    """Return the windows that a time allows, of `length` tokens; `samples` are there to calibrate on.

    Law: more time never means fewer windows.
    """
    statistics_s = times.layers * STATISTICS_COST * times.block_s
    evaluations_s = EVALUATIONS * times.evaluation_s / 2  # most read a quarter of the windows
    return TextSizes(
        gradients=_count(
            GRADIENT_FRACTION * seconds, times.gradient_s, 1, GRADIENT_TOKENS // length
        ),
        held=_count(EVOLUTION_FRACTION * seconds, evaluations_s, 1, HELD_TOKENS // length),
        swept=_count(STATISTICS_FRACTION * seconds, statistics_s, LEAST_SWEEP_WINDOWS, samples),
    )


def plan_measurement(times: ForwardTimes, seconds: float, most: int) -> int:
    """Return the windows on which a folder is measured beside the original in a time."""
    return _count(seconds, 2 * times.forward_s, LEAST_MEASURE_WINDOWS, most)


def _count(seconds: float, each_s: float, least: int, most: int) -> int:
    """Return how many fit into a time, within bounds."""
    most = max(1, most)
    fit = int(max(0.0, seconds) / each_s) if each_s > 0 else most
    return min(most, max(least, fit))


@dataclass(frozen=True, slots=True)
class FolderEffort:
    """How a folder is compressed: the solver, and the windows that it calibrates on."""

    solver: Solver
    windows: int

    def __str__(self) -> str:
        """Return it in words, for the plan that a user sees."""
        return f"{self.solver.sweeps} rounds of descent, {self.windows} windows"


@dataclass(frozen=True, slots=True)
class FolderCosts:
    """Unit costs of compressing a folder.

    statistics_s  of a block on one window
    solve_s       of all linears of all blocks with GPTQ alone
    outside_s     to write the embedding and the head
    factors       times that, with each solver
    """

    times: ForwardTimes
    statistics_s: float
    solve_s: float
    outside_s: float
    factors: Mapping[int, float]  # by the rounds of coordinate descent

    def seconds(self, effort: FolderEffort) -> float:
        """Return the time that a folder is estimated to take [s]."""
        read = FOLDER_STATISTICS_COST * self.statistics_s * self.times.layers * effort.windows
        solved = self.solve_s * self.factors[effort.solver.sweeps]
        return read + solved + self.outside_s + CHECK_WINDOWS * self.times.forward_s


def efforts(samples: int, swept: int) -> Iterator[FolderEffort]:
    """Yield ways to compress a folder, the most thorough first."""
    quarter = max(1, min(samples, max(swept, samples // 4)))
    yield FolderEffort(THOROUGH, samples)
    yield FolderEffort(THOROUGH, max(quarter, samples // 2))
    yield FolderEffort(THOROUGH, quarter)
    yield FolderEffort(BRIEF, quarter)
    yield FolderEffort(PLAIN, quarter)
    yield FolderEffort(PLAIN, max(1, quarter // 4))


def plan_folder(costs: FolderCosts, offers: Sequence[FolderEffort], seconds: float) -> FolderEffort:
    """Return the most thorough folder that a time allows; the cheapest where it allows none.

    Law: more time never means a less thorough folder.
    """
    fit = (one for one in offers if costs.seconds(one) <= seconds)
    return next(fit, min(offers, key=costs.seconds))


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When the sweep and evolution must end, so that what comes after keeps the time [s]."""

    sweep_s: float
    evolution_s: float
    folder: FolderEffort


def plan_deadlines(
    costs: FolderCosts, offers: Sequence[FolderEffort], seconds: float, spent: float
) -> Deadlines:
    """Return the plan for the time that is left, `spent` of `seconds` being over.

    The folder gets what it needs up to its fraction of what is left, since its solver is worth most.
    """
    end = (1 - MARGIN_FRACTION - MEASURE_FRACTION) * seconds
    folder = plan_folder(costs, offers, FOLDER_FRACTION * max(0.0, end - spent))
    evolution = max(spent, end - costs.seconds(folder))
    share = EVOLUTION_FRACTION * seconds
    return Deadlines(max(spent, evolution - share), evolution, folder)


def keep_sizes(path: Path, sizes: TextSizes, times: ForwardTimes) -> None:
    """Write the sizes of the text, which a search that goes on must use again."""
    write_json(path, {"sizes": asdict(sizes), "times": asdict(times)})


def kept_sizes(path: Path) -> tuple[TextSizes, ForwardTimes] | None:
    """Return the sizes that an earlier search on the same text has written, or None."""
    if not path.is_file():
        return None
    held = read_json(path)
    return TextSizes(**held["sizes"]), ForwardTimes(**held["times"])
