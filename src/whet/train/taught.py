"""Passes that learn from the original model: the settings that all of them share."""

from dataclasses import dataclass, field

from torch import nn

from whet.base.errors import FolderError
from whet.base.seed import stream_seed
from whet.model.decoder import Model, load
from whet.passes.linear_pass import says
from whet.passes.model_pass import Task
from whet.train.cached import Kept, kept
from whet.train.features import Measure, projectors
from whet.train.lesson import Features, Lesson
from whet.train.loss import Kind, Objective
from whet.train.parallel import Team
from whet.train.text import Reader
from whet.train.training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught(Training):
    """What every pass is told that learns from the original."""

    loss: Kind = field(
        default="forward",
        metadata=says("divergence: forward, reverse, jsd, skew or skew_reverse"),
    )
    temperature: float = field(default=1.0, metadata=says("divides logits [1]"))
    alpha: float = field(default=0.0, metadata=says("share of the text's own loss, 0 to 1 [1]"))
    mix: float = field(default=0.1, metadata=says("beta of jsd, alpha of the skewed kinds [1]"))
    features: float = field(
        default=0.0, metadata=says("weight of the distance of hidden states; 0 for none [1]")
    )
    measure: Measure = field(default="cosine", metadata=says("that distance: cosine or mse"))
    attention: float = field(
        default=0.0,
        metadata=says("weight of the distance of the last layer's attention; 0 for none [1]"),
    )
    cached: int = field(
        default=0,
        metadata=says(
            "tokens kept of each distribution on disk; 0: the original stays in memory [1]"
        ),
    )
    own: float = field(
        default=0.0, metadata=says("share of the text that the student writes itself, 0 to 1 [1]")
    )
    prompt: int = field(default=32, metadata=says("tokens that it is given to go on from [token]"))

    def check(self) -> None:
        """Refuse settings out of their range, and those that exclude each other."""
        Training.check(self)
        _ = self.objective
        for name in ("features", "attention", "cached"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.own <= 1:
            raise ValueError(f"own is {self.own}, expected 0 to 1")
        if not 1 <= self.prompt < self.length:
            raise ValueError(f"prompt is {self.prompt}, expected 1 to {self.length - 1}")
        if self.sharded and self.own:
            raise ValueError(
                f"own is {self.own}, and a model that is sharded writes no text of its own; "
                "set own to 0 or leave sharded false"
            )
        if self.cached and (self.features or self.attention or self.own):
            raise ValueError(
                "cached keeps no hidden states, no attention and knows no text but the given one"
            )

    @property
    def objective(self) -> Objective:
        """The loss."""
        return Objective(
            kind=self.loss, temperature=self.temperature, alpha=self.alpha, mix=self.mix
        )

    def lesson(self, student: Model, reader: Reader, task: Task) -> tuple[Lesson, nn.Module]:
        """Return what the student is asked, and the maps between hidden states of two widths."""
        teacher = self._teacher(reader, task, student.arch.vocab)
        maps, features = nn.ModuleList(), None
        if (self.features or self.attention) and isinstance(teacher, Model):
            widths = student.arch.hidden, teacher.arch.hidden
            if self.features:
                maps = projectors(student.arch.layers, *widths, stream_seed(task.seed, "projector"))
            features = Features(
                weight=self.features, attention=self.attention, measure=self.measure, maps=maps
            )
        lesson = Lesson(
            student=student,
            teacher=teacher,
            reader=reader,
            objective=self.objective,
            features=features,
            own=self.own,
            prompt=self.prompt,
            parts=self.parts,
            thrifty=self.thrifty,
        )
        return lesson, maps

    def _teacher(self, reader: Reader, task: Task, vocab: int) -> Model | Kept:
        """Return the original, or what is kept of what it says."""

        def original() -> Model:
            teacher = load(task.teacher)
            if teacher.arch.vocab != vocab:
                raise FolderError(
                    f"teacher and student have vocabularies of {teacher.arch.vocab} and {vocab}",
                    "A student learns from a teacher that has the same tokens.",
                )
            return teacher

        if not self.cached:
            return original()
        few = min(self.cached, vocab)

        def read() -> Kept:
            told = (task.advance, task.stopped)
            return kept(original, reader.ids, task.work, few, self.temperature, *told)

        Team.joined().led(read)
        return read()  # there is nothing left to read
