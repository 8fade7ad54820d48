"""Levels that a format learns, fitted to the loss for the codes as they are.

For codes fixed, the loss is a parabola in the levels. One step goes down it along its gradient, the
slope of each level divided by its curvature as if inputs were uncorrelated, by the exact length;
it is kept only where the levels, rounded as they are stored, do lower the loss.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from whet.methods.solve.descent import Descent


def relevel(walk: Descent) -> None:
    """Move the learned levels of a format, in place. Law: the loss never rises."""
    lattice = walk.lattice
    old = lattice.levels
    assert old is not None
    codes = lattice.codec.codes(walk.values.T.contiguous(), lattice.params()).T.long()
    scale = lattice.spread(lattice.scale, len(codes))
    direction = _downhill(walk, codes, scale, old)
    moved = scale * _looked_up(direction, codes)
    slope, curve = _along(walk, moved, len(old))
    length = torch.where(curve > 0, -slope / curve.clamp(min=1e-30), 0.0)
    new = (old + length[:, None] * direction).half().to(old.dtype)
    moved = scale * _looked_up(new - old, codes)
    slope, curve = _along(walk, moved, len(old))
    kept = (2 * slope + curve < 0) & (new.diff(dim=1) > 0).all(1) & new.isfinite().all(1)
    lattice.levels = torch.where(kept[:, None], new, old)
    walk.values += moved * kept
    walk.refresh()


def _downhill(
    walk: Descent,
    codes: Int64[Tensor, "in out"],
    scale: Float[Tensor, "in #out"],
    levels: Float[Tensor, "#out codes"],
) -> Float[Tensor, "#out codes"]:
    """Return -slope / curvature of each level."""
    zeros = walk.values.new_zeros(levels.shape[1], codes.shape[1])
    pivots = (walk.H.diagonal() + walk.ridge)[:, None]
    slope = zeros.scatter_add(0, codes, walk.gradient * scale).T
    curve = zeros.scatter_add(0, codes, (pivots * scale.square()).expand_as(codes)).T
    if len(levels) == 1:
        slope, curve = slope.sum(0, keepdim=True), curve.sum(0, keepdim=True)
    return torch.where(curve > 0, -slope / curve.clamp(min=1e-30), 0.0)


def _looked_up(
    levels: Float[Tensor, "#out codes"], codes: Int64[Tensor, "in out"]
) -> Float[Tensor, "in out"]:
    return levels[0][codes] if len(levels) == 1 else levels.T.gather(0, codes)


def _along(walk: Descent, moved: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return slope and curvature of half the loss along a change of the values."""
    slope = (moved * walk.gradient).sum(0)
    pulled = torch.addmm(moved, walk.H, moved, beta=walk.ridge)
    curve = (moved * pulled).sum(0)
    if rows == 1:
        slope, curve = slope.sum(0, keepdim=True), curve.sum(0, keepdim=True)
    return slope, curve
