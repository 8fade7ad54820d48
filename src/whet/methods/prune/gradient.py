"""Keep the weights whose absence would change the loss most, as its gradients tell.

First-order Taylor: Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network
Pruning" (arXiv:1906.10771, §3.1): |w·g|. The empirical Fisher information, whose diagonal stands for
the curvature: Singh, Alistarh, "WoodFisher" (arXiv:2004.14340, §2): w²·E[g²]. Both are means over
windows of text, each with the gradient of its own mean loss, since the mean gradient of a trained
model is all but zero.

The result is plain numbers, of which those that go are zero. A step that prunes by magnitude, in the
same pattern, then stores them sparse, and with `refit` fits what is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.formats.pattern import Pattern, parse_pattern
from whet.formats.sparse import kept
from whet.methods.solve.checks import within
from whet.model.cut import Cutting, Piece
from whet.model.family import find
from whet.passes.linear_pass import says
from whet.passes.model_pass import Config, ModelPass, Outcome, Task
from whet.train.backward import Moments, Passed, gradients

Facts = dict[str, dict[str, Quantity]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient(ModelPass):
    """Set to zero the weights inside blocks that the loss depends on least, by its gradients.

    Law: as many stay, in each group, row or matrix, as the pattern says.
    """

    name: ClassVar[str] = "gradient"
    pattern: str = field(default="2:4", metadata=says("which stay: e.g. 2:4, sparse50"))
    criterion: Literal["taylor", "fisher"] = field(
        default="taylor", metadata=says("taylor: magnitude · gradient; fisher: their mean squares")
    )
    samples: int = field(default=64, metadata=says("calibration windows [1]"))
    length: int = field(default=256, metadata=says("tokens a window [token]"))

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        _ = self.chosen
        within(self, least={"samples": 1, "length": 2})

    @property
    def chosen(self) -> Pattern:
        """Return the pattern."""
        found = parse_pattern(self.pattern)
        if found is None:
            raise ValueError(f"pattern is {self.pattern!r}, expected e.g. 2:4 or sparse50")
        return found

    def refuses(self, config: Config) -> str | None:
        """Return why not."""
        family = find(config)
        arch = family.architecture(config)
        for site in (s for layer in range(arch.layers) for s in family.block_sites(arch, layer)):
            if why := self.chosen.unfit(site.shape[1]):
                return f"{site.module}: {why}"
        return None

    def run(self, task: Task) -> Outcome:
        """Return the model with zeros."""
        facts: Facts = {}
        return Outcome(self._tensors(task, facts), facts=facts)

    def _tensors(self, task: Task, facts: Facts) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, task.source.config)
        ids = task.windows(self.samples, min(self.length, cutting.old.context))
        for passed in gradients(task.source, ids, task.work, task.heed, task.budget):
            yield from cutting.block(passed.layer, self._pruned(passed, facts))

    def _pruned(self, passed: Passed, facts: Facts) -> Piece:
        weights: dict[str, Tensor] = {}
        for site in passed.block.sites:
            dense = passed.block.linears[site.role].weight.dense()
            scores = importance(dense, passed.moments[site.role], self.criterion)
            mask = kept(scores, self.chosen)
            weights[site.role] = dense * mask
            facts[site.module] = _facts(scores, mask)
        return Piece(passed.layer, weights=weights)


def importance(
    weight: Float[Tensor, "out in"], moments: Moments, criterion: str
) -> Float[Tensor, "out in"]:
    """Return E|w·g|, or w²·E[g²]; the magnitudes where no gradient came by."""
    taylor = criterion == "taylor"
    scores = weight.abs() * moments.size if taylor else weight.square() * moments.square
    return scores if scores.any() else weight.abs()


def _facts(scores: Tensor, mask: Tensor) -> dict[str, Quantity]:
    whole = float(scores.double().sum())
    gone = float((scores.double() * ~mask).sum())
    how = "importance of what goes ÷ of all"
    return {
        "sparsity": Quantity(
            1 - float(mask.double().mean()), "1", "weights that are not kept ÷ weights"
        ),
        "importance_pruned": Quantity(gone / whole if whole else 0.0, "1", how),
    }
