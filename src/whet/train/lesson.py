"""One step's loss: what the student says beside what the teacher says, of text or of its own words."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from whet.base.seed import stream_seed
from whet.model.decoder import Model
from whet.train.cached import Kept
from whet.train.chunks import Taught, over_tokens
from whet.train.features import Measure, attention_distance, distance, matched
from whet.train.forward import mixed, states
from whet.train.loss import Objective, Teaching, Truncated
from whet.train.sampling import continued
from whet.train.text import Reader


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A text that a model has read: what entered its first block and what left each."""

    model: Model
    states: list[Float[Tensor, "batch time hidden"]]

    def attention(self) -> Float[Tensor, "batch heads time past"]:
        """Return the attention of the last block."""
        return self.model.blocks[-1].attention(self.states[-2])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What is compared beside logits: at what weights, how, and through which maps.

    `weight` is that of hidden states, `attention` that of the last layer's attention.
    """

    weight: float
    attention: float
    measure: Measure
    maps: nn.ModuleList

    def of(self, student: Read, teacher: Read) -> Float[Tensor, ""]:
        """Return the weighed sum of both distances."""
        total = student.states[-1].new_zeros(())
        if self.weight:
            total = total + self.weight * self._states(student.states, teacher.states)
        if self.attention:
            apart = attention_distance(student.attention(), teacher.attention())
            total = total + self.attention * apart
        return total

    def _states(self, student: list[Tensor], teacher: list[Tensor]) -> Float[Tensor, ""]:
        """Return the mean distance of what leaves matched blocks."""
        pairs = enumerate(matched(len(student) - 1, len(teacher) - 1))
        found = [
            distance(
                self.maps[i](student[i + 1]) if len(self.maps) else student[i + 1],
                teacher[other + 1],
                self.measure,
            ).mean()
            for i, other in pairs
        ]
        return torch.stack(found).mean()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """Text, who reads it, and what is asked of the reader.

    `teacher` is a model, what was kept of one, or None where the text alone teaches. A share
    `own` of the parts of steps is written by the student itself after prompts of `prompt` tokens;
    the text has nothing to say of those, so the loss is the divergence alone.
    """

    student: Model
    teacher: Model | Kept | None
    reader: Reader
    objective: Objective
    features: Features | None = None
    own: float = 0.0
    prompt: int = 32
    parts: int = 1
    thrifty: bool = False

    def loss(self, step: int, part: int) -> Float[Tensor, ""]:
        """Return the mean loss of a part of a step."""
        numbers = self.reader.share(step, part, self.parts)
        ids, objective, counted = self.reader.ids[numbers], self.objective, None
        if self._writes(step, part):
            ids, counted = self._written(ids, step, part)
            objective = replace(objective, alpha=0.0)
        arch = self.student.arch
        with mixed(arch.hidden):
            found = states(self.student, ids[:, :-1], thrifty=self.thrifty)
            taught, known = self._taught(ids, numbers)
            loss = over_tokens(
                found[-1].flatten(0, 1),
                self.student.head,
                taught,
                ids[:, 1:].flatten(),
                objective,
                arch.vocab,
                counted=counted,
            )
            if self.features is not None and isinstance(self.teacher, Model):
                both = Read(self.student, found), Read(self.teacher, known)
                loss = loss + self.features.of(*both)
        return loss

    @torch.no_grad()
    def _taught(
        self, ids: Int64[Tensor, "batch time"], numbers: Int64[Tensor, "batch"]
    ) -> tuple[Taught, list[Tensor]]:
        """Return what the teacher says of some tokens, and what leaves its blocks."""
        if self.teacher is None:
            return _nothing, []
        if isinstance(self.teacher, Kept):
            known = self.teacher.read(numbers)
            return (
                lambda part: Truncated(known.places[part], known.logs[part], known.tail[part])
            ), []
        found, head = states(self.teacher, ids[:, :-1]), self.teacher.head
        flat = found[-1].flatten(0, 1)

        def taught(part: slice) -> Teaching:
            with torch.no_grad():
                return head(flat[part])

        return taught, found

    def _writes(self, step: int, part: int) -> bool:
        """Return whether the student writes the text of a part itself."""
        name = f"own/{step}/{part}"
        return stream_seed(self.reader.seed, name) % 10_000 < self.own * 10_000

    def _written(
        self, ids: Int64[Tensor, "batch time"], step: int, part: int
    ) -> tuple[Tensor, Bool[Tensor, "tokens"]]:
        """Return text of the student's own, and which of its tokens it wrote."""
        seed = stream_seed(self.reader.seed, f"sample/{step}/{part}")
        made = continued(self.student, ids[:, : self.prompt], ids.shape[1], seed)
        counted = torch.zeros(made.shape[0], made.shape[1] - 1, dtype=torch.bool)
        counted[:, self.prompt - 1 :] = True
        return made, counted.flatten()


def _nothing(part: slice) -> None:
    """Say nothing of any token: the text alone teaches."""
