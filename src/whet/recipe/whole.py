"""Carry out a pass over the whole model: its tensors to numbered files, as they come."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from torch import Tensor

from whet.base.errors import FolderError, StoppedError
from whet.base.machine import peak_rss
from whet.base.quantity import Quantity
from whet.base.record import Record, append_records
from whet.calibrate.hidden_states import MemoryBudget
from whet.passes.model_pass import Outcome, Task, Windows
from whet.recipe.execute import RUN
from whet.recipe.parts import HELD, Parts
from whet.recipe.pipeline import Whole
from whet.recipe.progress import Progress, commit, finished
from whet.store.checkpoint import Checkpoint
from whet.store.dialects import BY_METHOD
from whet.store.dtypes import DTYPES
from whet.store.scheme import Scheme
from whet.train.parallel import Team, complete

PARTS = 1000  # into which the work is divided for who watches
FAULT = "this is a fault in whet"


@dataclass(frozen=True, slots=True, eq=False)
class WholeExecution:
    """A pass under way in a working folder; what it leaves are tensors, as a streamed stage does."""

    stage: Whole
    source: Checkpoint
    teacher: Checkpoint
    windows: Windows
    seed: int
    work: Path
    progress: Progress
    stopped: Callable[[], bool]
    budget: MemoryBudget = field(default_factory=MemoryBudget)  # of hidden states

    @property
    def parts(self) -> Parts:
        """Return what is finished."""
        return Parts(self.work / "parts")

    @property
    def count(self) -> int:
        """Return how many parts there are, once the pass has run."""
        return finished(self.work)

    def run(self) -> None:
        """Run the pass, unless it has; a pass that is stopped goes on from what it has kept."""
        if self.count:
            return
        if self.stopped():
            raise StoppedError(
                f"stopped before {self._name}; what is finished is kept in {self.work}",
                "Run the same command to go on.",
            )
        began = time.perf_counter()
        self.progress.start(PARTS, self._name)
        self._kept.mkdir(parents=True, exist_ok=True)
        if self.stage.use.together:
            Team.joined().say(self.stage.number)
        with complete():
            count = self._save(self.stage.use.run(self._task()))
        self._time(began)
        commit(self.work, count)
        self.progress.finish()

    def follow(self) -> None:
        """Run the pass beside the first process, which writes what it leaves."""
        with complete():
            outcome = self.stage.use.run(self._task())
            for _ in chain(outcome.tensors, outcome.weights):
                pass

    @property
    def _kept(self) -> Path:
        return self.work / "pass"

    @property
    def _name(self) -> str:
        return f"step {self.stage.number} ({self.stage.use.name})"

    def _task(self) -> Task:
        def advance(share: float, what: str) -> None:
            self.progress.advance(min(PARTS, max(0, round(PARTS * share))), what)

        told = (self.seed, advance, self.stopped, self.budget)
        return Task(self.source, self.teacher, self.windows, self._kept, *told)

    def _save(self, outcome: Outcome) -> int:
        """Write the tensors a few at a time, then the records; return how many parts there are."""
        seen: set[str] = set()
        count = 0
        tensors = chain(outcome.tensors, self._coded(outcome))
        for group in _gathered(self._checked(tensors, seen)):
            self.parts.save(count, group, [])
            count += 1
        self._check_rest(seen)
        self.parts.save(count, {}, list(self._records(outcome)))
        return count + 1

    def _coded(self, outcome: Outcome) -> Iterator[tuple[str, Tensor]]:
        """Yield the planes of weights that stay codes, as the source's dialect names them."""
        for site, weight in outcome.weights:
            dialect = BY_METHOD[self.source.config["quantization_config"]["quant_method"]]
            activation, scale = self.source.activation(site) or (None, None)
            scheme = Scheme(weight.format, activation)
            yield from dialect.tensors(site, weight, scheme, scale).items()

    def _checked(
        self, tensors: Iterator[tuple[str, Tensor]], seen: set[str]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield tensors in the type that they are stored in, once each is what was planned."""
        for name, tensor in tensors:
            stored = self.stage.result.tensors.get(name)
            if stored is None or name in seen or tuple(tensor.shape) != stored.info.shape:
                wanted = "none" if stored is None else f"one of {list(stored.info.shape)}"
                raise FolderError(
                    f"{self._name} gives a tensor {name} of {list(tensor.shape)}, "
                    f"planned was {wanted}",
                    FAULT,
                )
            seen.add(name)
            yield name, tensor.detach().to(DTYPES[stored.info.dtype])

    def _check_rest(self, seen: set[str]) -> None:
        """Raise unless the source has what the pass has left out."""
        held = self.source.folder.tensors
        for name, stored in self.stage.result.tensors.items():
            if name not in seen and (
                name not in held or held[name].info.shape != stored.info.shape
            ):
                raise FolderError(f"{self._name} gives no tensor {name}", FAULT)

    def _records(self, outcome: Outcome) -> Iterator[Record]:
        """Yield what is known of the result: of the whole first, then by site."""
        step, notes = self.stage.use.name, {"number": str(self.stage.number)}
        for site in dict.fromkeys(["", *outcome.facts, *outcome.fallbacks]):
            facts = dict(outcome.facts.get(site, {}))
            yield Record(step, site, facts, outcome.fallbacks.get(site), notes)

    def _time(self, began: float) -> None:
        facts = {
            "seconds": Quantity(time.perf_counter() - began, "s", "wall time"),
            "peak_rss": Quantity(peak_rss(), "byte", "largest resident size so far"),
        }
        append_records(self.work / RUN, [Record("time", self._name, facts)])


def _gathered(tensors: Iterator[tuple[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
    """Yield tensors in groups of a bounded size."""
    group: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        held = tensor.numel() * tensor.element_size()
        if group and size + held > HELD:
            yield group
            group, size = {}, 0
        group[name] = tensor
        size += held
    if group:
        yield group
