"""Exact least squares on a support: the best numbers for the weights that a mask keeps.

For each output, with M its kept inputs: Q_M = (H_MM + ridge·I)⁻¹ ((H + ridge·I) T)_M, the exact
minimum of (Q-T)ᵀ(H + ridge·I)(Q-T) (Meng, Behdin, Wang, Mazumder, "ALPS", arXiv:2406.07831, §3). Matrices
of up to `NARROW` inputs are solved by Cholesky factors, some outputs at a time; for wider ones
conjugate gradients, preconditioned by the diagonal, treat all outputs at once.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

NARROW = 1024  # inputs up to which systems are solved directly
BATCH = 1 << 18  # numbers of the systems that are solved at a time
TURNS = 100  # of conjugate gradients, at most
NEAR = 1e-6  # residual ÷ right side at which these end


def refitted(
    target: Float[Tensor, "in out"],
    H: Float[Tensor, "in in"],
    ridge: float,
    mask: Float[Tensor, "in out"],
) -> Float[Tensor, "in out"]:
    """Return the weights of least loss that are zero where the mask is.

    Law: the gradient vanishes on the support. Law: never worse than the masked target.
    """
    if len(target) <= NARROW:
        exact = H.double()
        wanted = torch.addmm(target.double(), exact, target.double(), beta=ridge)
        found = torch.zeros_like(wanted)
        step = max(1, BATCH // max(int(mask.sum(0).max()), 1) ** 2)
        for start in range(0, target.shape[1], step):
            some = slice(start, start + step)
            found[:, some] = _direct(exact, ridge, wanted[:, some], mask[:, some])
        return found.to(target.dtype)
    wanted = torch.addmm(target, H, target, beta=ridge)
    return _conjugate(H, ridge, wanted, mask, target * mask)


def _direct(
    H: Float[Tensor, "in in"],
    ridge: float,
    wanted: Float[Tensor, "in some"],
    mask: Float[Tensor, "in some"],
) -> Float[Tensor, "in some"]:
    """Solve the system of each output; rows beyond an output's support are those of the identity."""
    width = int(mask.sum(0).max())
    places: Int64[Tensor, "some width"] = mask.T.sort(dim=1, descending=True, stable=True)[1]
    places = places[:, :width]
    own = mask.T.gather(1, places).double()
    system = H[places.unsqueeze(2), places.unsqueeze(1)]
    if not bool(own.all()):
        system.mul_(own.unsqueeze(2)).mul_(own.unsqueeze(1))
    system.diagonal(dim1=1, dim2=2).add_(ridge * own + (1 - own))
    right = wanted.T.gather(1, places) * own
    lower = torch.linalg.cholesky(system)
    solution = torch.cholesky_solve(right.unsqueeze(2), lower).squeeze(2)
    return torch.zeros_like(wanted).T.scatter(1, places, solution * own).T


def _conjugate(
    H: Float[Tensor, "in in"],
    ridge: float,
    wanted: Float[Tensor, "in out"],
    mask: Float[Tensor, "in out"],
    start: Float[Tensor, "in out"],
) -> Float[Tensor, "in out"]:
    """Go downhill from `start`; each step is exact, so no step makes an output worse."""
    scale = (H.diagonal() + ridge).clamp(min=torch.finfo(H.dtype).tiny).reciprocal().unsqueeze(1)
    values = start.clone()
    left = (wanted - torch.addmm(values, H, values, beta=ridge)).mul_(mask)
    aim = left * scale
    along, size = aim.clone(), (left * aim).sum(0)
    enough = NEAR**2 * ((wanted * mask).square() * scale).sum(0)
    for _ in range(TURNS):
        if bool((size <= enough).all()):
            break
        pulled = torch.addmm(along, H, along, beta=ridge).mul_(mask)
        curve = (along * pulled).sum(0)
        length = torch.where(curve > 0, size / curve.clamp(min=1e-30), 0.0)
        values.addcmul_(along, length.unsqueeze(0))
        left.addcmul_(pulled, length.unsqueeze(0), value=-1)
        aim = left * scale
        before, size = size, (left * aim).sum(0)
        along.mul_(torch.where(before > 0, size / before.clamp(min=1e-30), 0.0)).add_(aim)
    return values
