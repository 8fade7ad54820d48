"""The IQ types of GGUF: blocks whose numbers lie, four or eight at a time, on a stored lattice.

A number is a magnitude of a few, with a sign, times the scale of 16 or 32 of them: a code of 3 or 4
bits for a table holds it exactly (IQ1 adds or takes off an eighth in place of a sign). Which
magnitudes go together, `lattices.bin` says: for each lattice a bit for every tuple, the first member
varying fastest; those that are set are the lattice's points in order. Read from ggml's
`ggml-common.h` (iq1s_grid, iq2xxs_grid, iq2xs_grid, iq2s_grid, iq3xxs_grid, iq3s_grid) and from gguf
0.19, `quants.py`.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from whet.store.gguf.fields import Raw, Singles, above, field, parts, single

Levels = tuple[int, ...]
FILE = "lattices.bin"
POINTS: Mapping[str, tuple[int, int]] = {
    "IQ1": (3, 8), "IQ2_XXS": (3, 8), "IQ2_XS": (3, 8), "IQ2_S": (3, 8),
    "IQ3_XXS": (8, 4), "IQ3_S": (8, 4),
}  # magnitudes to choose from, and how many go together; in the order of the file  # fmt: skip


def signed(*magnitudes: int) -> Levels:
    """Return a table whose upper half has the negatives of the lower one."""
    return (*magnitudes, *(-magnitude for magnitude in magnitudes))


IQ1 = (-7, 1, 9, 0, -9, -1, 7, 0)  # eighths
EIGHTH = np.float32(0.125)  # what a level of IQ1 is counted in
IQ2 = signed(8, 25, 43, 0)
IQ3_XXS = signed(4, 12, 20, 28, 36, 44, 52, 62)
IQ3_S = signed(1, 3, 5, 7, 9, 11, 13, 15)


@cache
def points(name: str) -> NDArray[np.uint8]:
    """Return the points of a lattice, (points, members): which magnitude each member has."""
    stored = np.frombuffer((files("whet.store.gguf") / FILE).read_bytes(), np.uint8)
    start = 0
    for lattice, (many, members) in POINTS.items():
        size = -(-(many**members) // 8)
        if lattice == name:
            (found,) = np.nonzero(np.unpackbits(stored[start : start + size], bitorder="little"))
            return (found[:, None] // many ** np.arange(members) % many).astype(np.uint8)
        start += size
    raise AssertionError(name)


def _words(raw: Raw, start: int, stop: int, width: str) -> NDArray[np.uint32]:
    """Return little-endian integers of some bytes of each block."""
    found = np.ascontiguousarray(raw[:, start:stop]).view(f"<{width}")
    return found.astype(np.uint32)


def _bits(raw: Raw) -> Raw:
    """Return the bits of bytes, the lowest first."""
    return np.unpackbits(np.ascontiguousarray(raw), axis=1, bitorder="little")


def _even(signs: NDArray[np.uint32]) -> Raw:
    """Return eight signs from each seven: the last one makes the number of minuses even."""
    seven = signs.reshape(len(signs), -1).astype(np.uint8)
    parity = np.bitwise_count(seven) & np.uint8(1)
    return _bits(seven | (parity << np.uint8(7)))


def _four_signs(words: NDArray[np.uint32]) -> Raw:
    """Return the signs of 32 numbers from the low 28 bits of each word."""
    return _even((words[..., None] >> np.arange(0, 28, 7, dtype=np.uint32)) & np.uint32(127))


def _codes(lattice: str, index: NDArray[np.uint32], minus: Raw) -> Raw:
    """Return codes: the magnitude, and above it the sign."""
    low = points(lattice)[index].reshape(len(index), -1)
    return above(low, minus, 3 if lattice.startswith("IQ3") else 2)


def iq2_xxs_codes(raw: Raw) -> Raw:
    """Return the codes of IQ2_XXS."""
    words = _words(raw, 2, 66, "u4")
    index = np.ascontiguousarray(words[:, ::2]).view(np.uint8).astype(np.uint32)
    return _codes("IQ2_XXS", index, _four_signs(words[:, 1::2]))


def iq2_xs_codes(raw: Raw) -> Raw:
    """Return the codes of IQ2_XS."""
    words = _words(raw, 2, 66, "u2")
    return _codes("IQ2_XS", words & np.uint32(511), _even(words >> np.uint32(9)))


def iq2_s_codes(raw: Raw) -> Raw:
    """Return the codes of IQ2_S."""
    high = parts(raw[:, 66:74], 1, 2, 4).astype(np.uint32)
    return _codes("IQ2_S", raw[:, 2:34] | (high << np.uint32(8)), _bits(raw[:, 34:66]))


def iq3_xxs_codes(raw: Raw) -> Raw:
    """Return the codes of IQ3_XXS."""
    signs = _four_signs(_words(raw, 66, 98, "u4"))
    return _codes("IQ3_XXS", raw[:, 2:66].astype(np.uint32), signs)


def iq3_s_codes(raw: Raw) -> Raw:
    """Return the codes of IQ3_S."""
    high = _bits(raw[:, 66:74]).astype(np.uint32)
    return _codes("IQ3_S", raw[:, 2:66] | (high << np.uint32(8)), _bits(raw[:, 74:106]))


def iq1_s_codes(raw: Raw) -> Raw:
    """Return the codes of IQ1_S."""
    words = _words(raw, 34, 50, "u2")
    high = (words[..., None] >> np.arange(0, 12, 3, dtype=np.uint32)) & np.uint32(7)
    index = raw[:, 2:34] | (high.reshape(len(raw), -1) << np.uint32(8))
    minus = (words >> np.uint32(15)).astype(np.uint8)
    return _codes("IQ1", index, np.repeat(minus, 32, axis=1))


def iq1_m_codes(raw: Raw) -> Raw:
    """Return the codes of IQ1_M."""
    fields = parts(raw[:, 32:48], 1, 4, 2)
    index = raw[:, :32] | ((fields & np.uint8(7)).astype(np.uint32) << np.uint32(8))
    return _codes("IQ1", index, np.repeat(field(fields, 3, 1), 8, axis=1))


def _halved(raw: Raw, scales: NDArray[np.uint32] | Raw, unit: float) -> Singles:
    """Return d · (½ + scale) · unit."""
    factors: Singles = (np.float32(0.5) + scales.astype(np.float32)) * np.float32(unit)
    return single(raw, 0) * factors


def _odd(d: Singles, scales: NDArray[np.uint32] | Raw) -> Singles:
    """Return d · (2 scale + 1)."""
    factors: Singles = np.float32(2) * scales.astype(np.float32) + np.float32(1)
    return d * factors


def iq2_xxs_scale(raw: Raw) -> Singles:
    """Return the scales of IQ2_XXS."""
    return _halved(raw, _words(raw, 2, 66, "u4")[:, 1::2] >> np.uint32(28), 0.25)


def iq2_scale(raw: Raw) -> Singles:
    """Return the scales of IQ2_XS and IQ2_S."""
    return _halved(raw, parts(raw[:, -8:], 1, 4, 2), 0.25)


def iq3_xxs_scale(raw: Raw) -> Singles:
    """Return the scales of IQ3_XXS."""
    return _halved(raw, _words(raw, 66, 98, "u4") >> np.uint32(28), 0.5)


def iq3_s_scale(raw: Raw) -> Singles:
    """Return the scales of IQ3_S."""
    return _odd(single(raw, 0), parts(raw[:, 106:110], 1, 4, 2))


def iq1_s_scale(raw: Raw) -> Singles:
    """Return the scales of IQ1_S."""
    whole = (_words(raw, 34, 50, "u2") >> np.uint32(12)) & np.uint32(7)
    return _odd(single(raw, 0) * EIGHTH, whole)


def iq1_m_scale(raw: Raw) -> Singles:
    """Return the scales of IQ1_M, whose d lies in the highest four bits of four words."""
    words = _words(raw, 48, 56, "u2")
    nibbles = (words >> np.uint32(12)) << np.arange(0, 16, 4, dtype=np.uint32)
    d = nibbles.sum(axis=1, dtype=np.uint32).astype(np.uint16).view(np.float16)
    fields = (words[..., None] >> np.arange(0, 12, 3, dtype=np.uint32)) & np.uint32(7)
    return _odd(d.astype(np.float32)[:, None] * EIGHTH, fields.reshape(len(raw), -1))
