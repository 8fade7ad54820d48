"""Passes that train a whole model: the settings that all of them share, and what they leave."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from whet.base.allocator import release
from whet.base.errors import FolderError
from whet.base.quantity import Quantity
from whet.base.seed import stream_seed
from whet.model.decoder import Model, load
from whet.passes.linear_pass import says
from whet.passes.model_pass import Config, ModelPass, Outcome, Task
from whet.train.board import board, missing
from whet.train.course import Course, Descent, untouched
from whet.train.lesson import Lesson
from whet.train.parallel import Team
from whet.train.schedule import Schedule
from whet.train.sharded import Divide, divided, finished, undivided
from whet.train.text import Reader
from whet.train.trainable import Scope, parameters, recoded, saved, trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(ModelPass):
    """What every pass that trains is told; weights that are codes already stay as they are."""

    coded: ClassVar[bool] = True
    together: ClassVar[bool] = True
    tokens: int = field(default=500_000, metadata=says("text to train on [token]"))
    length: int = field(default=256, metadata=says("tokens a window [token]"))
    batch: int = field(default=8, metadata=says("windows a step [1]"))
    parts: int = field(
        default=1, metadata=says("equal parts that a step is computed in, for memory [1]")
    )
    lr: float = field(default=1e-3, metadata=says("greatest learning rate of AdamW [1]"))
    schedule: Schedule = field(
        default="cosine", metadata=says("course of the learning rate: cosine, wsd or constant")
    )
    warmup: float = field(default=0.05, metadata=says("share of the steps that warm up [1]"))
    weight_decay: float = field(default=0.0, metadata=says("decay of matrices, AdamW's [1]"))
    clip: float = field(default=1.0, metadata=says("greatest norm of a gradient; 0 for any [1]"))
    scope: str = field(default="all", metadata=says("what is trained: all, norms, or e.g. lora-16"))
    keep_zeros: bool = field(
        default=True, metadata=says("weights that are exactly zero (pruned) stay zero")
    )
    thrifty: bool = field(
        default=False, metadata=says("compute the inside of blocks twice instead of keeping it")
    )
    sharded: bool = field(
        default=False,
        metadata=says(
            "divide parameters, gradients and moments among the processes that torchrun starts"
        ),
    )
    log: str = field(default="", metadata=says("folder for TensorBoard; empty for none"))

    def __post_init__(self) -> None:
        """Refuse settings out of their range."""
        self.check()

    def check(self) -> None:
        """Refuse settings out of their range."""
        Scope.parse(self.scope)
        for name, least in (("tokens", 1), ("length", 8), ("batch", 1), ("parts", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more")
        if self.batch % self.parts:
            raise ValueError(f"batch is {self.batch}, expected a multiple of parts ({self.parts})")
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}, expected above 0")
        for name in ("weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}, expected from 0, below 1")

    @property
    def steps(self) -> int:
        """How many steps the text is read in."""
        return max(1, round(self.tokens / (self.batch * self.length)))

    @property
    def course(self) -> Course:
        """How the optimiser goes."""
        return Course(
            steps=self.steps,
            lr=self.lr,
            schedule=self.schedule,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            clip=self.clip,
            parts=self.parts,
        )

    def refuses(self, config: Config) -> str | None:
        """Refuse a log that nothing here can write, and parts that processes cannot share."""
        return Team.announced().refuses(self.parts) or missing(self.log)

    @abstractmethod
    def lesson(self, student: Model, reader: Reader, task: Task) -> tuple[Lesson, nn.Module]:
        """Return what the student is asked, and what is trained beside it and thrown away."""

    def run(self, task: Task) -> Outcome:
        """Return the trained model."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            return self._trained(task)

    def student(self, task: Task) -> Model:
        """Return the model with what is to be trained as parameters."""
        scope = Scope.parse(self.scope)
        return trainable(
            load(task.source),
            scope,
            task.seed,
            keep_zeros=self.keep_zeros,
            divide=self.divide,
        )

    @property
    def divides(self) -> bool:
        """Whether what is trained is divided among processes; one alone has nothing to divide."""
        return self.sharded and Team.announced().size > 1

    @property
    def divide(self) -> Divide:
        """What is done to each block as soon as it can be trained."""
        return divided if self.divides else undivided

    def rates(self, student: Model) -> Mapping[str, float]:
        """Return the learning rates, ÷ `lr`, of parameters that are not trained at `lr`."""
        return {}

    def beside(self, student: Model) -> Mapping[str, Tensor]:
        """Return what else has to be kept for exact resume: masks and scores, changed in place."""
        return {}

    def before(self, student: Model) -> Callable[[int], None]:
        """Return what sees and changes the gradients of each step."""
        return untouched

    def after(self, student: Model) -> Callable[[int], None]:
        """Return what is done to the student after each step."""
        return untouched

    def _trained(self, task: Task) -> Outcome:
        team = Team.joined()
        if self.divides:
            release()
        student = self.student(task)
        reader = self._reader(task, student.arch.context)
        lesson, beside = self.lesson(student, reader, task)
        if self.divides:
            finished(student, beside)
        own = parameters(student)
        extra = {f"beside.{name}": p for name, p in beside.named_parameters()}
        way = Descent(
            own | extra,
            self.course,
            task.work,
            task.advance,
            task.stopped,
            board(self.log if team.first else ""),
            self.before(student),
            self.after(student),
            self.rates(student),
            self.beside(student),
        )
        losses = way.run(lesson.loss)
        facts = {"": self._facts(losses, own)}
        return Outcome(saved(student, task.source), recoded(student), facts=facts)

    def _reader(self, task: Task, context: int) -> Reader:
        """Return the text; windows are no longer than the model can read."""
        ids = task.windows(max(1, -(-self.tokens // self.length)), min(self.length, context))
        if ids.shape[1] < 2:
            raise FolderError("windows of one token have nothing to predict", "Raise length.")
        return Reader(ids, self.batch, stream_seed(task.seed, self.name))

    def _facts(
        self, losses: list[float], trained: Mapping[str, nn.Parameter]
    ) -> dict[str, Quantity]:
        few = max(1, len(losses) // 10)
        count = sum(p.numel() for p in trained.values())
        return {
            "tokens": Quantity(self.steps * self.batch * self.length, "1", "tokens trained on"),
            "steps": Quantity(len(losses), "1", "steps of the optimiser"),
            "trained": Quantity(count, "1", "numbers that were trained"),
            "loss_first": Quantity(losses[0], "nat", "loss of the first step"),
            "loss_last": Quantity(sum(losses[-few:]) / few, "nat", "mean loss of the last tenth"),
        }
