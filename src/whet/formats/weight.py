"""A matrix in some format: the only weight type there is."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from whet.formats.codec import Planes
from whet.formats.codecs import codec_of
from whet.formats.spec import Format, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """Planes, and the format that gives them meaning."""

    format: Format
    planes: Planes
    shape: Shape

    def dense(self) -> Float[Tensor, "out in"]:
        """Return what this weight means, in float32."""
        return codec_of(self.format).decode(self.planes, self.shape)

    def rows(self, start: int, stop: int) -> "Weight":
        """Return some rows alone."""
        planes = codec_of(self.format).rows(self.planes, self.shape, start, stop)
        return Weight(self.format, planes, (stop - start, self.shape[1]))


def written(weight: Float[Tensor, "out in"], format_: Format) -> Weight:
    """Write a matrix in a format by that format's default rule."""
    rows, cols = weight.shape
    return Weight(format_, codec_of(format_).encode(weight), (rows, cols))
