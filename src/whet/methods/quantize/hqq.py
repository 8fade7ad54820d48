"""HQQ: ranges without data that outliers do not spoil, by half-quadratic splitting.

Badri, Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (Mobius Labs, 2023):
min ‖W - Q‖_p^p with p < 1, by turns

    E = shrink_p(W - Q, β),    then scale and zero point by least squares for Q ≈ W - E,

β growing. There the zero point alone is fitted, as a real number; here it stays what the format can
store, and the scale is fitted too, so that formats without a zero point have something to fit. β is
in units of the mean weight, so that the scale of a matrix does not matter.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from whet.calibrate.statistics import Stats
from whet.formats.codec import Params, Search
from whet.formats.codecs import codec_of
from whet.formats.element import Integer
from whet.formats.scaled import Scaled
from whet.formats.spec import Coded, Corrected, Format, LowRank, Sparse, Sum
from whet.formats.weight import Weight, written
from whet.methods.solve.groups import spread, sums
from whet.methods.solve.nearest import weight_error
from whet.model.site import Site
from whet.passes.linear_pass import LinearPass, Rewrite, says

TINY = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hqq(LinearPass):
    """Round with ranges that outliers cannot spoil; needs no calibration."""

    name: ClassVar[str] = "hqq"
    format: Format = field(
        default=Coded(Integer(4), affine=True), metadata=says("number format of the result")
    )
    power: float = field(default=0.7, metadata=says("p of the norm, above 0 and below 1 [1]"))
    beta: float = field(
        default=10.0, metadata=says("weight of the split at first, for |w| of 1 [1]")
    )
    growth: float = field(default=1.01, metadata=says("factor of that weight each time [1]"))
    iterations: int = field(default=20, metadata=says("turns taken [1]"))

    def __post_init__(self) -> None:
        """Refuse a norm that does not shrink, and weights of the split that are none."""
        if not 0 < self.power < 1:
            raise ValueError(f"power is {self.power}, expected between 0 and 1")
        for name in ("beta", "growth"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected above 0")
        if self.iterations < 0:
            raise ValueError(f"iterations is {self.iterations}, expected 0 or more")

    def refuses(self, site: Site) -> str | None:
        """Refuse sums, whose terms have no ranges of their own, and masks, which it would not keep."""
        if isinstance(self.format, Sparse):
            return "hqq rounds every weight; use gptq or rtn where some are pruned"
        several = isinstance(self.format, Sum | LowRank | Corrected)
        return "hqq fits one range, not those of a sum" if several else None

    def rewrite(
        self, weight: Float[Tensor, "out in"], stats: Stats, role: str, seed: int
    ) -> Rewrite:
        """Return the rounded weight, of each group the best of all turns."""
        codec = codec_of(self.format)
        if not isinstance(codec, Scaled):
            return Rewrite(written(weight, self.format))
        columns = torch.arange(weight.shape[1])
        best = codec.fit(weight, Search("minmax"))
        values = codec.snap(weight, best, columns)
        least = self._lost(weight, values, codec)
        params, size = best, float(weight.abs().mean().clamp(min=TINY))
        for turn in range(self.iterations):
            beta = self.beta * self.growth**turn / size ** (2 - self.power)
            split = shrunk(weight - values, beta, self.power)
            params = refitted(codec, weight - split, values, params)
            values = codec.snap(weight, params, columns)
            lost = self._lost(weight, values, codec)
            best, least = chosen(lost < least, params, best), torch.minimum(lost, least)
        planes = codec.write(codec.snap(weight, best, columns), best)
        new = Weight(self.format, planes, (weight.shape[0], weight.shape[1]))
        return Rewrite(new, {"weight_error": weight_error(new, weight)})

    def _lost(self, weight: Tensor, values: Tensor, codec: Scaled) -> Float[Tensor, "#out groups"]:
        return sums((weight - values).abs() ** self.power, codec.coded)


def shrunk(x: Float[Tensor, "out in"], beta: float, power: float) -> Float[Tensor, "out in"]:
    """Return the proximal step of the p-norm: small numbers become zero, large ones stay."""
    size = x.abs()
    return x.sign() * (size - size.clamp(min=TINY) ** (power - 1) / beta).clamp(min=0)


def refitted(
    codec: Scaled,
    wanted: Float[Tensor, "out in"],
    values: Float[Tensor, "out in"],
    params: Params,
) -> Params:
    """Return the scale, and after it the zero point, of least squares for the codes of `values`."""
    form, inputs = codec.coded, values.shape[1]
    unit = codec.unit(values, params)
    square, along = sums(unit * unit, form), sums(unit * wanted, form)
    scale = torch.where(square > 0, along / square.clamp(min=TINY), params.scale)
    scale = codec.stored(torch.where(scale == 0, params.scale, scale), params)
    if params.zero is None:
        return replace(params, scale=scale)
    count = sums(torch.ones_like(unit), form)
    shift = sums(unit - wanted / spread(scale, inputs, form), form) / count
    zero = (params.zero + shift).round().clamp(0, 2**codec.bits - 1)
    return replace(params, scale=scale, zero=zero)


def chosen(better: Tensor, new: Params, old: Params) -> Params:
    """Return the new parameters where they are better."""
    zero = None
    if new.zero is not None and old.zero is not None:
        zero = torch.where(better, new.zero, old.zero)
    return replace(old, scale=torch.where(better, new.scale, old.scale), zero=zero)
