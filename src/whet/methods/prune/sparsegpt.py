"""SparseGPT: prune input by input, and let those not yet reached make good what was lost.

Frantar, Alistarh, "SparseGPT" (arXiv:2301.00774, §3.2 and §3.3; joint with codes, §3.5), in the form of
`whet.methods.solve.columns`: before each block of inputs the weights of least t²·L_jj² in it are chosen
to go, t being what is best for them now. Exactly as many go as the pattern says. With a format of
codes, weights are pruned and rounded in the same pass.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.calibrate.statistics import Stats
from whet.formats.codec import Search
from whet.formats.pattern import Pattern, Within
from whet.formats.scaled import Scaled
from whet.formats.sparse import Sparse, greatest
from whet.formats.weight import Weight
from whet.methods.solve.checks import within
from whet.methods.solve.columns import rounded
from whet.methods.solve.complete import Problem
from whet.methods.solve.lattice import Kept, Masked
from whet.methods.solve.nearest import nearest_kept
from whet.methods.solve.prune import posed, settled, solution, sparse_of, unable
from whet.methods.solve.pruning import Fitted
from whet.methods.solve.threads import threads_for
from whet.passes.linear_pass import Rewrite, says


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseGpt(Fitted):
    """Prune input by input with second-order corrections; codes are chosen in the same pass."""

    name: ClassVar[str] = "sparsegpt"
    block: int = field(
        default=128, metadata=says("inputs whose weights compete, where the pattern is no n:m [1]")
    )
    refit: bool = field(
        default=False,
        metadata=says("then fit what is kept anew: least squares, or descent of codes"),
    )
    sweeps: int = field(
        default=4, metadata=says("passes of coordinate descent over codes, by refit [1]")
    )

    def check(self) -> None:
        """Refuse formats that keep everything, and settings out of their range."""
        Fitted.check(self)
        within(self, least={"block": 1})

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the pruned weight."""
        codec = sparse_of(self.format)
        with threads_for(weight.numel()):
            problem = posed(weight, stats, self.asked)
            if isinstance(problem, str):
                return unable(weight, codec, problem)
            new, mask = self._pruned(problem, codec)
            if self.refit:
                search = Search("hessian", self.range_steps)
                new = settled(problem, mask.T.bool(), codec, search, self.sweeps)
            return solution(problem, weight, mask.T.bool(), new)

    def _pruned(self, problem: Problem, codec: Sparse) -> tuple[Weight, Float[Tensor, "in out"]]:
        """Walk over the inputs once; ranges of codes are those of the whole target."""
        target = problem.target
        mask = torch.ones_like(target)
        chooser = Chooser(codec.pattern, mask)
        leaf = codec.pattern.group if isinstance(codec.pattern, Within) else self.block
        shape = (target.shape[1], len(target))
        if not isinstance(codec.inner, Scaled):
            values, _ = rounded(target, problem.factor, Kept(mask), leaf, chooser.choose)
            left = values.T.contiguous().float()
            return nearest_kept(left, mask.T.bool(), codec), mask
        importance = (problem.H.diagonal() + problem.factor.ridge).float()
        search = Search("hessian", self.range_steps)
        params = codec.inner.fit(target.T.contiguous().float(), search, importance)
        members = Masked(codec.inner, params, len(target), mask)
        values, _ = rounded(target, problem.factor, members, leaf, chooser.choose)
        planes = codec.inner.write(values.T.contiguous().float(), params)
        return Weight(codec.format, codec.write(planes, mask.T.bool()), shape), mask


class Chooser:
    """Chooses what goes, block by block, so that the counts of a pattern come out exactly."""

    def __init__(self, pattern: Pattern, mask: Float[Tensor, "in out"]) -> None:
        self.pattern, self.mask = pattern, mask
        self.reached = self.gone = 0  # inputs, and weights of a row or of the matrix, so far

    def choose(
        self,
        places: Int64[Tensor, "block"],
        best: Float[Tensor, "block out"],
        pivots: Float[Tensor, "block"],
    ) -> None:
        """Put the mask of some inputs where it belongs."""
        scores = (best.square() * pivots.square().unsqueeze(1)).T.contiguous()
        if isinstance(self.pattern, Within):
            chosen = greatest(scores, min(self.pattern.kept, len(places)))
        elif self.pattern.of_row(len(self.mask)) is not None:
            chosen = greatest(scores, len(places) - self._due(len(places)))
        else:
            flat = scores.reshape(1, -1)
            chosen = greatest(flat, flat.shape[1] - self._due(len(places))).reshape(scores.shape)
        self.mask[places] = chosen.T.to(self.mask.dtype)

    def _due(self, inputs: int) -> int:
        """Return how many weights of this block go, of a row or of the matrix."""
        total, rows = self.mask.shape
        row = self.pattern.of_row(total)
        every = rows * total - self.pattern.of_matrix(rows, total) if row is None else total - row
        self.reached += inputs
        due = every * self.reached // total - self.gone
        self.gone += due
        return due
