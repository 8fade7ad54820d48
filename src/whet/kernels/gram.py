"""Sums of outer products, the costliest statistic of calibration.

In mixed and fast arithmetic each channel of a batch is rounded to 255 steps over its range, and products are
those of 8-bit integers, added up exactly. The result is the Gram matrix of rounded inputs, so it
stays positive semidefinite, and a channel's energy changes by at most tokens / (12·127²) of itself:
1 % at 2,048 tokens if one of them had all of it, and much less otherwise. What rounding adds to products of
two different activations is as random as their tokens are, and some hundred times smaller.

The native extension rounds and multiplies in one go (csrc/solve/gram.h); torch is its slow twin.
"""

from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int8
from numpy.typing import NDArray
from torch import Tensor

from whet.kernels.arithmetic import sums_codes
from whet.kernels.native import missing, native
from whet.kernels.threads import workers

WIDE = 1024  # from this many channels on, only the lower triangle is computed
STRIP = 512  # columns of one strip of that triangle
LEVELS = 127  # on either side of zero; a sum of 2¹⁷ products fits 32 bits
LEAST, MOST = 256, 1 << 17  # tokens
NARROWEST = 256  # channels from which codes are faster


@runtime_checkable
class Codes(Protocol):
    """Activations rounded to 8 bits, as the native extension holds them."""

    scale: NDArray[np.float32]
    energy: NDArray[np.float32]  # the sum of squares of each channel, not rounded


class Factor:
    """Activations that are multiplied with others, [tokens channels]; their codes are made once.

    With `minus` they are the difference of two.
    """

    def __init__(
        self,
        x: Float[Tensor, "tokens channels"],
        minus: Float[Tensor, "tokens channels"] | None = None,
    ) -> None:
        self._x, self._minus = x, minus

    def __len__(self) -> int:
        return len(self._x)

    @cached_property
    def values(self) -> Float[Tensor, "tokens channels"]:
        """The numbers themselves."""
        return self._x if self._minus is None else self._x - self._minus

    @cached_property
    def native(self) -> "Codes":
        """The codes as the native extension holds them."""
        x = self._x.contiguous().numpy()
        minus = None if self._minus is None else self._minus.contiguous().numpy()
        return native().Codes(x, minus, native().chosen_tier(), workers())

    def energy(self) -> Float[Tensor, "channels"]:
        """Return the sum of the squares of each channel."""
        if "native" in vars(self):
            return torch.tensor(self.native.energy)
        return self.values.square().sum(0)

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
    if coded and _added(total, x, x):
        return
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
    if _added(total, left, right):
        return
    for first in range(0, len(total), STRIP):
        _add(total, left, right, slice(first, first + STRIP), slice(None))


def _coded(total: Tensor, x: Factor) -> bool:
    """Return whether a sum is that of codes."""
    return sums_codes() and min(total.shape) >= NARROWEST and LEAST <= len(x) <= MOST


def _added(total: Tensor, left: Factor, right: Factor) -> bool:
    """Add the products of codes by the native extension; return whether it could."""
    if missing() is not None or not total.is_contiguous():
        return False
    tier, threads = native().chosen_tier(), workers()
    native().add_products(total.numpy(), left.native, right.native, tier, threads)
    return True


def _add(total: Tensor, left: Factor, right: Factor, rows: slice, columns: slice) -> None:
    """Add the products of some channels' codes."""
    products = torch._int_mm(left.codes.T[rows], right.codes[:, columns]).float()  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    total[rows, columns].addcmul_(products.mul_(left.scale[rows, None]), right.scale[columns])
