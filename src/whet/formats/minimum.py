"""Unsigned integers and the minimum of each group: `value = scale * code + minimum`.

The blocks Q4_1, Q5_1, Q2_K, Q4_K and Q5_K of GGUF mean this. Product and sum are rounded one after the
other in float32, as ggml does, so that such blocks keep their numbers bit for bit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from whet.formats import scales
from whet.formats.codec import Codec, Planes, require_finite
from whet.formats.groups import cut
from whet.formats.pack import pack, unpack
from whet.formats.spec import Coded, Shape


class Minimum(Codec):
    """Integers of 2 to 8 bits above a minimum."""

    def __init__(self, format_: Coded) -> None:
        self.format = format_
        self.coded = format_
        self.bits = format_.element.bits

    def encode(self, weight: Float[Tensor, "out in"]) -> dict[str, Tensor]:
        """Write the nearest member whose range is that of each group."""
        require_finite(weight)
        minimum, scale = self._ranges(weight)
        columns = torch.arange(weight.shape[1])
        ratio = (weight.float() - self._spread(minimum, columns)) / self._spread(scale, columns)
        codes = ratio.round_().clamp_(0, 2**self.bits - 1).to(torch.uint8)
        return {
            "codes": pack(codes, self.bits),
            "scale": scales.to_plane(self.coded.scale, scale, {}),
            "minimum": scales.to_plane(self.coded.scale, minimum, {}),
        }

    def decode(self, planes: Planes, shape: Shape) -> Float[Tensor, "out in"]:
        """Read planes as float32."""
        columns = torch.arange(shape[1])
        units = unpack(planes["codes"], self.bits, shape[1]).float()
        values = units.mul_(self._spread(planes["scale"].float(), columns))
        return values.add_(self._spread(planes["minimum"].float(), columns))

    def rows(self, planes: Planes, shape: Shape, start: int, stop: int) -> dict[str, Tensor]:
        """Return the planes of some rows."""
        whole = ("scale", "minimum") if self.coded.grouping == "tensor" else ()
        return {name: p if name in whole else p[start:stop] for name, p in planes.items()}

    def _ranges(self, weight: Float[Tensor, "out in"]) -> tuple[Tensor, Tensor]:
        """Return the minimum and the scale of each group, as they are stored."""
        size, pooled = self.coded.group(weight.shape[1]), self.coded.grouping == "tensor"
        ends = [part.extremes() for part in cut(weight, size, None, pooled=pooled)]
        low, high = (torch.cat(side) for side in zip(*ends, strict=True))
        dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(self.coded.scale, torch.float32)
        minimum = low.to(dtype).float()
        scale = scales.stored(self.coded.scale, (high - minimum) / (2**self.bits - 1))
        return minimum, scale

    def _spread(self, of_groups: Float[Tensor, "#rows #groups"], columns: Tensor) -> Tensor:
        """Return for each column the number of its group."""
        if of_groups.shape[1] == 1:
            return of_groups
        assert isinstance(self.coded.grouping, int)
        return of_groups.index_select(1, columns // self.coded.grouping)
