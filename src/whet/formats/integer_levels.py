"""One table of integers for all rows: `value = scale * levels[code]`, the levels in int8.

The IQ blocks of GGUF mean this. Kernels multiply by such levels as they do by 8-bit integers.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats import scales
from whet.formats.codebook import Codebook
from whet.formats.codec import Codec, Planes, require_finite
from whet.formats.element import Learned
from whet.formats.lookup import lookup
from whet.formats.pack import pack, unpack
from whet.formats.spec import Coded, Shape

TOP = 127  # the level that the highest level of a learned table, 1, becomes


class IntegerLevels(Codec):
    """Codes of 2 to 8 bits for a shared table of int8."""

    def __init__(self, format_: Coded) -> None:
        self.format = format_
        self.coded = format_
        self.bits = format_.element.bits

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Write the nearest member whose table is a learned one, rounded."""
        require_finite(weight)
        kind = Learned(self.bits, shared=True)
        params = Codebook(replace(self.coded, element=kind), kind).fit(weight)
        assert params.levels is not None
        levels = params.levels[0].mul(TOP).round()
        scale = scales.stored(self.coded.scale, params.scale / TOP)
        table = lookup(tuple(levels.tolist()))
        units = table.nearest(weight.float() / self._spread(scale, weight.shape[1]))
        return {
            "codes": pack(table.places(units), self.bits),
            "scale": scales.to_plane(self.coded.scale, scale, {}),
            "levels": levels[None].to(torch.int8),
        }

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Read planes as float32."""
        codes = unpack(planes["codes"], self.bits, shape[1]).long()
        units = planes["levels"][0].float()[codes]
        return units.mul_(self._spread(planes["scale"].float(), shape[1]))

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of some rows."""
        whole = ("levels", "scale") if self.coded.grouping == "tensor" else ("levels",)
        return {name: p if name in whole else p[start:stop] for name, p in planes.items()}

    def _spread(self, of_groups: Float[Tensor, "#rows #groups"], inputs: int) -> Tensor:
        """Return for each column the scale of its group."""
        if of_groups.shape[1] == 1:
            return of_groups
        return of_groups.index_select(1, torch.arange(inputs) // self.coded.group(inputs))
