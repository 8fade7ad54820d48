"""Planes of whet as tensors of compressed-tensors, and back: only bits move, nothing is rounded.

Both pack codes as one little-endian bit stream along a row; compressed-tensors fills the row up to
whole 32-bit words, whet to whole bytes. Integers are stored with an offset of half their range in
both, so the packed bits are the same; unpacked int8 has no offset. Read from compressed-tensors
0.20, `compressors/pack_quantized/helpers.py` (versions before pack 3, 5, 6 and 7 bits otherwise).
"""

import torch
from jaxtyping import Int32, UInt8
from torch import Tensor

from whet.formats.pack import pack, packed_size, unpack


def to_words(packed: UInt8[Tensor, "rows bytes"]) -> Int32[Tensor, "rows words"]:
    """Fill rows of bytes up to whole words."""
    rows, size = packed.shape
    padded = packed.new_zeros(rows, -(-size // 4) * 4)
    padded[:, :size] = packed
    return padded.view(torch.int32)


def from_words(
    words: Int32[Tensor, "rows words"], bits: int, count: int
) -> UInt8[Tensor, "rows bytes"]:
    """Undo `to_words` for rows of `count` codes."""
    rows, size = words.shape
    whole = torch.empty(rows, size, dtype=torch.int32).copy_(words).view(torch.uint8)
    return whole[:, : packed_size(count, bits)].contiguous()


def to_int8(packed: UInt8[Tensor, "rows bytes"], bits: int, count: int) -> Tensor:
    """Return codes as signed integers, one a byte."""
    offset = 1 << (bits - 1)
    return (unpack(packed, bits, count).to(torch.int16) - offset).to(torch.int8)


def from_int8(values: Tensor, bits: int) -> UInt8[Tensor, "rows bytes"]:
    """Undo `to_int8`."""
    offset = 1 << (bits - 1)
    return pack((values.to(torch.int16) + offset).to(torch.uint8), bits)
