"""Floating-point numbers of 4 to 8 bits, with subnormals, saturating; codes are bit patterns.

Source: OCP Microscaling Formats 1.0, section 5.3 (e2m1, e2m3, e3m2); P. Micikevicius and others,
"FP8 formats for deep learning" (arXiv:2209.05433), table 1 (e4m3 has one NaN and no infinity, e5m2
keeps both from IEEE).
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from whet.formats import element
from whet.formats.codec import Params, Search
from whet.formats.ranges import Ruler, fitted_scale
from whet.formats.scaled import Scaled
from whet.formats.spec import Coded

RESERVED = {(4, 3): 1, (5, 2): 4}  # bit patterns of each sign that are no number


def patterns(kind: element.Minifloat) -> Float[Tensor, "codes"]:
    """Return the value of every bit pattern, NaN and infinities as NaN."""
    mantissas = 2**kind.mantissa
    code = torch.arange(2 ** (kind.bits - 1))
    exponent, mantissa = code // mantissas, (code % mantissas).double() / mantissas
    bias = 2 ** (kind.exponent - 1) - 1
    normal = (1 + mantissa) * torch.exp2((exponent - bias).double())
    magnitude = torch.where(exponent == 0, mantissa * 2.0 ** (1 - bias), normal).float()
    if spare := RESERVED.get((kind.exponent, kind.mantissa)):
        magnitude[-spare:] = torch.nan
    return torch.cat([magnitude, -magnitude])


class Minifloat(Scaled):
    """Small floats, rounded half to even; what is beyond the largest becomes the largest."""

    def __init__(self, format_: Coded, kind: element.Minifloat) -> None:
        super().__init__(format_)
        self.values = patterns(kind)
        half = self.values[: len(self.values) // 2]
        self.magnitudes = half[half.isfinite()]
        self.least = 2.0 ** (2 - 2 ** (kind.exponent - 1))  # smallest normal number
        self.step = 2.0**-kind.mantissa

    @property
    def top(self) -> float:
        """The largest magnitude, in units."""
        return float(self.magnitudes[-1])

    def near(
        self,
        ratio: Float[Tensor, "rows ..."],
        zero: Float[Tensor, "..."] | None,
        levels: Float[Tensor, "#rows codes"] | None = None,
    ) -> Float[Tensor, "rows ..."]:
        """Return the nearest units; may write over `ratio`."""
        ratio = ratio.clamp_(-self.top, self.top).contiguous()
        power = (ratio.view(torch.int32) & 0x7F800000).view(torch.float32)
        step = power.clamp_(min=self.least).mul_(self.step)
        return ratio.div_(step).round_().mul_(step)

    def _code(
        self,
        units: Float[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> UInt8[Tensor, "rows cols"]:
        sign = (units < 0).to(torch.uint8) << (self.bits - 1)
        return torch.bucketize(units.abs(), self.magnitudes).to(torch.uint8) | sign

    def _unit(
        self,
        codes: UInt8[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> Float[Tensor, "rows cols"]:
        return self.values[codes.to(torch.int64)]

    def _fit(
        self, weight: Float[Tensor, "out in"], search: Search, importance: Tensor | None
    ) -> Params:
        extra = self._extra(weight)
        store = self._store(extra)
        ruler = Ruler(
            self.near,
            tuple(self.magnitudes[-3:].flip(0).tolist()),
            self.top,
            1,
            2 * len(self.magnitudes) - 1,
            power=self.coded.scale == "e8m0",
        )
        pieces = self._groups(weight, importance)
        scale = torch.cat([fitted_scale(piece, ruler, search, store) for piece in pieces])
        return Params(scale, None, None, extra)
