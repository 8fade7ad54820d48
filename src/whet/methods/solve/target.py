"""What a weight should become when its input is no longer what it was in the uncompressed model.

With x the input now, x̃ the one of the uncompressed model, r and r̃ what the output is added to,
H = E[xxᵀ], C = E[(x̃-x)xᵀ] and R = E[(r̃-r)xᵀ]:

    T = W + (α W C + ρ R)(H + λI)⁻¹

For α = ρ = 1 and λ = 0, E‖Qx + r - (Wx̃ + r̃)‖² = tr((Q-T) H (Q-T)ᵀ) + a constant; in between, T is
the minimiser of the mixture with the target W. The term in C is that of QEP (arXiv:2504.09629) and
GPTAQ (arXiv:2504.02692); that in R lets `o` and `down` also repair the residual stream.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whet.methods.solve.factor import Factor


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """How far this model has drifted: `cross` is C and `residual` R, in the units of H."""

    cross: Float[Tensor, "in in"] | None = None
    residual: Float[Tensor, "out in"] | None = None
    alpha: float = 0.5
    rho: float = 0.5


def corrected(
    weight: Float[Tensor, "out in"], drift: Drift, factor: Factor
) -> Float[Tensor, "in out"]:
    """Return T, transposed. Law: without drift it is the weight itself."""
    moved: Tensor | None = None
    if drift.cross is not None and drift.alpha:
        moved = (drift.alpha * weight) @ drift.cross
    if drift.residual is not None and len(drift.residual) == len(weight) and drift.rho:
        pull = drift.rho * drift.residual
        moved = pull if moved is None else moved.add_(pull)
    if moved is None or not torch.isfinite(moved).all():
        return weight.T.contiguous()
    return factor.solve(moved.T.contiguous()).add_(weight.T)
