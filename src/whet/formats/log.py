"""Powers of a base with a sign, and their sums: multiplying is shifting where the base is two.

Every table holds zero and ends at -1 and 1. A weight goes to the level nearest in value (between
2^k and 2^(k+1) the border is 1.5 * 2^k), which costs less squared error than nearest in log.
"""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats.codec import Params, Planes, Search
from whet.formats.lookup import lookup
from whet.formats.ranges import fitted_scale
from whet.formats.spec import Coded, Shape
from whet.formats.table import Table

SAMPLE = 1 << 16  # weights on which bases are compared [weight]


def log_levels(bits: int, base: float) -> tuple[float, ...]:
    """Return zero, 2^(bits-1) positive powers base^-k and one fewer negative ones, ascending."""
    powers = [float(torch.tensor(base**-k)) for k in range(2 ** (bits - 1))]
    return tuple(sorted([0.0, *powers, *(-power for power in powers[:-1])]))


def sum_levels(bits: int) -> tuple[float, ...]:
    """Return sums of two powers of two with a sign, ascending: 2^bits - 1 levels.

    Source: Y. Li, X. Dong, W. Wang, "Additive powers-of-two quantization" (arXiv:1909.13144),
    section 2.2; for an odd number of magnitude bits the tables of the authors' code.
    """
    first, second = {
        2: ((1.0, 0.5, 0.25), ()),
        3: ((1.0, 0.5, 0.125), (0.25,)),
        4: ((1.0, 0.25, 0.0625), (0.5, 0.125, 0.03125)),
    }[bits - 1]
    sums = [a + b for a, b in product((0.0, *first), (0.0, *second))]
    levels = torch.tensor(sorted({*sums, *(-s for s in sums)}))
    return tuple((levels / levels.max()).tolist())


def bases(bits: int) -> list[float]:
    """Return the bases that are tried: even steps of the ratio of the ends, in octaves."""
    steps = 2 ** (bits - 1) - 1
    octaves = [halves / 2 for halves in range(1, 15) if halves / 2 <= 2 * steps]
    return [float(torch.tensor(2 ** (octave / steps))) for octave in octaves]


class TunedLog(Table):
    """Powers of a base that is searched for the matrix and stored."""

    def __init__(self, format_: Coded) -> None:
        super().__init__(format_, log_levels(format_.element.bits, 2.0))
        self.rowwise = False

    def _fit(
        self, weight: Float[Tensor, "out in"], search: Search, importance: Tensor | None
    ) -> Params:
        stride = max(1, weight.numel() // SAMPLE)
        sample = weight[::stride]
        tried = bases(self.bits)
        losses = [self._loss(sample, base, importance) for base in tried]
        return self._fit_base(weight, tried[losses.index(min(losses))], search, importance)

    def _fit_base(
        self,
        weight: Float[Tensor, "out in"],
        base: float,
        search: Search,
        importance: Tensor | None,
    ) -> Params:
        extra = {**self._extra(weight), "base": torch.tensor([base])}
        table = lookup(log_levels(self.bits, base))
        ruler, store = self._ruler(table), self._store(extra)
        pieces = self._groups(weight, importance)
        scale = torch.cat([fitted_scale(piece, ruler, search, store) for piece in pieces])
        return Params(scale, None, table.levels[None], extra)

    def _loss(
        self, weight: Float[Tensor, "out in"], base: float, importance: Tensor | None
    ) -> float:
        """Return the squared error with this base after a short search of the scales."""
        params = self._fit_base(weight, base, Search("mse", 8), importance)
        error = self.snap(weight, params, torch.arange(weight.shape[1])) - weight
        squared = error.square_() if importance is None else error.square_().mul_(importance)
        return float(squared.sum())

    def _read_params(self, planes: Planes, shape: Shape) -> Params:
        params = super()._read_params(planes, shape)
        levels = torch.tensor([log_levels(self.bits, float(params.extra["base"]))])
        return Params(params.scale, None, levels, params.extra)
