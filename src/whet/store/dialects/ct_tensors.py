"""Planes of whet as tensors of compressed-tensors: what `ct_planes` reads, written."""

import torch
from jaxtyping import Int32, UInt8
from torch import Tensor

from whet.formats.pack import unpack
from whet.formats.spec import Coded
from whet.formats.weight import Weight
from whet.store.dialects.ct_words import FLOAT8, INT8, NVFP4, PACKED, Words


def written(described: Words, format_: Coded, weight: Weight) -> dict[str, Tensor]:
    """Return a module's tensors by local name."""
    planes, (rows, cols), bits = weight.planes, weight.shape, format_.element.bits
    codes, scale = planes["codes"], planes["scale"]
    found = {"weight_scale": scale.reshape(1) if format_.grouping == "tensor" else scale}
    if described.format == PACKED:
        found["weight_packed"] = _words(codes)
        found["weight_shape"] = torch.tensor([rows, cols])
        if format_.affine:
            found["weight_zero_point"] = _words(planes["zero"].T.contiguous()).T.contiguous()
    elif described.format == INT8:
        found["weight"] = _int8(codes, bits, cols)
        if format_.affine:
            found["weight_zero_point"] = _int8(planes["zero"].T, bits, rows).T.contiguous()
    elif described.format == FLOAT8:
        found["weight"] = codes.view(torch.float8_e4m3fn)
    else:
        found["weight_packed"] = codes
        if described.format == NVFP4:  # it divides by what whet multiplies by, a power of two
            found["weight_global_scale"] = planes["global"].reciprocal()
    return found


def _words(packed: UInt8[Tensor, "rows bytes"]) -> Int32[Tensor, "rows words"]:
    """Fill rows of bytes up to whole words."""
    rows, size = packed.shape
    padded = packed.new_zeros(rows, -(-size // 4) * 4)
    padded[:, :size] = packed
    return padded.view(torch.int32)


def _int8(packed: UInt8[Tensor, "rows bytes"], bits: int, count: int) -> Tensor:
    """Return codes as signed integers, one a byte."""
    offset = 1 << (bits - 1)
    return (unpack(packed, bits, count).to(torch.int16) - offset).to(torch.int8)
