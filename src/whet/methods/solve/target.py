"""What a weight should become when its input is no longer what it was in the uncompressed model.

With x the input now, x̃ the one of the uncompressed model, r and r̃ what the output is added to,
H = E[xxᵀ], C = E[(x̃-x)xᵀ] and R = E[(r̃-r)xᵀ]:

    T = W + (alpha W C + rho R)(H + ridge I)⁻¹

For alpha = rho = 1 and no ridge, E‖Qx + r - (Wx̃ + r̃)‖² = tr((Q-T) H (Q-T)ᵀ) + a constant; between
0 and 1, T is the minimiser of the mixture with the target W. The term in C is that of QEP
(arXiv:2504.09629) and GPTAQ (arXiv:2504.02692); that in R lets `o` and `down` repair the residual
stream as well.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from whet.methods.solve.factor import Factor
from whet.methods.solve.slabs import slabs


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """How far this model has drifted: `cross` is C and `residual` R, in the units of H.

    `rho` may be another for each output.
    """

    cross: Float[Tensor, "in in"] | None = None
    residual: Float[Tensor, "out in"] | None = None
    alpha: float = 0.5
    rho: float | Float[Tensor, "out"] = 0.5


def corrected(
    weight: Float[Tensor, "out in"], drift: Drift, factor: Factor
) -> tuple[Float[Tensor, "in out"], Float[Tensor, "out"]]:
    """Return T, transposed, and (T-W) H (T-W)ᵀ of each output.

    Law: without drift it is the weight itself.
    """
    target, size = weight.T.contiguous(), weight.new_zeros(len(weight))
    for some in slabs(*weight.shape):
        moved = _moved(weight, drift, some)
        if moved is None or not torch.isfinite(moved.sum()):
            return weight.T.contiguous(), torch.zeros_like(size)
        asked = moved.T.contiguous()
        shift = factor.solve(asked)
        target[:, some] += shift
        size[some] = (shift * asked).sum(0) - factor.ridge * shift.square().sum(0)
    return target, size.clamp_(min=0)


def _moved(weight: Tensor, drift: Drift, some: slice) -> Tensor | None:
    """Return alpha W C + rho R of some outputs; None where there is no drift."""
    moved: Tensor | None = None
    if drift.cross is not None and drift.alpha:
        moved = (drift.alpha * weight[some]) @ drift.cross
    if drift.residual is not None and len(drift.residual) == len(weight):
        rho = drift.rho[some, None] if isinstance(drift.rho, Tensor) else drift.rho
        pull = rho * drift.residual[some]
        moved = pull if moved is None else moved.add_(pull)
    return moved
