"""Products of activations and plain numbers, both rounded to 8 bits, where an original is followed.

What compares a compressed model with its original averages over thousands of tokens. What rounding
adds to the original's activations, half a per cent, is as random as the tokens are, and unrelated to
the compressed model's own activations, which are never rounded: they would seem to drift by it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from whet.formats import spec
from whet.formats.codec import Planes, Scalar, Search
from whet.formats.codecs import codec_of
from whet.formats.spec import parse, smaller_group
from whet.formats.weight import Weight
from whet.kernels.arithmetic import is_fast, sums_codes
from whet.kernels.described import described
from whet.kernels.native import missing, native
from whet.kernels.threads import workers

FORMAT = parse("int8-g64")
LARGEST = 1 << 24  # weights of a matrix; a larger one is decoded in panels, to bound memory


def rounded(weight: Weight) -> Callable[[Tensor], Tensor] | None:
    """Return what multiplies by a weight in 8 bits; None of codes, and where that is no quicker."""
    if missing() is not None or is_fast() or not sums_codes():
        return None
    if not isinstance(weight.format, spec.Float) or weight.shape[0] * weight.shape[1] > LARGEST:
        return None
    codes = _nearest(weight.dense(), smaller_group(FORMAT, weight.shape[1]))
    if codes is None:
        return None
    planes = {name: _plain(plane) for name, plane in codes.planes.items()}
    tier = native().chosen_tier()
    layout = native().pack(described(codes.format), planes, *weight.shape, tier, "int8")
    matrix = native().Matrix(layout, tier)

    def multiplied(x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        flat = x.reshape(-1, x.shape[-1])
        y = torch.empty(len(flat), matrix.rows)
        matrix.multiply_into(flat.contiguous().numpy(), y.numpy(), workers())
        return y.unflatten(0, x.shape[:-1])

    return multiplied


@dataclass(frozen=True, slots=True, eq=False)
class _Codes:
    format: spec.Coded
    planes: Planes


def _nearest(weight: Float[Tensor, "out in"], form: spec.Format) -> _Codes | None:
    """Return the codes of a weight, each group over its range; None of a format that cannot hold it."""
    codec = codec_of(form)
    if not isinstance(codec, Scalar) or not isinstance(form, spec.Coded):
        return None
    if form.refuses((weight.shape[0], weight.shape[1])):
        return None
    params = codec.fit(weight, Search("minmax"))
    return _Codes(
        form, codec.write(codec.snap(weight, params, torch.arange(weight.shape[1])), params)
    )


def _plain(plane: Tensor) -> NDArray[np.generic]:
    """Return the bits of a plane as an array of a type that numpy knows."""
    return (plane.view(torch.int16) if plane.dtype == torch.bfloat16 else plane).numpy()
