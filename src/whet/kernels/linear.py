"""Multiplying by a weight in any format, in plain torch: what fast kernels must equal."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from whet.formats.weight import Weight
from whet.kernels.arithmetic import is_fast

PANEL = 1 << 24  # numbers decoded at a time
HELD = 1 << 22  # numbers of a weight that may stay decoded while samples pass


def reference(x: Float[Tensor, "*batch in"], weight: Weight) -> Float[Tensor, "*batch out"]:
    """Return x·Wᵀ, decoded in panels of rows so that memory is bounded.

    In fast arithmetic the product is rounded to bfloat16 as its factors are.
    """
    rows, cols = weight.shape
    step = max(1, PANEL // cols)
    factor = x.bfloat16() if is_fast() else x
    if rows <= step:
        return functional.linear(factor, weight.dense().to(factor.dtype)).to(x.dtype)
    panels = (weight.rows(start, min(start + step, rows)) for start in range(0, rows, step))
    parts = [functional.linear(factor, panel.dense().to(factor.dtype)) for panel in panels]
    return torch.cat(parts, -1).to(x.dtype)


def decoded(weight: Weight) -> Tensor | None:
    """Return a weight as `reference` multiplies by it; None of one that is decoded in panels."""
    if weight.shape[0] * weight.shape[1] > HELD:
        return None
    return weight.dense().to(torch.bfloat16 if is_fast() else torch.float32)


def multiplied(
    left: Float[Tensor, "rows inner"], right: Float[Tensor, "inner cols"]
) -> Float[Tensor, "rows cols"]:
    """Return a product; in fast arithmetic it and its factors are rounded to bfloat16."""
    if is_fast():
        return (left.bfloat16() @ right.bfloat16()).float()
    return left @ right
