"""Levels that are a table: `value = scale * levels[code]`, the table ascending."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from whet.formats import scales
from whet.formats.codec import Params, Search
from whet.formats.lookup import Lookup, borders, lookup, places
from whet.formats.ranges import Ruler, fitted_scale
from whet.formats.scaled import Scaled
from whet.formats.spec import Coded


class Table(Scaled):
    """A format whose levels are the same for every weight, or are carried by the parameters.

    A table of fewer than 2^bits levels leaves the last codes unused; they read as its last level.
    """

    def __init__(self, format_: Coded, levels: tuple[float, ...]) -> None:
        super().__init__(format_)
        self.fixed = lookup(levels)

    @property
    def top(self) -> float:
        """The magnitude of the nearer end of the levels, in units."""
        return float(torch.minimum(-self.fixed.levels[0], self.fixed.levels[-1]))

    def near(
        self,
        ratio: Float[Tensor, "rows ..."],
        zero: Float[Tensor, "..."] | None,
        levels: Float[Tensor, "#rows codes"] | None = None,
    ) -> Float[Tensor, "rows ..."]:
        """Return the nearest units; may write over `ratio`."""
        if levels is None or len(levels) == 1:
            return self._table(levels).nearest(ratio)
        return levels.gather(1, places(ratio.flatten(1), levels)).reshape(ratio.shape)

    def borders(
        self, levels: Float[Tensor, "#rows codes"] | None
    ) -> tuple[Float[Tensor, "#rows gaps"], Float[Tensor, "#rows levels"]]:
        """Return the greatest ratio that is rounded to each level but the last, and the levels."""
        if levels is None or len(levels) == 1:
            table = self._table(levels)
            return table.bounds[None], table.distinct[None]
        return borders(levels), levels

    def _code(
        self,
        units: Float[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> UInt8[Tensor, "rows cols"]:
        if levels is None or len(levels) == 1:
            return self._table(levels).places(units)
        return torch.searchsorted(levels, units.contiguous()).to(torch.uint8)

    def _unit(
        self,
        codes: UInt8[Tensor, "rows cols"],
        zero: Float[Tensor, "#rows #cols"] | None,
        levels: Float[Tensor, "#rows codes"] | None,
    ) -> Float[Tensor, "rows cols"]:
        known = codes.to(torch.int64)
        if levels is None or len(levels) == 1:
            table = self._table(levels).levels
            return table[known.clamp_(max=len(table) - 1)]
        return levels.gather(1, known)

    def _table(self, levels: Float[Tensor, "1 codes"] | None) -> Lookup:
        return self.fixed if levels is None else lookup(tuple(levels[0].tolist()))

    def _fit(
        self, weight: Float[Tensor, "out in"], search: Search, importance: Tensor | None
    ) -> Params:
        extra = self._extra(weight)
        ruler, store = self._ruler(self.fixed), self._store(extra)
        pieces = self._groups(weight, importance)
        scale = torch.cat([fitted_scale(piece, ruler, search, store) for piece in pieces])
        return Params(scale, None, None, extra)

    def _ruler(self, table: Lookup) -> Ruler:
        """Return what the range search needs to know of a table."""
        levels = table.levels
        lopsided = not torch.equal(levels, -levels.flip(0))
        furthest = float(levels.abs().max())
        kind = self.coded.scale
        return Ruler(
            lambda ratio, _: table.nearest(ratio),
            (furthest,),
            float(torch.minimum(-levels[0], levels[-1])),
            2 if lopsided and scales.signed(kind) else 1,
            len(levels),
            thorough=len(levels) <= 16,
            power=kind == "e8m0",
            stretch=_stretch(levels),
        )


def _stretch(levels: Float[Tensor, "codes"]) -> float:
    """Return how far below the outermost level, at either end, values are still rounded to it."""
    ends = torch.stack((levels[-1], -levels[0]))
    borders = (ends + torch.stack((levels[-2], -levels[1]))) / 2
    return float((ends / borders).amin().clamp(1, 1.25)) * (1 - 2.0**-9)
