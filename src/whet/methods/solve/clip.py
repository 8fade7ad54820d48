"""Where to clip an activation whose range is fixed: extremes, quantiles, least squares, divergence.

Divergence: Migacz, "8-bit inference with TensorRT" (GTC 2017). All of them read a histogram alone.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from whet.calibrate.range import Range
from whet.formats.activate import quantized, static_scale
from whet.formats.activation import Activation

Rule = Literal["minmax", "percentile", "mse", "kl"]
STEPS = 96  # ranges tried
FLOOR = 0.05  # the least, as a share of the extremes


def fixed_scale(
    seen: Range, activation: Activation, rule: Rule, percentile: float
) -> Float[Tensor, "numbers"]:
    """Return the fixed scale (and zero point) for what a tap has seen."""
    low, high = torch.tensor(seen.low), torch.tensor(seen.high)
    values, counts = seen.values()
    if rule == "percentile" and len(values):
        low, high = _quantiles(seen, values, counts, percentile)
    if rule in ("minmax", "percentile") or not len(values):
        return static_scale(activation, low, high)
    measure = _squared if rule == "mse" else _divergence
    best, chosen = float("inf"), static_scale(activation, low, high)
    for share in torch.linspace(1, FLOOR, STEPS):
        scale = static_scale(activation, low * share, high * share)
        rounded = quantized(values.float(), activation, scale).double()
        if (loss := measure(values, counts, rounded)) < best:
            best, chosen = loss, scale
    return chosen


def _quantiles(
    seen: Range, values: Tensor, counts: Tensor, percentile: float
) -> tuple[Tensor, Tensor]:
    """Return what a share of all values lies below and above, within the extremes."""
    share = counts.cumsum(0) / counts.sum()
    last = len(values) - 1
    low = values[min(int(torch.searchsorted(share, 1 - percentile)), last)]
    high = values[min(int(torch.searchsorted(share, percentile)), last)]
    return low.clamp(seen.low, seen.high), high.clamp(seen.low, seen.high)


def _squared(values: Tensor, counts: Tensor, rounded: Tensor) -> float:
    return float((counts * (values - rounded).square()).sum())


def _divergence(values: Tensor, counts: Tensor, rounded: Tensor) -> float:
    """Return KL(P‖Q): P the histogram, its tails on the last bins; Q spread evenly over each level.

    A clipped value counts, in P alone, at the outermost bin that was not clipped.
    """
    level, of_level = rounded.unique(return_inverse=True)
    inside = (values >= level[0] - _half(level)) & (values <= level[-1] + _half(level))
    if not inside.any():
        return float("inf")
    kept = inside.nonzero()[:, 0]
    first, last = int(kept[0]), int(kept[-1])
    true = counts[first : last + 1].clone()
    true[0] += counts[:first].sum()
    true[-1] += counts[last + 1 :].sum()
    groups, plain = of_level[first : last + 1], counts[first : last + 1]
    mass = torch.zeros(len(level), dtype=counts.dtype).index_add(0, groups, plain)
    width = torch.zeros(len(level), dtype=counts.dtype).index_add(0, groups, torch.ones_like(plain))
    coded = (mass / width.clamp(min=1))[groups]
    p, q = true / true.sum(), coded / coded.sum()
    return float((p * (p / q).log()).sum())


def _half(level: Tensor) -> float:
    """Return half the distance of neighbouring levels."""
    return float(level.diff().median()) / 2 if len(level) > 1 else 0.0
