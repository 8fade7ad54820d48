"""`formats.pack` by numpy: small integers to bytes and back, where torch is not wanted.

Law: equal to `formats.pack`, byte for byte.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
PIECE = 1 << 20  # codes that are widened at a time, about
EIGHT = np.arange(8, dtype=np.uint64)


def packed(codes: Bytes, bits: int) -> Bytes:
    """Write each row as a dense little-endian bit stream: code i at bit `i * bits`.

    Law: `unpacked(packed(c, bits), bits, count) == c` for codes below `2**bits`.
    """
    rows, count = codes.shape
    if bits == 8:
        return np.ascontiguousarray(codes)
    size = -(-count * bits // 8)
    found = np.empty((rows, size), np.uint8)
    for some in _pieces(rows, count):
        words = _joined(codes[some], 8, bits).astype("<u8")
        whole = words[..., None].view(np.uint8)[..., :bits]
        found[some] = whole.reshape(len(words), words.shape[1] * bits)[:, :size]
    return found


def unpacked(stream: Bytes, bits: int, count: int) -> Bytes:
    """Undo `packed`: read the first `count` codes of each row."""
    if bits == 8:
        return stream[:, :count]
    rows = len(stream)
    found = np.empty((rows, count), np.uint8)
    for some in _pieces(rows, count):
        words = _joined(stream[some], bits, 8)[..., None] >> EIGHT * np.uint64(bits)
        codes = (words & np.uint64(2**bits - 1)).astype(np.uint8)
        found[some] = codes.reshape(len(codes), codes.shape[1] * 8)[:, :count]
    return found


def _pieces(rows: int, count: int) -> list[slice]:
    """Return slices of rows that hold about `PIECE` numbers each."""
    step = max(1, PIECE // max(count, 1))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _joined(values: Bytes, size: int, bits: int) -> NDArray[np.uint64]:
    """Return rows as words of `size` values each, value i of a word at bit `i * bits`."""
    rows, count = values.shape
    many = -(-count // size)
    words = np.zeros((rows, many), np.uint64)
    for index in range(size):
        part = values[:, index::size]
        words[:, : part.shape[1]] |= part.astype(np.uint64) << np.uint64(index * bits)
    return words
