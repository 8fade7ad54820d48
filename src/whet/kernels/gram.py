"""Sums of outer products, the costliest statistic of calibration.

In mixed and fast arithmetic each channel of a batch is rounded to 255 steps over its range, and products are
those of 8-bit integers, added up exactly. The result is the Gram matrix of rounded inputs, so it
stays positive semidefinite, and a channel's energy changes by at most tokens / (12·127²) of itself:
1 % at 2,048 tokens if one of them had all of it, and much less otherwise. What rounding adds to products of
two different activations is as random as their tokens are, and some hundred times smaller.
"""

from functools import cached_property

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from whet.kernels.arithmetic import sums_codes

WIDE = 1024  # from this many channels on, only the lower triangle is computed
STRIP = 512  # columns of one strip of that triangle
LEVELS = 127  # on either side of zero; a sum of 2¹⁷ products fits 32 bits
LEAST, MOST = 256, 1 << 17  # tokens
NARROWEST = 256  # channels from which codes are faster


class Factor:
    """Activations that are multiplied with others, [tokens channels]; their codes are made once."""

    def __init__(self, values: Float[Tensor, "tokens channels"]) -> None:
        self.values = values

    @cached_property
    def scale(self) -> Float[Tensor, "channels"]:
        """The step of each channel's codes."""
        size = torch.maximum(self.values.amax(0), -self.values.amin(0))
        return size.clamp_(min=torch.finfo(torch.float32).tiny) / LEVELS

    @cached_property
    def codes(self) -> Int8[Tensor, "tokens channels"]:
        """The codes, of 8 bits."""
        return (self.values / self.scale).round_().to(torch.int8)


def strip(channels: int) -> int:
    """Return how many columns of a triangle are computed at once."""
    return STRIP if channels >= WIDE else max(channels, 1)


def add_gram(total: Float[Tensor, "in in"], x: Factor) -> None:
    """Add xᵀx to a matrix; of a wide one, to its lower triangle alone, in strips."""
    width, coded = strip(len(total)), _coded(total, x)
    for left in range(0, len(total), width):
        right = left + width
        if coded:
            _add(total, x, x, slice(left, None), slice(left, right))
        else:
            total[left:, left:right].addmm_(x.values[:, left:].T, x.values[:, left:right])


def add_product(total: Float[Tensor, "left right"], left: Factor, right: Factor) -> None:
    """Add leftᵀ·right to a matrix."""
    if not _coded(total, left):
        total.addmm_(left.values.T, right.values)
        return
    for first in range(0, len(total), STRIP):
        _add(total, left, right, slice(first, first + STRIP), slice(None))


def _coded(total: Tensor, x: Factor) -> bool:
    """Return whether a sum is that of codes."""
    return sums_codes() and min(total.shape) >= NARROWEST and LEAST <= len(x.values) <= MOST


def _add(total: Tensor, left: Factor, right: Factor, rows: slice, columns: slice) -> None:
    """Add the products of some channels' codes."""
    products = torch._int_mm(left.codes.T[rows], right.codes[:, columns]).float()  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    total[rows, columns].addcmul_(products.mul_(left.scale[rows, None]), right.scale[columns])
