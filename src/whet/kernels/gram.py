"""Sums of outer products, the costliest statistic of calibration.

In fast arithmetic each channel of a batch is rounded to 255 steps over its range, and products are
those of 8-bit integers, added up exactly. The result is the Gram matrix of rounded inputs, so it
stays positive semidefinite, and a channel's energy changes by at most tokens / (12·127²) of itself:
1 % at 2,048 tokens if one of them had all of it, and much less otherwise. What rounding adds to products of
two different activations is as random as their tokens are, and some hundred times smaller.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from whet.kernels.arithmetic import is_fast

WIDE = 2048  # from this many channels on, only the lower triangle is computed
STRIP = 512  # columns of one strip of that triangle
LEVELS = 127  # on either side of zero; a sum of 2¹⁷ products fits 32 bits
MOST = 1 << 17  # tokens


def strip(channels: int) -> int:
    """Return how many columns of a triangle are computed at once."""
    return STRIP if channels >= WIDE else max(channels, 1)


def add_gram(total: Float[Tensor, "in in"], x: Float[Tensor, "tokens in"]) -> None:
    """Add xᵀx to a matrix; of a wide one, to its lower triangle alone, in strips."""
    width = strip(len(total))
    if is_fast() and width == STRIP and 0 < len(x) <= MOST:
        _add_rounded(total, x, width)
        return
    for left in range(0, len(total), width):
        right = left + width
        total[left:, left:right].addmm_(x[:, left:].T, x[:, left:right])


def add_product(
    total: Float[Tensor, "left right"],
    left: Float[Tensor, "tokens left"],
    right: Float[Tensor, "tokens right"],
) -> None:
    """Add leftᵀ·right to a matrix."""
    if not (is_fast() and len(total) >= WIDE and 0 < len(left) <= MOST):
        total.addmm_(left.T, right)
        return
    (codes, scale), (others, steps) = _rounded(left), _rounded(right)
    turned = codes.T.contiguous()
    for first in range(0, len(total), STRIP):
        rows = slice(first, first + STRIP)
        products = _int_mm(turned[rows], others)
        total[rows].addcmul_(products.mul_(scale[rows, None]), steps)


def _add_rounded(total: Tensor, x: Tensor, width: int) -> None:
    codes, scale = _rounded(x)
    turned = codes.T.contiguous()
    for left in range(0, len(total), width):
        right = left + width
        products = _int_mm(turned[left:], codes[:, left:right])
        total[left:, left:right].addcmul_(products.mul_(scale[left:, None]), scale[left:right])


def _rounded(
    x: Float[Tensor, "tokens in"],
) -> tuple[Int8[Tensor, "tokens in"], Float[Tensor, "in"]]:
    """Return codes of 8 bits and the scale of each channel."""
    scale = x.abs().amax(0).clamp_(min=torch.finfo(torch.float32).tiny) / LEVELS
    return (x / scale).round_().to(torch.int8), scale


def _int_mm(left: Int8[Tensor, "rows n"], right: Int8[Tensor, "n cols"]) -> Tensor:
    return torch._int_mm(left, right).float()  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
