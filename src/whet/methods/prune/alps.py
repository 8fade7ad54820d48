"""ALPS: choose all weights that stay together, then give them their best values.

Meng, Behdin, Wang, Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large
Language Models" (arXiv:2406.07831, §3): a mask by ADMM, then exact least squares on it; here for a
target that makes good what earlier layers have lost (QEP, arXiv:2504.09629). With a format of codes
the kept weights are rounded column by column and improved by coordinate descent (QuantEase,
arXiv:2309.01885), for the same loss and with the mask as it is: pruned and rounded as one problem.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Stats
from whet.formats.codec import Search
from whet.methods.solve.checks import within
from whet.methods.solve.prune import best_support, posed, settled, solution, sparse_of, unable
from whet.methods.solve.pruning import Fitted
from whet.methods.solve.threads import threads_for
from whet.passes.linear_pass import Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class Alps(Fitted):
    """Choose the mask by ADMM, then the kept weights by least squares or, of codes, by descent."""

    name: ClassVar[str] = "alps"
    turns: int = field(default=300, metadata=says("turns of ADMM, at most [1]"))
    alpha: float = field(
        default=0.75, metadata=says("how far inputs are corrected for earlier damage, 0 to 1 [1]")
    )
    rho: float = field(
        default=0.75, metadata=says("how far o and down repair the residual stream, 0 to 1 [1]")
    )
    sweeps: int = field(default=8, metadata=says("passes of coordinate descent over codes [1]"))

    def check(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        Fitted.check(self)
        within(self, least={"turns": 0})

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the pruned weight."""
        codec = sparse_of(self.format)
        with threads_for(weight.numel()):
            problem = posed(weight, stats, self.asked)
            if isinstance(problem, str):
                return unable(weight, codec, problem)
            mask, free = best_support(problem, codec.pattern, self.turns)
            search = Search("hessian", self.range_steps)
            new = settled(problem, mask, codec, search, self.sweeps, free)
            return solution(problem, weight, mask, new)
