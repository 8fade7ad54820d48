"""Which weights to keep so that the others can make good what is lost: ADMM with a growing penalty.

Meng, Behdin, Wang, Mazumder, "ALPS" (arXiv:2406.07831, §3). With the inputs scaled so that H
has a unit diagonal, a matrix X of least loss and a sparse D are drawn together:

    X = (H + rho)⁻¹ (H T - V + rho D),   D = the greatest of X + V / rho,   V += rho (X - D),

and rho grows quickly while the support changes much, slowly when it does not, until it rests: for each
output by itself where the pattern treats outputs apart.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whet.formats.pattern import Pattern
from whet.formats.sparse import kept

EVERY = 3  # turns after which rho grows
START = 0.1  # rho at first
QUICK, STEADY, SLOW = 1.3, 1.2, 1.1  # growth of rho while the support changes by
MUCH, SOME = 0.1, 0.005  # more than this share of what is kept


def support(
    target: Float[Tensor, "in out"],
    H: Float[Tensor, "in in"],
    ridge: float,
    pattern: Pattern,
    turns: int,
) -> Bool[Tensor, "out in"]:
    """Return the mask that ADMM rests at, or has come to after some turns; 0: that it starts from.

    Law: rows are independent where the pattern is one of rows.
    """
    size = (H.diagonal() + ridge).sqrt().unsqueeze(1)
    goal = target * size
    start = kept(goal.T.abs(), pattern)
    if not turns:
        return start
    scaled = H / size / size.T
    scaled.diagonal().fill_(1.0)
    values, vectors = torch.linalg.eigh(scaled)
    apart = pattern.of_row(len(target)) is not None
    walk = _Walk(values.clamp(min=0).unsqueeze(1), vectors, pattern, apart, scaled @ goal, start)
    walk.begin(goal)
    final, places = start.clone(), torch.arange(len(start))
    for turn in range(1, turns + 1):
        walk.turn()
        if turn % EVERY == 0 or turn == turns:
            final[places] = walk.mask
            moving = walk.grown(first=turn == EVERY)
            places = places[moving]
            if not len(places):
                break
    return final


@dataclass(eq=False)
class _Walk:
    """The outputs that have not come to rest: their columns of X, D and V, and their rho."""

    values: Tensor
    vectors: Tensor
    pattern: Pattern
    apart: bool
    wanted: Tensor
    mask: Tensor

    def begin(self, goal: Float[Tensor, "in out"]) -> None:
        """Start from the greatest of the scaled target."""
        self.seen = self.mask
        self.copy = goal * self.mask.T
        self.dual = torch.zeros_like(goal)
        self.rho = goal.new_full((goal.shape[1],), START)

    def turn(self) -> None:
        """Take one turn."""
        inner = self.vectors.T @ (self.wanted - self.dual + self.rho * self.copy)
        X = self.vectors @ inner.div_(self.values + self.rho)
        moved = X + self.dual / self.rho
        self.mask = kept(moved.T.abs(), self.pattern)
        self.copy = moved * self.mask.T
        self.dual += self.rho * (X - self.copy)

    def grown(self, *, first: bool) -> Bool[Tensor, "out"]:
        """Let rho grow; return which outputs still move, and go on with these alone."""
        size = self.mask.sum(1).clamp(min=1)
        change = (self.mask != self.seen).sum(1) / (2 * size)
        if not self.apart:
            change = change.mean().expand_as(change)
        slow = torch.where(change > SOME, STEADY, SLOW)
        self.rho *= torch.where(change > MUCH, QUICK, slow)
        moving = (change > 0) | first
        self.wanted, self.copy, self.dual = (
            m[:, moving] for m in (self.wanted, self.copy, self.dual)
        )
        self.rho, self.mask = self.rho[moving], self.mask[moving]
        self.seen = self.mask
        return moving
