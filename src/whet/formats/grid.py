"""Evenly spaced integers: `value = scale * code`, or `scale * (code - zero)`.

Symmetric codes use their whole range -2^(b-1) to 2^(b-1) - 1; the sign of the scale decides which
side has the extra level. Affine ranges contain zero, so zero is exact in both.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from whet.formats import scales
from whet.formats.codec import Params, Search
from whet.formats.ranges import Ruler, fitted_scale, fitted_zero
from whet.formats.scaled import Scaled
from whet.formats.spec import Coded


class Grid(Scaled):
    """Integers of 2 to 8 bits."""

    def __init__(self, format_: Coded) -> None:
        super().__init__(format_)
        self.half = 2 ** (self.bits - 1)
        self.last = 2**self.bits - 1

    @property
    def top(self) -> float:
        """The magnitude of the nearer end of the levels, in units."""
        return self.last / 2 if self.coded.affine else self.half - 1

    def near(
        self,
        ratio: Float[Tensor, "rows ..."],
        zero: Float[Tensor, "..."] | None = None,
        levels: Float[Tensor, "#rows codes"] | None = None,
    ) -> Float[Tensor, "rows ..."]:
        """Return the nearest units; may write over `ratio`."""
        if zero is None:
            return ratio.round_().clamp_(-self.half, self.half - 1)
        return ratio.round_().clamp_(-zero, self.last - zero)

    def _code(
        self,
        units: Float[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> UInt8[Tensor, "rows cols"]:
        return (units + (self.half if zero is None else zero)).to(torch.uint8)

    def _unit(
        self,
        codes: UInt8[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> Float[Tensor, "rows cols"]:
        return codes.float().sub_(self.half if zero is None else zero)

    def _fit(
        self, weight: Float[Tensor, "out in"], search: Search, importance: Tensor | None
    ) -> Params:
        extra = self._extra(weight)
        store = self._store(extra)
        pieces = self._groups(weight, importance)
        if self.coded.affine:
            both = [fitted_zero(piece, self.near, self.last, search, store) for piece in pieces]
            scale, zero = (torch.cat(side) for side in zip(*both, strict=True))
            return Params(scale, zero, None, extra)
        ruler = self._ruler()
        found = [fitted_scale(piece, ruler, search, store) for piece in pieces]
        return Params(torch.cat(found), None, None, extra)

    def _ruler(self) -> Ruler:
        kind, half = self.coded.scale, float(self.half)
        sides = 2 if scales.signed(kind) else 1
        tops = (half, half - 1) if sides == 2 else (half - 1,)
        return Ruler(
            self.near, tops, half - 1, sides, 2**self.bits,
            thorough=self.bits <= 3, power=kind == "e8m0",
        )  # fmt: skip
