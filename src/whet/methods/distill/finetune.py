"""Fine-tuning: the model learns from text alone.

All weights, norms alone (arXiv:2309.02784), or low-rank factors that are merged at the end (LoRA,
arXiv:2106.09685). After compression the original teaches better than the text: see `distill`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from whet.model.decoder import Model
from whet.passes.model_pass import Task
from whet.train.lesson import Lesson
from whet.train.loss import Objective
from whet.train.text import Reader
from whet.train.training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune(Training):
    """Train the model on the text itself."""

    name: ClassVar[str] = "finetune"

    def lesson(self, student: Model, reader: Reader, task: Task) -> tuple[Lesson, nn.Module]:
        """Return what the student is asked: the next token."""
        lesson = Lesson(
            student=student,
            teacher=None,
            reader=reader,
            objective=Objective(alpha=1.0),
            parts=self.parts,
            thrifty=self.thrifty,
        )
        return lesson, nn.Module()
