"""GPTQ-complete: the best member of a number format that this house knows how to find.

Ranges by the diagonal of H on static groups, GPTQ in the order of activation size, the better of
that and of rounding for each output, then sweeps of exact coordinate descent on codes, scales, zero
points and learned levels. A sum of formats is solved term by term, each for what the others leave.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats.codec import Params, Search
from whet.formats.codecs import codec_of
from whet.formats.scaled import Scaled
from whet.formats.spec import Format, Sum
from whet.methods.solve.columns import rounded
from whet.methods.solve.descent import Descent
from whet.methods.solve.factor import Factor
from whet.methods.solve.lattice import Lattice
from whet.methods.solve.levels import relevel

Rule = Literal["minmax", "percentile", "mse", "hessian", "kl"]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """min tr((Q-T) H (Q-T)ᵀ): the target T, H, and the factor of H with its ridge."""

    target: Float[Tensor, "in out"]
    H: Float[Tensor, "in in"]
    factor: Factor

    def less(self, taken: Float[Tensor, "in out"]) -> "Problem":
        """Return the problem that is left when other terms take care of a part of the target."""
        return replace(self, target=self.target - taken)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Members of a format, the parameters that they are written with, and the loss of each output.

    The loss is that with the ridge. `kept` counts outputs that rounding to nearest began.
    """

    values: Float[Tensor, "in out"]
    params: Params
    loss: Float[Tensor, "out"]
    kept: int


def solved(problem: Problem, codec: Scaled, search: Search, sweeps: int) -> Solution:
    """Return the solution for one format.

    Law: in no output is the loss above that of rounding to nearest with the same ranges.
    """
    target, diagonal = problem.target, problem.H.diagonal()
    params = codec.fit(target.T.contiguous().float(), search, diagonal.float())
    lattice = Lattice(codec, params, len(target))
    values, loss = rounded(target, problem.factor, lattice)
    nearest = lattice.snapped(target)
    loss_nearest = problem.factor.energy(nearest - target)
    worse = loss_nearest < loss
    start = Solution(
        torch.where(worse, nearest, values),
        params,
        torch.minimum(loss, loss_nearest),
        int(worse.sum()),
    )
    del nearest, values
    return improved(problem, codec, start, sweeps)


def improved(problem: Problem, codec: Scaled, start: Solution, sweeps: int) -> Solution:
    """Return a solution found from another by coordinate descent alone. Law: never worse.

    The last sweep is of codes alone, for the scales as they then are.
    """
    if not sweeps:
        return start
    lattice = Lattice(codec, start.params, len(problem.target))
    values = start.values.clone()
    walk = Descent(problem.target, values, problem.H, problem.factor.ridge, lattice)
    for left in reversed(range(sweeps)):
        changed = walk.sweep(settle=left > 0)
        if left and lattice.levels is not None:
            relevel(walk)
        if not changed:
            break
    return Solution(values, lattice.params(), walk.loss(), start.kept)


def solved_terms(
    problem: Problem, format_: Format, search: Search, sweeps: int
) -> list[tuple[Scaled, Solution]]:
    """Return the solution of each term of a format; of one alone for a format that is no sum.

    Terms are solved in turn, each for what the ones before it leave; then each once more, for what
    all others leave.
    """
    terms = format_.terms if isinstance(format_, Sum) else (format_,)
    codecs = [codec for term in terms if isinstance(codec := codec_of(term), Scaled)]
    assert len(codecs) == len(terms), f"{format_} is no format of codes"
    found: list[Solution] = []
    taken = torch.zeros_like(problem.target) if len(codecs) > 1 else None
    for codec in codecs:
        left = problem if taken is None else problem.less(taken)
        found.append(solved(left, codec, search, sweeps))
        taken = None if taken is None else taken + found[-1].values
    for i, codec in enumerate(codecs if taken is not None and sweeps else ()):
        assert taken is not None
        taken = taken - found[i].values
        found[i] = improved(problem.less(taken), codec, found[i], sweeps)
        taken = taken + found[i].values
    return list(zip(codecs, found, strict=True))
