"""Sums of outer products, the costliest statistic of calibration.

In fast arithmetic each channel of a batch is rounded to 255 steps over its range, and products are
those of 8-bit integers, added up exactly. The result is the Gram matrix of rounded inputs, so it
stays positive semidefinite, and a channel's energy changes by at most tokens / (12·127²) of itself:
1 % at 2,048 tokens if one of them had all of it, and much less otherwise.
"""

import torch
from jaxtyping import Float
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


def _add_rounded(total: Tensor, x: Tensor, width: int) -> None:
    scale = x.abs().amax(0).clamp_(min=torch.finfo(torch.float32).tiny) / LEVELS
    codes = (x / scale).round_().to(torch.int8)
    turned = codes.T.contiguous()
    for left in range(0, len(total), width):
        right = left + width
        whole = torch._int_mm(turned[left:], codes[:, left:right])  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        products = whole.float()
        total[left:, left:right].addcmul_(products.mul_(scale[left:, None]), scale[left:right])
