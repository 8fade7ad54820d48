"""Products of activations and plain numbers, both rounded to 8 bits, where an original is followed.

What compares a compressed model with its original averages over thousands of tokens. What rounding
adds to the original's activations, half a per cent, is as random as the tokens are, and unrelated to
the compressed model's own activations, which are never rounded: they would seem to drift by it.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from whet.formats import spec
from whet.formats.codec import Scalar, Search
from whet.formats.codecs import codec_of
from whet.formats.spec import parse, smaller_group
from whet.formats.weight import Weight
from whet.kernels.arithmetic import sums_codes
from whet.kernels.described import described
from whet.kernels.native import missing, native
from whet.kernels.threads import workers

FORMAT = parse("int8-g64")


def rounded(weight: Weight) -> Callable[[Tensor], Tensor] | None:
    """Return what multiplies by a weight in 8 bits; None of codes, and where that is no quicker."""
    if not isinstance(weight.format, spec.Float) or missing() is not None or not sums_codes():
        return None
    form = smaller_group(FORMAT, weight.shape[1])
    codec = codec_of(form)
    if (
        not isinstance(codec, Scalar)
        or not isinstance(form, spec.Coded)
        or form.refuses(weight.shape)
    ):
        return None
    dense = weight.dense()
    params = codec.fit(dense, Search("minmax"))
    values = codec.snap(dense, params, torch.arange(weight.shape[1]))
    planes = {name: _plain(plane) for name, plane in codec.write(values, params).items()}
    tier = native().chosen_tier()
    layout = native().pack(described(form), planes, *weight.shape, tier, "int8")
    matrix = native().Matrix(layout, tier)

    def multiplied(x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        flat = x.reshape(-1, x.shape[-1])
        y = torch.empty(len(flat), matrix.rows)
        matrix.multiply_into(flat.contiguous().numpy(), y.numpy(), workers())
        return y.unflatten(0, x.shape[:-1])

    return multiplied


def _plain(plane: Tensor) -> NDArray[np.generic]:
    """Return the bits of a plane as an array of a type that numpy knows."""
    return (plane.view(torch.int16) if plane.dtype == torch.bfloat16 else plane).numpy()
