"""Pruning during training: weights go a few at a time, and those that stay make good for them.

Gradual magnitude pruning on a cubic schedule (arXiv:1710.01878, §3) or movement pruning
(arXiv:2005.07683, §4), with an L1 or group-lasso penalty (arXiv:1608.03665, §3) if asked. The
original teaches throughout; the share that is zero is reached before the end, and the rest of the
steps train what is left.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakKeyDictionary

from torch import Tensor

from whet.model.decoder import Model, load
from whet.passes.linear_pass import says
from whet.passes.model_pass import Task
from whet.train.shrinking import Criterion, Penalty, Shrinking, pruned_share
from whet.train.taught import Taught
from whet.train.trainable import Scope, Trained, trainable

UNDER: WeakKeyDictionary[Model, dict[str, Shrinking]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularise(Taught):
    """Prune linears inside blocks while training all of the model."""

    name: ClassVar[str] = "regularise"
    coded: ClassVar[bool] = False
    sparsity: float = field(
        default=0.5, metadata=says("share of each matrix that becomes zero, 0 to below 1 [1]")
    )
    criterion: Criterion = field(
        default="magnitude", metadata=says("what is pruned first: least magnitude or movement")
    )
    penalty: Penalty = field(
        default="none", metadata=says("what shrinks weights: none, l1 or group (of an output)")
    )
    strength: float = field(default=1e-5, metadata=says("weight of the penalty [1]"))
    settle: float = field(
        default=0.3, metadata=says("share of the steps after the last weight is pruned [1]")
    )

    def check(self) -> None:
        """Refuse settings out of their range."""
        Taught.check(self)
        if self.scope != "all":
            raise ValueError(f"scope is {self.scope}, and pruning trains all")
        for name in ("sparsity", "settle"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected from 0, below 1")
        if self.strength < 0:
            raise ValueError(f"strength is {self.strength}, expected 0 or more")

    def student(self, task: Task) -> Model:
        """Return the model, with what is to be known of its matrices."""
        made = trainable(
            load(task.source),
            Scope(linears=True),
            task.seed,
            keep_zeros=False,
            divide=self.divide,
        )
        UNDER[made] = {
            f"{block.layer}.{role}": Shrinking.of(
                linear, self.criterion, self.penalty, self.strength
            )
            for block in made.blocks
            for role, linear in block.linears.items()
            if isinstance(linear, Trained)
        }
        return made

    def beside(self, student: Model) -> Mapping[str, Tensor]:
        """Return masks and scores."""
        found = UNDER[student].items()
        return {f"kept.{name}": one.kept for name, one in found} | {
            f"score.{name}": one.score for name, one in found
        }

    def before(self, student: Model) -> Callable[[int], None]:
        """Return what learns from each step's gradients."""

        def heed(_step: int) -> None:
            for one in UNDER[student].values():
                one.heed()

        return heed

    def after(self, student: Model) -> Callable[[int], None]:
        """Return what prunes some more after each step."""

        def prune(step: int) -> None:
            share = pruned_share(step, self.steps, self.sparsity, self.settle)
            for one in UNDER[student].values():
                one.prune(share)

        return prune
