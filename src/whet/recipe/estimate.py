"""What a run will need, predicted before it starts; a run that cannot fit is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from whet.base.errors import FitError
from whet.base.machine import free_disk, free_memory, resident
from whet.base.quantity import Quantity
from whet.calibrate.hidden_states import FREE_MEMORY_FRACTION
from whet.model.architecture import Architecture
from whet.model.family import Family, find
from whet.recipe.parts import HELD
from whet.recipe.pipeline import Pipeline, Stage, Whole
from whet.recipe.plan import Placed, Plan
from whet.recipe.streams import windows_at_once

FLOAT = 4  # [byte]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted needs; `seconds` is 0 where nothing was timed."""

    memory: int  # peak resident size, hidden states included [byte]
    hidden_states: int  # of it, what hidden states may take [byte]
    disk: int  # working files and the result together [byte]
    seconds: float
    how: str

    def facts(self) -> dict[str, Quantity]:
        """Return the prediction as facts."""
        facts = {
            "peak_rss": Quantity(self.memory, "byte", self.how),
            "hidden_states": Quantity(self.hidden_states, "byte", "of the peak, hidden states"),
            "disk": Quantity(self.disk, "byte", "result, finished parts and hidden states"),
        }
        if self.seconds:
            facts["seconds"] = Quantity(self.seconds, "s", self.how)
        return facts


def estimate(pipeline: Pipeline, memory_limit: int | None = None) -> Estimate:
    """Return an upper estimate from shapes alone: of the stage that needs most.

    `memory_limit` [byte] is for the whole process, half of what is free unless given. What the work
    itself leaves of it is for hidden states; those beyond go to disk.
    """
    limit = int(FREE_MEMORY_FRACTION * free_memory()) if memory_limit is None else memory_limit
    memory = max(_memory(stage) for stage in pipeline.stages)
    states = max(_hidden_states(stage) for stage in pipeline.stages)
    states = min(states, max(0, limit - memory))
    disk = max(_disk(pipeline, number) for number in range(len(pipeline.stages)))
    names = [stage.use.name for stage in pipeline.whole]
    told = f"; {', '.join(names)}: the largest block or tensor alone" if names else ""
    return Estimate(memory + states, states, disk, 0.0, f"from shapes{told}")


def refuse_misfits(need: Estimate, out: Path) -> None:
    """Raise if memory or disk cannot hold what the run needs."""
    memory, disk = free_memory() + resident(), free_disk(out)
    if need.memory > memory:
        raise FitError(
            f"needs about {_mib(need.memory)} of memory; {_mib(memory)} can be had",
            "Free memory, or use a recipe without statistics (int4-fast).",
        )
    if need.disk > disk:
        raise FitError(
            f"needs {_mib(need.disk)} of disk at {out.absolute().parent}; {_mib(disk)} are free",
            "Free space, write elsewhere with -o, or calibrate on fewer samples.",
        )


def _memory(stage: Stage) -> int:
    if isinstance(stage, Whole) and stage.use.tensorwise:
        largest = max((prod(s.info.shape) for s in stage.folder.tensors.values()), default=0)
        return resident() + 4 * largest * FLOAT + HELD
    if isinstance(stage, Whole):
        family, arch = _kind(stage)
        blocks = [family.block_sites(arch, layer) for layer in {0, arch.layers - 1}]
        shapes = ([site.shape for site in block] for block in blocks)
        return resident() + max(_working(each, arch.hidden, statistics=True) for each in shapes)
    layers = range(stage.anatomy.layers)
    return resident() + max((_block_memory(stage, stage.of_layer(i)) for i in layers), default=0)


def _kind(stage: Whole) -> tuple[Family, Architecture]:
    family = find(stage.folder.config)
    return family, family.architecture(stage.folder.config, stage.folder.tensors)


def _block_memory(plan: Plan, placed: tuple[Placed, ...]) -> int:
    sizes = [p.site.shape for p in placed]
    return _working(sizes, plan.anatomy.hidden, statistics=plan.needs_statistics)


def _working(sizes: Sequence[tuple[int, int]], hidden: int, *, statistics: bool) -> int:
    """Return the working set of one block: its weights, one tap's statistics, the solver, a batch."""
    weights = sum(rows * cols for rows, cols in sizes)
    largest = max((rows * cols for rows, cols in sizes), default=0)
    widest = max((cols for _, cols in sizes), default=0)
    gathered = 5 * widest**2 * FLOAT if statistics else 0
    tallest = max((rows for rows, _ in sizes), default=0)
    batch = windows_at_once(hidden, 1) * (4 * tallest + 8 * hidden) * FLOAT
    return 2 * weights + 6 * largest * FLOAT + gathered + batch


def _disk(pipeline: Pipeline, number: int) -> int:
    """Return what a stage keeps on disk: what it reads, if an earlier one has left it, and makes."""
    stage = pipeline.stages[number]
    read = stage.folder.nbytes if number else 0
    return read + 2 * stage.weights_bytes + _hidden_states(stage)


def _hidden_states(stage: Stage) -> int:
    """Return the size of the hidden states of a stage, wherever they are kept [byte]."""
    return _walked(stage) if isinstance(stage, Whole) else _streamed(stage)


def _streamed(plan: Plan) -> int:
    """Return the size of the hidden states between two blocks and within one [byte]."""
    calibration = plan.recipe.calibration
    widest = max((p.site.shape[1] for p in plan.placed if p.site.layer is not None), default=0)
    inside = widest + 2 * plan.anatomy.hidden if plan.needs_statistics else 0
    each = calibration.samples * calibration.length * (2 * plan.anatomy.hidden + inside) * FLOAT
    return (2 if plan.compares else 1) * each


def _walked(stage: Whole) -> int:
    """Return the size of the hidden states of a pass that walks through the blocks [byte]."""
    if stage.use.tensorwise:
        return 0
    _, arch = _kind(stage)
    tokens = getattr(stage.use, "samples", 0) * getattr(stage.use, "length", 0)
    return 2 * tokens * (3 * arch.hidden + arch.ffn) * FLOAT


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
