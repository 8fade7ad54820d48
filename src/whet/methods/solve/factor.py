"""The Cholesky factor of a damped Gram matrix, in the order in which columns are to be rounded."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.base.errors import NumericalError
from whet.kernels.linear import multiplied

NARROW = 1024  # up to this width the factor is computed in float64
STEP = 10.0  # from one rung of damping to the next
RUNGS = 6
STRIP = 1024  # rows gathered at once
NARROW_STRIP = 256  # columns of the triangle multiplied at once


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """L with L Lᵀ = (H + ridge·I) of the inputs in `order`; the last of them is rounded first.

    `damping` is the ridge as a share of the mean of H's diagonal [1]; `raised` says that it had to
    be greater than what was asked for.
    """

    lower: Float[Tensor, "in in"]
    order: Int64[Tensor, "in"]
    damping: float
    ridge: float
    raised: bool

    def solve(self, right: Float[Tensor, "in out"]) -> Float[Tensor, "in out"]:
        """Return (H + ridge·I)⁻¹ times a matrix."""
        found = torch.empty_like(right)
        found[self.order] = torch.cholesky_solve(right[self.order], self.lower)
        return found

    def energy(self, delta: Float[Tensor, "in out"]) -> Float[Tensor, "out"]:
        """Return δᵀ (H + ridge·I) δ of each column: the squares of Lᵀδ."""
        ordered, total = delta[self.order], delta.new_zeros(delta.shape[1])
        for left in range(0, len(ordered), NARROW_STRIP):
            part = self.lower[left:, left : left + NARROW_STRIP].T
            total += multiplied(part, ordered[left:]).square_().sum(0)
        return total


def factor(H: Float[Tensor, "in in"], damping: float, *, act_order: bool = True) -> Factor:
    """Return the factor of a Gram matrix, damped as little as it allows, from `damping` on.

    With `act_order`, inputs of large mean square are rounded first (arXiv:2210.17323, its code).
    Raises NumericalError where no rung of the ladder is enough, or where H is not finite.
    """
    diagonal = H.diagonal()
    mean = float(diagonal.double().mean())
    if not torch.isfinite(diagonal).all() or mean < 0:
        raise NumericalError("the Gram matrix of the activations is not finite")
    order = torch.argsort(diagonal, stable=True) if act_order else torch.arange(len(H)).flip(0)
    tried = max(damping, 1e-8)
    for rung in range(RUNGS):
        ridge = tried * mean if mean > 0 else 1.0
        lower, failed = _cholesky(H, order, ridge)
        if not failed:
            return Factor(lower, order, tried, ridge, rung > 0)
        tried *= STEP
    raise NumericalError(
        f"the Gram matrix of the activations has no Cholesky factor, damped up to {tried / STEP:g}",
        "Calibrate on more tokens.",
    )


def _cholesky(H: Tensor, order: Tensor, ridge: float) -> tuple[Tensor, bool]:
    exact = torch.float64 if len(H) <= NARROW else H.dtype
    damped = torch.empty(H.shape, dtype=exact)
    for top in range(0, len(H), STRIP):
        rows = order[top : top + STRIP]
        damped[top : top + STRIP] = H[rows].index_select(1, order)
    damped.diagonal().add_(ridge)
    lower, info = torch.linalg.cholesky_ex(damped)
    failed = bool(info.item()) or not bool(torch.isfinite(lower.diagonal()).all())
    return lower.to(H.dtype), failed
