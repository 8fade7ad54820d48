"""Carry out a pipeline: each stage reads the folder that the one before has left, and leaves one.

    source ─▶ stage ─▶ plain folder ─▶ stage ─▶ … ─▶ the folder that is published

A recipe of one streamed stage works in the working folder itself; others have a folder a stage.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from whet.base.errors import NumericalError
from whet.base.record import Record, read_records
from whet.calibrate.hidden_states import MemoryBudget
from whet.calibrate.tokens import Reader, Tokens
from whet.model.opened import opened
from whet.model.source import Source
from whet.recipe.anatomy import FOREIGN
from whet.recipe.assemble import assemble
from whet.recipe.execute import HIDDEN_STATES, RUN, Execution
from whet.recipe.parts import PROBE, Parts, probed
from whet.recipe.pipeline import Pipeline, Stage, Whole
from whet.recipe.plan import Plan
from whet.recipe.progress import Progress, commit, finished
from whet.recipe.reload import logits
from whet.recipe.whole import WholeExecution
from whet.store.checkpoint import Checkpoint
from whet.store.finite import find_nonfinite
from whet.store.folder import Folder
from whet.store.tokenizer import Tokenizer
from whet.store.writer import write_shard
from whet.train.parallel import END, Team

if TYPE_CHECKING:
    from whet.recipe.foreign import ForeignExecution


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """A pipeline under way in a working folder."""

    pipeline: Pipeline
    tokens: Tokens
    work: Path
    final: Path
    progress: Progress
    stopped: Callable[[], bool]
    budget: MemoryBudget = field(default_factory=MemoryBudget)  # of hidden states

    def run(self) -> tuple[str, ...]:
        """Do every stage that is not done; return the names of the weight files in `final`.

        Law: a stage that is done is not done again; resumed and straight runs give the same bytes.
        """
        files: tuple[str, ...] = ()
        done = finished(self.work) - 1 if self._several else 0  # it counts the stages begun
        for number, stage in enumerate(self.pipeline.stages):
            if number >= done:
                files = self._do(number, stage)
        return files

    def follow(self) -> None:
        """Take part in what the first process of `torchrun` does not do alone."""
        while (said := Team.joined().heard()) != END:
            number = next(
                number
                for number, stage in enumerate(self.pipeline.stages)
                if isinstance(stage, Whole) and stage.number == said
            )
            stage = self.pipeline.stages[number]
            execution = self._execution(
                stage, Checkpoint(self._source(number)), self._place(number)
            )
            assert isinstance(execution, WholeExecution)
            execution.follow()

    @property
    def probe(self) -> Path:
        """Return the tokens and logits that a reloaded model must reproduce."""
        return self._place(len(self.pipeline.stages) - 1) / PROBE

    @property
    def settled(self) -> Pipeline:
        """Return the pipeline with the formats that its finished stages have written."""
        stages = tuple(self._settled(n, stage) for n, stage in enumerate(self.pipeline.stages))
        return replace(self.pipeline, stages=stages)

    def records(self) -> Iterator[Record]:
        """Yield what all stages have recorded, in order."""
        for number in range(len(self.pipeline.stages)):
            yield from self._recorded(number)

    def times(self) -> Iterator[Record]:
        """Yield how long the parts of the work took."""
        for number in range(len(self.pipeline.stages)):
            path = self._place(number) / RUN
            if path.is_file():
                with path.open(encoding="utf-8") as lines:
                    yield from read_records(lines, path)

    def _do(self, number: int, stage: Stage) -> tuple[str, ...]:
        """Do one stage, and leave its folder."""
        place, into = self._place(number), self._left(number)
        source = self._source(number)
        if self._several:
            place.mkdir(parents=True, exist_ok=True)
            commit(self.work, number + 1)
        execution = self._execution(stage, Checkpoint(source), place)
        execution.run()
        shutil.rmtree(into, ignore_errors=True)
        shards = execution.parts.shards(execution.count)
        stage = self._settled(number, stage)
        files = assemble(stage, self.pipeline.recipe, Checkpoint(source), shards, into)
        if isinstance(execution, WholeExecution):
            _refuse_nonfinite(stage, into)
        if number < len(self.pipeline.stages) - 1:
            commit(self.work, number + 2)
            self._tidy(number)
        elif isinstance(execution, WholeExecution):
            ids = probed(self.tokens.ids)
            write_shard(self.probe, {"ids": ids, "logits": logits(into, ids)})
        return files

    def _execution(
        self, stage: Stage, source: Checkpoint, place: Path
    ) -> "Execution | ForeignExecution | WholeExecution":
        """Return what runs a stage: block by block, as a whole, or by the code of transformers."""
        told, ids = (self.progress, self.stopped), self.tokens.ids
        if not isinstance(stage, Plan):
            recipe = self.pipeline.recipe
            text = Reader(recipe.calibration.source, Tokenizer(source.folder.path), recipe.seed)
            teacher: Source = Checkpoint(self.pipeline.folder)
            return WholeExecution(
                stage, source, teacher, text, recipe.seed, place, *told, self.budget
            )
        bound = replace(stage, folder=source.folder)
        if stage.anatomy.family != FOREIGN:
            return Execution(bound, source, ids, place, *told, self.budget)
        from whet.recipe.foreign import ForeignExecution

        return ForeignExecution(bound, ids, place, *told)

    def _recorded(self, number: int) -> Iterator[Record]:
        place = self._place(number)
        return Parts(place / "parts").records(finished(place))

    def _settled(self, number: int, stage: Stage) -> Stage:
        """Return a finished stage with the formats that it has written."""
        return stage.settled(self._recorded(number)) if isinstance(stage, Plan) else stage

    @property
    def _several(self) -> bool:
        return len(self.pipeline.stages) > 1 or bool(self.pipeline.whole)

    def _source(self, number: int) -> Folder:
        """Return the folder that a stage reads."""
        return opened(self._left(number - 1)) if number else self.pipeline.folder

    def _place(self, number: int) -> Path:
        """Return where a stage works."""
        return self.work / f"stage-{number + 1}" if self._several else self.work

    def _left(self, number: int) -> Path:
        """Return the folder that a stage leaves."""
        last = number == len(self.pipeline.stages) - 1
        return self.final if last else self._place(number) / "model"

    def _tidy(self, number: int) -> None:
        """Remove what only this stage needed; its records stay."""
        place = self._place(number)
        for name in (HIDDEN_STATES, "pass"):
            shutil.rmtree(place / name, ignore_errors=True)
        for shard in (place / "parts").glob("*.safetensors"):
            shard.unlink()
        if number:
            shutil.rmtree(self._left(number - 1), ignore_errors=True)


def _refuse_nonfinite(stage: Stage, folder: Path) -> None:
    """Raise if a pass over the whole model has made a number that is none."""
    found = find_nonfinite(opened(folder))
    if found is not None and isinstance(stage, Whole):
        name, index = found
        raise NumericalError(
            f"step {stage.number} ({stage.use.name}) has made {name}[{', '.join(map(str, index))}] "
            "a number that is not finite",
            "Use gentler settings there, or more calibration text.",
        )
