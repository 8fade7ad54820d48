"""Multiplying by a weight in any format, in plain torch: what fast kernels must equal."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from whet.formats.weight import Weight

PANEL = 1 << 24  # numbers decoded at a time


def reference(x: Float[Tensor, "*batch in"], weight: Weight) -> Float[Tensor, "*batch out"]:
    """Return x·Wᵀ, decoded in panels of rows so that memory is bounded."""
    rows, cols = weight.shape
    step = max(1, PANEL // cols)
    if rows <= step:
        return functional.linear(x, weight.dense().to(x.dtype))
    panels = (weight.rows(start, min(start + step, rows)) for start in range(0, rows, step))
    return torch.cat([functional.linear(x, panel.dense().to(x.dtype)) for panel in panels], -1)
