"""What each code of a fixed table means, in float32: what the native kernels look codes up in.

Needs no torch, unlike the codecs, which these numbers equal bit for bit.
"""

from itertools import product
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from whet.formats.element import Element, Integer, Learned, Log, Minifloat, PowerSum, Quantile

Levels = NDArray[np.float32]

RESERVED = {(4, 3): 1, (5, 2): 4}  # bit patterns of each sign that are no number
SUMS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    3: ((1.0, 0.5, 0.25), ()),
    4: ((1.0, 0.5, 0.125), (0.25,)),
    5: ((1.0, 0.25, 0.0625), (0.5, 0.125, 0.03125)),
}  # the two powers whose sums are levels, by the width of a code


def levels(element: Element, base: float | None = None) -> Levels | None:
    """Return the value of every code, or None where the matrix itself says (learned levels).

    `base` is that of a tuned log format. Codes beyond the last level read as it does.
    Law: equal to what the format's codec reads, bit for bit.
    """
    match element:
        case Integer(bits):
            return np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.float32)
        case Minifloat():
            return _patterns(element)
        case Quantile(bits):
            return _quantiles(bits)
        case Log(bits, fixed):
            assert fixed is not None or base is not None
            return _filled(_powers(bits, fixed if fixed is not None else float(base or 0)), bits)
        case PowerSum(bits):
            return _filled(_sums(bits), bits)
        case Learned():
            return None


def _patterns(kind: Minifloat) -> Levels:
    """Return the value of every bit pattern, NaN and infinities as NaN."""
    mantissas, bias = 2**kind.mantissa, 2 ** (kind.exponent - 1) - 1
    code = np.arange(2 ** (kind.bits - 1))
    exponent, mantissa = code // mantissas, (code % mantissas) / mantissas
    normal = (1 + mantissa) * np.exp2(exponent - bias)
    magnitude = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), normal).astype(np.float32)
    if spare := RESERVED.get((kind.exponent, kind.mantissa)):
        magnitude[-spare:] = np.nan
    return np.concatenate([magnitude, -magnitude])


def _quantiles(bits: int) -> Levels:
    """Return 2^bits levels that a normal distribution fills evenly, zero among them."""
    codes = 2**bits
    tail = round(1 - (1 / (2 * codes) + 1 / (2 * (codes - 1))) / 2, 7)
    above, below = (_tail(tail, codes // 2 + more) for more in (1, 0))
    found = np.sort(np.concatenate([-below, np.zeros(1), above]).astype(np.float32))
    return found / found.max()


def _tail(start: float, count: int) -> NDArray[np.float64]:
    """Return the quantiles of even steps from `start` to a half, the last left out.

    The steps are rounded to float32 and counted from the nearer end.
    """
    first, last = np.float32(start), np.float32(0.5)
    step = (last - first) / np.float32(max(count - 1, 1))
    index = np.arange(count, dtype=np.float32)
    near = first + step * index
    far = last - step * (np.float32(count - 1) - index)
    steps = np.where(index < count // 2, near, far)
    return np.array([NormalDist().inv_cdf(float(p)) for p in steps[:-1]])


def _powers(bits: int, base: float) -> Levels:
    """Return zero, 2^(bits-1) positive powers base^-k and one fewer negative ones, ascending."""
    powers = [float(np.float32(base**-k)) for k in range(2 ** (bits - 1))]
    return np.array(sorted([0.0, *powers, *(-power for power in powers[:-1])]), np.float32)


def _sums(bits: int) -> Levels:
    """Return sums of two powers of two with a sign, ascending, the largest 1."""
    first, second = SUMS[bits]
    sums = [a + b for a, b in product((0.0, *first), (0.0, *second))]
    found = np.array(sorted({*sums, *(-s for s in sums)}), np.float32)
    return found / found.max()


def _filled(found: Levels, bits: int) -> Levels:
    """Return a table of 2^bits levels, those that no code was given the last one."""
    return np.concatenate([found, np.full(2**bits - len(found), found[-1], np.float32)])
