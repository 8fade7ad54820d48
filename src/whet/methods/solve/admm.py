"""Which weights to keep so that the others can make good what is lost: ADMM with a growing penalty.

Meng, Behdin, Wang, Mazumder, "ALPS" (arXiv:2406.07831, §3). With the inputs scaled so that H
has a unit diagonal, a matrix X of least loss and a sparse D are drawn together:

    X = (H + rho)⁻¹ (H T - V + rho D),   D = the greatest of X + V / rho,   V += rho (X - D),

and rho grows quickly while the support changes much, slowly when it does not, until it rests.
"""

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
    """Return the mask that ADMM rests at, or has come to after some turns.

    Law: for diagonal H it is the mask of greatest |T|·√H_jj.
    """
    size = (H.diagonal() + ridge).sqrt().unsqueeze(1)
    scaled = H / size / size.T
    scaled.diagonal().fill_(1.0)
    values, vectors = torch.linalg.eigh(scaled)
    values = values.clamp(min=0).unsqueeze(1)
    goal = target * size
    wanted = scaled @ goal
    mask = kept(goal.T.abs(), pattern)
    D, V, rho = goal * mask.T, torch.zeros_like(goal), START
    seen = mask
    for turn in range(1, turns + 1):
        X = vectors @ ((vectors.T @ (wanted - V + rho * D)) / (values + rho))
        moved = X + V / rho
        mask = kept(moved.T.abs(), pattern)
        D = moved * mask.T
        V.add_(X - D, alpha=rho)
        if turn % EVERY == 0:
            change = float((mask != seen).sum()) / (2 * max(int(mask.sum()), 1))
            if not change and turn > EVERY:
                break
            rho *= QUICK if change > MUCH else STEADY if change > SOME else SLOW
            seen = mask
    return mask
