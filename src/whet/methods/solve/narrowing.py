"""What methods have in common that cut an axis inside every block, and refit what reads it."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from whet.base.quantity import Quantity
from whet.calibrate.statistics import Gram
from whet.calibrate.walk import Stop, walk
from whet.formats.spec import Float
from whet.formats.weight import Weight
from whet.methods.solve.posed import aimed, needed
from whet.methods.solve.removal import Criterion, Removal, removal
from whet.model.cut import Cutting, Piece
from whet.model.site import Site
from whet.passes.linear_pass import says
from whet.passes.model_pass import ModelPass, Outcome, Task

Facts = dict[str, dict[str, Quantity]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing(ModelPass):
    """A cut of the least needed members of an axis, block by block; their reader makes up for them."""

    criterion: Criterion = field(
        default="obs",
        metadata=says("magnitude, activation (energy), or obs (cost after refitting)"),
    )
    refit: bool = field(
        default=True, metadata=says("fit the linear that reads them to what is left")
    )
    damping: float = field(default=0.01, metadata=says("ridge ÷ mean of the Gram's diagonal [1]"))
    alpha: float = field(
        default=0.5, metadata=says("how far to make up for inputs that have drifted [1]")
    )
    rho: float = field(
        default=0.5, metadata=says("how far to make up for a residual stream that has drifted [1]")
    )
    samples: int = field(default=128, metadata=says("calibration windows [1]"))
    length: int = field(default=512, metadata=says("tokens a window [token]"))

    def run(self, task: Task) -> Outcome:
        """Return the narrower model."""
        facts: Facts = {}
        return Outcome(self._tensors(task, facts), facts=facts)

    @abstractmethod
    def cut(self, stop: Stop, facts: Facts) -> Piece:
        """Return what stays of a block, whose linears are replaced by refitted ones."""

    def _tensors(self, task: Task, facts: Facts) -> Iterator[tuple[str, Tensor]]:
        cutting = Cutting.of(task.source, self.config(task.source.config))
        ids = task.windows(self.samples, min(self.length, cutting.old.context))
        followed = self.refit and bool(self.alpha or self.rho)
        for stop in walk(task.source, ids, task.work, followed=followed, budget=task.budget):
            task.heed(stop.layer / cutting.old.layers, f"block {stop.layer + 1}")
            yield from cutting.block(stop.layer, self.cut(stop, facts))

    def removed(
        self,
        stop: Stop,
        site: Site,
        keep: int,
        cost: Tensor,
        what: str,
        facts: Facts,
        size: int = 1,
    ) -> Removal:
        """Choose what `keep` of the inputs of a linear (in groups of `size`) stay, and refit it."""
        linear = stop.block.linears[site.role]
        weight = linear.weight.dense()
        seen = stop.look(site.tap, *(needed(self.alpha, self.rho) if self.refit else (Gram,)))
        if self.refit:
            weight = aimed(weight, seen, self.alpha, self.rho, self.damping)
        done = removal(
            weight,
            seen[Gram].mean(),
            keep,
            self.criterion,
            size=size,
            refit=self.refit,
            damping=self.damping,
            cost=cost,
        )
        shape = (weight.shape[0], weight.shape[1])
        linear.replace(Weight(Float("F32"), {"value": done.weight}, shape))
        facts[site.module] = _facts(done, what)
        return done


def _facts(done: Removal, what: str) -> dict[str, Quantity]:
    how = "‖W'x−Wx‖² ÷ ‖Wx‖² on the calibration tokens"
    return {
        "kept": Quantity(len(done.kept), "1", f"{what} that stay"),
        "output_error": Quantity(done.error, "1", how),
        "output_error_plain": Quantity(done.plain, "1", f"{how}, nothing refitted"),
    }
