"""Rounding to nearest, and what is known of a weight once it is rounded."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from whet.base.quantity import Quantity
from whet.formats.codec import Scalar, Search
from whet.formats.codecs import codec_of
from whet.formats.sparse import Sparse, kept
from whet.formats.spec import Format, Shape
from whet.formats.weight import Weight, written
from whet.methods.solve.slabs import slabs


def nearest(
    weight: Float[Tensor, "out in"],
    format_: Format,
    search: Search,
    importance: Float[Tensor, "in"] | None = None,
) -> Weight:
    """Return a weight rounded to nearest, its ranges found by `search`.

    Of a sparse format the weights of greatest magnitude are kept: those that a mask has left.
    """
    shape: Shape = (weight.shape[0], weight.shape[1])
    codec = codec_of(format_)
    if isinstance(codec, Sparse):
        return nearest_kept(weight, kept(weight.abs(), codec.pattern), codec, search, importance)
    if not isinstance(codec, Scalar):
        return written(weight, format_)
    params = codec.fit(weight, search, importance)
    values = codec.snap(weight, params, torch.arange(shape[1]))
    return Weight(format_, codec.write(values, params), shape)


def nearest_kept(
    weight: Float[Tensor, "out in"],
    mask: Bool[Tensor, "out in"],
    codec: Sparse,
    search: Search = Search(),
    importance: Float[Tensor, "in"] | None = None,
) -> Weight:
    """Return what a mask leaves of a weight, rounded to nearest in the inner format."""
    left, shape = weight * mask, (weight.shape[0], weight.shape[1])
    if not isinstance(codec.inner, Scalar):
        return Weight(codec.format, codec.write(codec.inner.encode(left), mask), shape)
    params = codec.inner.fit(left, search, importance)
    values = codec.inner.snap(left, params, torch.arange(shape[1]))
    return Weight(codec.format, codec.write(codec.inner.write(values, params), mask), shape)


def _squares(matrix: Float[Tensor, "out in"]) -> float:
    """Return the sum of squares: of each row in float32, of these in double precision."""
    parts = (matrix[rows].float() for rows in slabs(*matrix.shape))
    norms = (torch.linalg.vector_norm(part, dim=1) for part in parts)
    return sum(float(norm.double().square().sum()) for norm in norms)


def weight_error(new: Weight, old: Float[Tensor, "out in"]) -> Quantity:
    """Return ‖Q - W‖² ÷ ‖W‖²."""
    lost, whole = _squares(new.dense() - old), _squares(old)
    return Quantity(lost / whole if whole else 0.0, "1", "‖Q-W‖² ÷ ‖W‖²")
