"""Which columns of a matrix to remove, in groups, and what the remaining ones must then be.

With H = E[x xᵀ] + λI of the inputs x of W, the removal of the columns R costs least if those that
are kept, K, become W' = W_K + W_R H_RK (H_KK)⁻¹: the least squares fit of W x by x_K. A group S costs
tr(W_S ([H⁻¹]_SS)⁻¹ W_Sᵀ); what H⁻¹ and W are without it follows by a rank update (arXiv:2302.04089, §3).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.methods.solve.factor import NARROW, factor

Criterion = Literal["magnitude", "activation", "obs"]
ROUNDS = 64  # in which the greedy search removes groups of a wide matrix


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """The groups that stay, in order, and the weight of full width: removed columns are zero.

    `error` is ‖W'x − Wx‖² ÷ ‖Wx‖² [1], `plain` the same if what is kept stays as it is.
    """

    kept: Int64[Tensor, "kept"]
    weight: Float[Tensor, "out in"]
    error: float
    plain: float


def removal(
    W: Float[Tensor, "out in"],
    H: Float[Tensor, "in in"],
    keep: int,
    criterion: Criterion,
    *,
    size: int = 1,
    refit: bool = True,
    damping: float = 0.01,
    cost: Float[Tensor, "groups"] | None = None,
) -> Removal:
    """Keep the `keep` most important of groups of `size` neighbouring columns.

    `cost` is added to the magnitude of a group: that of what makes its inputs.
    Law: fitted anew, the error is never greater than without.
    Law: columns that are zero, or whose inputs are, go first and cost nothing.
    """
    groups = W.shape[1] // size
    if criterion == "obs":
        kept = greedy(W, H, groups - keep, size, damping)
    else:
        worth = importance(W, H, criterion, size, cost)
        kept = worth.argsort(descending=True, stable=True)[:keep].sort().values
    columns = spread(kept, size)
    changed = torch.zeros_like(W)
    changed[:, columns] = W[:, columns]
    plain = lost(W, changed, H)
    if not refit:
        return Removal(kept, changed, plain, plain)
    changed[:, columns] = refitted(W, H, columns, damping)
    return Removal(kept, changed, lost(W, changed, H), plain)


def importance(
    W: Float[Tensor, "out in"],
    H: Float[Tensor, "in in"],
    criterion: Criterion,
    size: int = 1,
    cost: Float[Tensor, "groups"] | None = None,
) -> Float[Tensor, "groups"]:
    """Return what each group is worth by itself: its squares, or the energy of what it adds.

    The energy of what a group S adds to the output is tr(W_S H_SS W_Sᵀ).
    """
    if criterion == "magnitude":
        own = W.square().sum(0).view(-1, size).sum(1)
        return own if cost is None else own + cost
    if size == 1:
        return W.square().sum(0) * H.diagonal()
    blocks = W.T.reshape(-1, size, len(W))
    return torch.stack([_energy(part, H, i * size) for i, part in enumerate(blocks)])


def _energy(part: Float[Tensor, "size out"], H: Tensor, start: int) -> Tensor:
    own = H[start : start + len(part), start : start + len(part)]
    return ((own @ part) * part).sum()


def greedy(
    W: Float[Tensor, "out in"], H: Float[Tensor, "in in"], count: int, size: int, damping: float
) -> Int64[Tensor, "kept"]:
    """Return the groups that stay when `count` are removed, those of least cost first.

    After each round the rest is fitted anew, so a group is worth what the others cannot do for it.
    Narrow matrices lose one group a round, wide ones several.
    """
    exact = torch.float64 if W.shape[1] <= NARROW else torch.float32
    left, inverse = W.to(exact).clone(), _inverse(H, damping).to(exact)
    gone = torch.zeros(W.shape[1] // size, dtype=torch.bool)
    rounds = count if W.shape[1] <= NARROW else min(count, ROUNDS)
    for turn in range(rounds):
        number = count * (turn + 1) // rounds - count * turn // rounds
        cost = _costs(left, inverse, size).masked_fill(gone, torch.inf)
        chosen = cost.argsort(stable=True)[:number]
        gone[chosen] = True
        _remove(left, inverse, spread(chosen, size))
    return (~gone).nonzero().flatten()


def _inverse(H: Float[Tensor, "in in"], damping: float) -> Float[Tensor, "in in"]:
    found = factor(H, damping, act_order=False)
    back = torch.empty_like(found.order)
    back[found.order] = torch.arange(len(back))
    return torch.cholesky_inverse(found.lower)[back][:, back]


def _costs(W: Tensor, inverse: Tensor, size: int) -> Float[Tensor, "groups"]:
    """Return tr(W_S ([H⁻¹]_SS)⁻¹ W_Sᵀ) of each group; what is gone has columns of zeros."""
    if size == 1:
        return W.square().sum(0) / inverse.diagonal().clamp(min=1e-30)
    blocks = W.T.reshape(-1, size, len(W))
    own = [inverse[i : i + size, i : i + size] for i in range(0, len(inverse), size)]
    kept = [square if square.any() else torch.eye(size, dtype=W.dtype) for square in own]
    return (torch.linalg.solve(torch.stack(kept), blocks) * blocks).sum((1, 2))


def _remove(W: Tensor, inverse: Tensor, columns: Int64[Tensor, "columns"]) -> None:
    """Fit the rest to what the columns did, and forget them; both in place."""
    rows = inverse[columns]
    share = torch.linalg.solve(rows[:, columns], rows)
    W.sub_(W[:, columns] @ share)
    inverse -= rows.T @ share
    W[:, columns] = 0
    inverse[columns] = 0
    inverse[:, columns] = 0


def refitted(
    W: Float[Tensor, "out in"],
    H: Float[Tensor, "in in"],
    kept: Int64[Tensor, "kept"],
    damping: float,
) -> Float[Tensor, "out kept"]:
    """Return W_K + W_R H_RK (H_KK + λI)⁻¹: the ridge draws to what the weight was, not to zero."""
    rest = torch.ones(W.shape[1], dtype=torch.bool)
    rest[kept] = False
    if not rest.any():
        return W[:, kept]
    right = H[kept][:, rest] @ W[:, rest].T
    return W[:, kept] + factor(H[kept][:, kept], damping).solve(right).T


def lost(W: Tensor, changed: Tensor, H: Tensor) -> float:
    """Return ‖(W' − W)x‖² ÷ ‖Wx‖² [1]."""
    delta = changed - W
    whole = float(((W @ H) * W).sum())
    return max(0.0, float(((delta @ H) * delta).sum())) / whole if whole > 0 else 0.0


def spread(groups: Int64[Tensor, "groups"], size: int) -> Int64[Tensor, "columns"]:
    """Return the columns of groups."""
    return (groups[:, None] * size + torch.arange(size)).flatten()
