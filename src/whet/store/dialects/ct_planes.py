"""Tensors of compressed-tensors as planes of whet: only bits move, nothing is rounded. Torch-free.

Both pack codes as one little-endian bit stream along a row; compressed-tensors fills the row up to
whole 32-bit words, whet to whole bytes. Integers are stored with an offset of half their range in
both, so the packed bits are the same; unpacked int8 has no offset. Read from compressed-tensors
0.20, `compressors/pack_quantized/helpers.py` (versions before pack 3, 5, 6 and 7 bits otherwise).
"""

import numpy as np

from whet.formats.bits import packed
from whet.store.array import Array


def from_words(words: Array, bits: int, count: int) -> Array:
    """Return rows of `count` codes as bytes: words lose what fills them up."""
    whole = np.ascontiguousarray(words.data).view(np.uint8)
    size = -(-count * bits // 8)
    return Array("U8", whole if whole.shape[1] == size else whole[:, :size].copy())


def from_int8(values: Array, bits: int) -> Array:
    """Return signed integers, one a byte, as packed codes."""
    offset = 1 << (bits - 1)
    return Array("U8", packed((values.data.astype(np.int16) + offset).astype(np.uint8), bits))


def turned(array: Array) -> Array:
    """Return an array with rows for columns."""
    return Array(array.dtype, np.ascontiguousarray(array.data.T))
