"""Quantization-aware training: codes and scales learn from the original's logits, end to end.

Rounding is passed over on the way back, and step sizes are learned (LSQ, arXiv:1902.08153, §2). Without
`codes` only scales and norms are trained, the codes stay as earlier steps have found them: the
second phase of EfficientQAT (arXiv:2407.11062, §3.3), with the original's distribution for a target
in place of the text (LLM-QAT, arXiv:2305.17888, §2). It goes on from what an earlier step has
rounded, by whichever method and to whichever format of codes with scales. Codes that the original
weight was nearly rounded away from are the first to change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from whet.base.errors import RecipeError
from whet.model.decoder import Model, load
from whet.model.linear import Linear
from whet.passes.linear_pass import says
from whet.passes.model_pass import Task
from whet.train.rounding import Rounded, scaled_of
from whet.train.taught import Taught
from whet.train.trainable import Scope, trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class Qat(Taught):
    """Train scales, norms and, if asked, codes on what the original says; after rounding."""

    name: ClassVar[str] = "qat"
    codes: bool = field(default=False, metadata=says("train codes too, not scales and norms alone"))
    lr_code: float = field(
        default=0.001, metadata=says("greatest step of codes before they are rounded, ÷ scale [1]")
    )
    lr_scale: float = field(default=0.002, metadata=says("greatest relative step of a scale [1]"))

    def check(self) -> None:
        """Refuse settings out of their range."""
        Taught.check(self)
        for name in ("lr_code", "lr_scale"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")

    def student(self, task: Task) -> Model:
        """Return the model with codes, scales and norms as parameters."""
        norms = Scope(linears=False)
        original = self._original(task)

        def rounded(linear: Linear, role: str) -> Linear:
            if scaled_of(linear.weight.format) is None:
                return linear
            made = Rounded(linear, frozen=not self.codes, even=False)
            known = original.get(role)
            if known is not None and known.shape == linear.shape:
                made.lean(known.weight.dense())
            return made

        made = trainable(load(task.source), norms, task.seed, coded=rounded, divide=self.divide)
        if not any(isinstance(module, Rounded) for module in made.modules()):
            raise RecipeError(
                "qat finds no weight that is a code", "Put it after the step that rounds."
            )
        return made

    def rates(self, student: Model) -> Mapping[str, float]:
        """Return the learning rates of codes and scales, ÷ `lr`."""
        peaks = {"latent": self.lr_code, "growth": self.lr_scale}
        return {
            name: peaks[kind] / self.lr
            for name, _ in student.named_parameters()
            if (kind := name.rpartition(".")[2]) in peaks
        }

    def after(self, student: Model) -> Callable[[int], None]:
        """Return what keeps codes where rounding reaches them."""
        linears = [module for module in student.modules() if isinstance(module, Rounded)]

        def settle(_step: int) -> None:
            for linear in linears:
                linear.settle()

        return settle

    def _original(self, task: Task) -> dict[str, Linear]:
        """Return the linears of the original's blocks, if codes are to be trained."""
        if not self.codes:
            return {}
        return {
            f"layers.{block.layer}.{role}": linear
            for block in load(task.teacher).blocks
            for role, linear in block.linears.items()
        }
