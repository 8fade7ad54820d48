"""GPTQ-complete: the best member of a number format that this house knows how to find.

Ranges by the diagonal of H, damped, on static groups, GPTQ in the order of activation size, the better of
that and of rounding for each output, then sweeps of exact coordinate descent on codes, scales, zero
points and learned levels. The terms of a sum are rounded together and then improved in turn.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats.codec import Params, Scalar, Search
from whet.formats.compose import Sum, Terms
from whet.formats.scaled import Scaled, joined, part, shares
from whet.methods.solve.columns import rounded
from whet.methods.solve.descent import Descent
from whet.methods.solve.factor import Factor
from whet.methods.solve.lattice import Joint, Lattice, Masked, Members
from whet.methods.solve.levels import relevel
from whet.methods.solve.slabs import slabs

TURNS = 2  # times that each term of a sum is solved for what the others leave

Rule = Literal["minmax", "percentile", "mse", "hessian", "kl"]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """min tr((Q-T) H (Q-T)ᵀ): the target T, H, and the factor of H with its ridge.

    `mask` says which weights may differ from zero; `free` is what these would be if any number
    could be written, and what ranges are fitted to.
    """

    target: Float[Tensor, "in out"]
    H: Float[Tensor, "in in"]
    factor: Factor
    mask: Float[Tensor, "in out"] | None = None
    free: Float[Tensor, "in out"] | None = None

    def outputs(self, some: slice) -> "Problem":
        """Return the problem of some outputs alone."""
        target, mask, free = (
            None if each is None else each[:, some].contiguous()
            for each in (self.target, self.mask, self.free)
        )
        assert target is not None
        return replace(self, target=target, mask=mask, free=free)

    def lattice(self, codec: Scaled, params: Params) -> Lattice:
        """Return what can be written."""
        if self.mask is None:
            return Lattice(codec, params, len(self.target))
        return Masked(codec, params, len(self.target), self.mask)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Members of a format, the parameters that they are written with, and the loss of each output.

    The loss is that with the ridge. `kept` counts outputs that rounding to nearest began.
    """

    values: Float[Tensor, "in out"]
    params: Params
    loss: Float[Tensor, "out"]
    kept: int


Solved = tuple[tuple[Scaled, Solution], ...]  # of each term


def solved(problem: Problem, codec: Scalar, search: Search, sweeps: int) -> Solved:
    """Return the solution of each term of a format; of one alone for a format that is no sum.

    Law: in no output is the loss above that of rounding to nearest with the same ranges.
    """
    target, importance = problem.target, (problem.H.diagonal() + problem.factor.ridge).float()
    shown = target if problem.free is None else problem.free
    params = codec.fit(shown.T.contiguous().float(), search, importance)
    if isinstance(codec, Scaled):
        return ((codec, _alone(problem, codec, params, sweeps)),)
    assert isinstance(codec, Sum)
    assert isinstance(params, Terms)
    start = _started(problem, Joint(codec, params), params)
    return _solved_terms(problem, codec, params, start, sweeps)


def _alone(problem: Problem, codec: Scaled, params: Params, sweeps: int) -> Solution:
    """Return the solution of a format that is no sum; where outputs share nothing, some at a time."""

    def solution(rows: slice) -> Solution:
        mine, given = problem.outputs(rows), part(params, rows)
        start = _started(mine, mine.lattice(codec, given), given)
        return improved(mine, codec, start, sweeps)

    every = _apart(codec, params, problem.target)
    if len(every) == 1:
        return solution(every[0])
    values, found = torch.empty_like(problem.target), list[Solution]()
    for some in every:
        one = solution(some)
        values[:, some] = one.values
        found.append(replace(one, values=values[:, some]))
    whole, loss = joined([one.params for one in found]), torch.cat([one.loss for one in found])
    return Solution(values, whole, loss, sum(one.kept for one in found))


def _apart(codec: Scaled, params: Params, values: Float[Tensor, "in out"]) -> list[slice]:
    """Return which outputs are worked on at a time: all, where they share something."""
    inputs, outputs = values.shape
    return [slice(None)] if shares(codec, params) else slabs(outputs, inputs)


def _started(problem: Problem, members: Members, params: Params) -> Solution:
    """Return the better of GPTQ and of rounding to nearest, for each output."""
    values, loss = rounded(problem.target, problem.factor, members)
    nearest = members.snapped(problem.target if problem.free is None else problem.free)
    loss_nearest = problem.factor.energy(nearest - problem.target)
    worse = loss_nearest < loss
    values = torch.where(worse, nearest, values)
    return Solution(values, params, torch.minimum(loss, loss_nearest), int(worse.sum()))


def improved(problem: Problem, codec: Scaled, start: Solution, sweeps: int) -> Solution:
    """Return a solution found from another by coordinate descent alone. Law: never worse.

    The last sweep is of codes alone, for the scales as they then are.
    """
    if not sweeps:
        return start
    lattice = problem.lattice(codec, start.params)
    values = start.values.clone()
    walk = Descent(problem.target, values, problem.H, problem.factor.ridge, lattice)
    for left in reversed(range(sweeps)):
        changed = walk.sweep(settle=left > 0)
        if left and lattice.levels is not None:
            relevel(walk)
        if not changed:
            break
    return Solution(values, lattice.params(), walk.loss(), start.kept)


def _solved_terms(
    problem: Problem, codec: Sum, params: Terms, start: Solution, sweeps: int
) -> Solved:
    """Improve each term of a sum in turn, for what the others leave of the target."""
    columns = torch.arange(len(problem.target))
    parts = codec.parts(start.values.T.contiguous().float(), params, columns)
    found = [
        Solution(part.T.to(start.values.dtype), term, start.loss, start.kept if i == 0 else 0)
        for i, (part, term) in enumerate(zip(parts, params.terms, strict=True))
    ]
    terms = tuple(zip(codec.codecs, found, strict=True))
    for _ in range(TURNS if sweeps else 0):
        terms = improved_terms(problem, terms, sweeps)
    return terms


def improved_terms(problem: Problem, terms: Solved, sweeps: int) -> Solved:
    """Improve each term in turn, for what the others leave of the target. Law: never worse."""
    found = list(terms)
    for i, (codec, start) in enumerate(terms):
        others = sum((part.values for j, (_, part) in enumerate(found) if j != i), start=0.0)
        left = replace(problem, target=problem.target - others)
        found[i] = codec, improved(left, codec, start, sweeps)
    return tuple(found)


def added(terms: Solved) -> Float[Tensor, "in out"]:
    """Return what the terms of a solution add up to."""
    return sum((part.values for _, part in terms[1:]), terms[0][1].values)


def planes_of(terms: Solved) -> dict[str, Tensor]:
    """Return the planes of a format, those of a sum numbered by term."""
    planes: dict[str, Tensor] = {}
    for i, (codec, found) in enumerate(terms):
        prefix = f"{i}." if len(terms) > 1 else ""
        own = _written(codec, found)
        planes |= {prefix + name: plane for name, plane in own.items()}
    return planes


def _written(codec: Scaled, found: Solution) -> dict[str, Tensor]:
    """Return the planes of one term, some outputs at a time unless a plane is of the whole matrix."""
    params = found.params
    every = [slice(None)] if params.extra else _apart(codec, params, found.values)
    made = [codec.write(found.values[:, some].T.contiguous(), part(params, some)) for some in every]
    return {name: torch.cat([planes[name] for planes in made]) for name in made[0]}
