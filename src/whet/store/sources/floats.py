"""Values of small floats and of power-of-two scales, as tables. Torch-free."""

import numpy as np

from whet.store.array import Array
from whet.store.sources.source import Bytes, Numbers

FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
HALF_WIDTH = 4  # [bit]


def _table(exponent: int, mantissa: int, bias: int) -> Numbers:
    """Return the value of each byte with a sign, `exponent` and `mantissa` bits."""
    code = np.arange(256)
    power, fraction = (code >> mantissa) & (2**exponent - 1), code & (2**mantissa - 1)
    part = fraction / 2**mantissa
    size = np.where(power == 0, part * 2.0 ** (1 - bias), (1 + part) * 2.0 ** (power - bias))
    return np.where(code >> 7, -size, size).astype(np.float32)


E4M3 = _table(4, 3, 7)
E4M3[[0x7F, 0xFF]] = np.nan
E5M2 = _table(5, 2, 15)
E5M2[[0x7C, 0xFC]] = np.inf, -np.inf
E5M2[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
TABLES = {"F8_E4M3": E4M3, "F8_E5M2": E5M2}


def powers(exponents: Bytes) -> Numbers:
    """Return 2^(e - 127) of OCP's E8M0; 255 is no number."""
    found = np.ldexp(np.float32(1), exponents.astype(np.int32) - 127).astype(np.float32)
    return np.where(exponents == 0xFF, np.float32(np.nan), found)


def scale_values(scale: Array) -> Numbers:
    """Return scales, whatever they are stored in."""
    if scale.dtype == "F8_E8M0":
        return powers(scale.data)
    if scale.dtype in TABLES:
        return TABLES[scale.dtype][scale.data]
    return scale.float32()


def nibbles(pairs: Bytes, *, high_first: bool = False) -> Bytes:
    """Return the two codes of each byte along the last axis, the low one first unless said."""
    low, high = pairs & np.uint8(0x0F), pairs >> np.uint8(HALF_WIDTH)
    both = (high, low) if high_first else (low, high)
    return np.stack(both, -1).reshape(*pairs.shape[:-1], -1)
