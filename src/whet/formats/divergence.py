"""Divergence between the histogram of some weights and that of their rounding.

Weights beyond the outermost levels count in the last bin that is inside, and are left out of the
rounding's histogram, in which the mass of each level is spread evenly over its filled bins: so both
clipping and coarse levels cost. Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whet.formats.groups import Groups, Near, Sums

LEAST = 1e-6  # stands in for a probability of zero


def divergence(groups: Groups, near: Near, codes: int) -> Callable[[Sums, Sums | None], Sums]:
    """Return the divergence [nat] of each group as a function of its scale and zero point."""
    centres, counts = _histogram(groups, codes)

    def at(scale: Sums, zero: Sums | None) -> Sums:
        s, z = scale.unsqueeze(-1), None if zero is None else zero.unsqueeze(-1)
        values = near(centres / s, z) * s
        ends = near(torch.tensor([-torch.inf, torch.inf]).expand(*s.shape[:-1], 2) / s, z) * s
        low, high = ends.aminmax(dim=-1, keepdim=True)
        inside = (centres >= low) & (centres <= high)
        return _relative(_clipped(counts, inside), _spread(counts * inside, values))

    return at


def _histogram(groups: Groups, codes: int) -> tuple[Tensor, Tensor]:
    """Return the centres of bins and how many weights they hold, [rows groups bins]."""
    low, high = groups.extremes()
    bins = min(8 * codes, max(32, groups.parts[0].shape[-1]))
    width = ((high - low) / bins).clamp(min=torch.finfo(torch.float32).tiny)
    centres = low.unsqueeze(-1) + width.unsqueeze(-1) * (torch.arange(bins) + 0.5)
    counts = torch.zeros_like(centres)
    for part in groups.parts:
        found = ((part - low.unsqueeze(-1)) / width.unsqueeze(-1)).long().clamp(0, bins - 1)
        known = torch.ones_like(part) if groups.weights is None else (groups.weights > 0).float()
        held = torch.zeros(*part.shape[:2], bins).scatter_add_(2, found, known.expand_as(part))
        counts += held.sum((0, 1), keepdim=True) if groups.pooled else held
    return centres, counts


def _clipped(
    counts: Float[Tensor, "rows groups bins"], inside: Bool[Tensor, "rows groups bins"]
) -> Float[Tensor, "rows groups bins"]:
    """Return the histogram with what lies outside moved to the nearest bin inside."""
    places = torch.arange(counts.shape[-1]).expand_as(counts)
    first = inside.int().argmax(-1, keepdim=True)
    last = (inside * places).argmax(-1, keepdim=True)
    return torch.zeros_like(counts).scatter_add_(-1, places.clamp(first, last), counts)


def _spread(
    counts: Float[Tensor, "rows groups bins"], values: Float[Tensor, "rows groups bins"]
) -> Float[Tensor, "rows groups bins"]:
    """Return each level's mass, spread evenly over those of its bins that are not empty."""
    level = torch.nn.functional.pad(values[..., 1:] != values[..., :-1], (1, 0)).cumsum(-1)
    filled = (counts > 0).float()
    mass = torch.zeros_like(counts).scatter_add_(-1, level, counts)
    share = torch.zeros_like(counts).scatter_add_(-1, level, filled)
    return filled * mass.gather(-1, level) / share.gather(-1, level).clamp(min=1)


def _relative(
    p: Float[Tensor, "rows groups bins"], q: Float[Tensor, "rows groups bins"]
) -> Float[Tensor, "rows groups"]:
    """Return the Kullback-Leibler divergence of two unnormalised histograms [nat]."""
    p = p / p.sum(-1, keepdim=True).clamp(min=1)
    q = (q / q.sum(-1, keepdim=True).clamp(min=1)).clamp(min=LEAST)
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)
