"""Fields of the bytes of blocks, by numpy. Torch-free."""

import numpy as np
from numpy.typing import NDArray

Raw = NDArray[np.uint8]  # (blocks, bytes of a block)
Singles = NDArray[np.float32]


def half(raw: Raw, start: int) -> NDArray[np.float16]:
    """Return a half-precision number of each block, (blocks, 1)."""
    return np.ascontiguousarray(raw[:, start : start + 2]).view(np.float16)


def single(raw: Raw, start: int) -> Singles:
    """Return it in single precision."""
    return half(raw, start).astype(np.float32)


def field(raw: Raw, start: int, bits: int) -> Raw:
    """Return some bits of each byte."""
    return (raw >> np.uint8(start)) & np.uint8(2**bits - 1)


def above(low: Raw, high: Raw, bits: int) -> Raw:
    """Return numbers whose lowest `bits` are `low`."""
    return low | (high << np.uint8(bits))


def nibbles(raw: Raw) -> Raw:
    """Return low nibbles, then high ones."""
    return np.concatenate([field(raw, 0, 4), field(raw, 4, 4)], axis=-1)


def parts(raw: Raw, run: int, bits: int, many: int) -> Raw:
    """Return fields of `bits`: of each run of bytes the lowest fields first, then the next."""
    runs = raw.reshape(len(raw), -1, 1, run)
    shifts = np.arange(many, dtype=np.uint8).reshape(1, 1, many, 1) * np.uint8(bits)
    return ((runs >> shifts) & np.uint8(2**bits - 1)).reshape(len(raw), -1)
