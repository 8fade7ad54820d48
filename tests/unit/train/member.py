"""What each process of a team does: it trains models by given settings, and the first keeps what came."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.base.errors import StoppedError
from whet.formats.spec import parse
from whet.formats.weight import Weight, written
from whet.methods import method
from whet.model.site import Site
from whet.model.source import InMemory
from whet.passes.model_pass import Outcome, Task
from whet.train import training
from whet.train.course import Descent
from whet.train.parallel import Team
from whet.train.sharded import local


@dataclass(frozen=True)
class Coded(InMemory):
    """A source whose linears inside blocks are in a format of their own."""

    format: str = ""

    def weight(self, site: Site) -> Weight:
        found = InMemory.weight(self, site)
        if not self.format or site.layer is None:
            return found
        return written(found.dense(), parse(self.format))


@dataclass(frozen=True)
class Case:
    """A pass, its settings, and what it works on; with `stop`, it is stopped there and goes on."""

    use: str
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    student: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    ids: Tensor
    format: str = ""
    stop: int | None = None


@dataclass(frozen=True)
class Result:
    """What a run has left: its losses, and all tensors by name."""

    losses: list[float]
    tensors: dict[str, Tensor]
    held: int  # numbers of parameters and moments that this process held


def result(case: Case, work: Path) -> Result:
    """Train."""
    if case.stop is not None:
        asked = iter([False] * case.stop + [True])
        try:
            trained(case, work, lambda: next(asked))
        except StoppedError:
            return trained(case, work)
        raise AssertionError(case)
    return trained(case, work)


def trained(case: Case, work: Path, stopped: Callable[[], bool] = lambda: False) -> Result:
    seen: list[Descent] = []

    class Watched(Descent):
        def __post_init__(self) -> None:
            Descent.__post_init__(self)
            seen.append(self)

    training.Descent = Watched
    try:
        done = outcome(case, work, stopped)
        tensors = {name: value.clone() for name, value in done.tensors}
        tensors |= {site.module: weight.dense() for site, weight in done.weights}
        return Result(seen[0].losses, tensors, held(seen[0]))
    finally:
        training.Descent = Descent


def outcome(case: Case, work: Path, stopped: Callable[[], bool]) -> Outcome:
    student = Coded(case.config, case.student, case.format)
    teacher = InMemory(case.config, case.teacher)
    task = Task(
        student, teacher, lambda samples, time: case.ids[:samples, :time], work, 5,
        lambda share, what: None, stopped,
    )  # fmt: skip
    use: Any = method(case.use)
    return use(**case.settings).run(task)


def held(descent: Descent) -> int:
    """Numbers of parameters and moments that this process holds."""
    states = descent.optimizer.state.values()
    found = [value for state in states for name, value in state.items() if name != "step"]
    return sum(local(x).numel() for x in (*descent.parameters.values(), *found))


def main() -> None:
    torch.set_num_threads(1)
    source, out = map(Path, sys.argv[1:])
    cases = [Case(**fields) for fields in torch.load(source, weights_only=True)]
    team = Team.joined()
    results = [vars(result(case, out / f"work-{i}")) for i, case in enumerate(cases)]
    torch.save(results, out / f"results-{team.rank}.pt")


if __name__ == "__main__":
    main()
