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
from whet.formats.spec import Coded, Format, Sum
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
        """Return the problem that is left when another term takes care of a part of the target."""
        return replace(self, target=self.target - taken)

    def loss(self, values: Float[Tensor, "in out"]) -> Float[Tensor, "out"]:
        """Return the undamped loss of each output."""
        delta = values - self.target
        damped = self.factor.energy(delta)
        return (damped - self.factor.ridge * delta.square_().sum(0)).clamp(min=0)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Members of a format and the parameters that they are written with; `kept` counts outputs
    for which rounding to nearest was the better start."""

    values: Float[Tensor, "in out"]
    params: Params
    kept: int


def solved(problem: Problem, codec: Scaled, search: Search, sweeps: int) -> Solution:
    """Return the solution for one format.

    Law: in no output is the (damped) loss above that of rounding to nearest with the same ranges.
    """
    target, diagonal = problem.target, problem.H.diagonal()
    params = codec.fit(target.T.contiguous().float(), search, diagonal.float())
    lattice = Lattice(codec, params, len(target))
    values, loss = rounded(target, problem.factor, lattice)
    nearest = lattice.snapped(target)
    worse = problem.factor.energy(nearest - target) < loss
    values = torch.where(worse, nearest, values)
    del nearest
    return _descended(problem, lattice, values, sweeps, int(worse.sum()))


def improved(problem: Problem, codec: Scaled, start: Solution, sweeps: int) -> Solution:
    """Return a solution found from another by coordinate descent alone. Law: never worse."""
    lattice = Lattice(codec, start.params, len(problem.target))
    return _descended(problem, lattice, start.values.clone(), sweeps, start.kept)


def _descended(
    problem: Problem, lattice: Lattice, values: Tensor, sweeps: int, kept: int
) -> Solution:
    if sweeps:
        walk = Descent(problem.target, values, problem.H, problem.factor.ridge, lattice)
        for left in reversed(range(sweeps)):
            changed = walk.sweep(settle=left > 0)
            if left > 0 and lattice.levels is not None:
                relevel(walk)
            if not changed:
                break
    return Solution(values, lattice.params(), kept)


def solved_terms(
    problem: Problem, format_: Format, search: Search, sweeps: int
) -> list[tuple[Coded, Solution]]:
    """Return the solution of each term of a format; one alone for a format that is no sum.

    Terms are solved in turn for what the ones before leave, then each once more for what all
    others leave.
    """
    terms = format_.terms if isinstance(format_, Sum) else (format_,)
    coded = [term for term in terms if isinstance(term, Coded)]
    codecs = [codec_of(term) for term in coded]
    found: list[Solution] = []
    taken = torch.zeros_like(problem.target)
    for codec in codecs:
        assert isinstance(codec, Scaled)
        found.append(solved(problem.less(taken) if found else problem, codec, search, sweeps))
        taken = taken + found[-1].values
    for i, codec in enumerate(codecs if len(codecs) > 1 and sweeps else ()):
        assert isinstance(codec, Scaled)
        taken = taken - found[i].values
        found[i] = improved(problem.less(taken), codec, found[i], sweeps)
        taken = taken + found[i].values
    return list(zip(coded, found, strict=True))
