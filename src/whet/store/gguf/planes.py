"""Rows of blocks as planes of whet, a few rows at a time. Torch-free."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.formats.bits import packed
from whet.formats.spec import Coded, parse
from whet.store.array import KINDS as DTYPES
from whet.store.gguf.fields import Raw
from whet.store.gguf.kinds import Kind

PIECE = 1 << 21  # numbers that are taken apart at a time, about


def plane(kind: Kind, raw: Raw, name: str, shape: tuple[int, int]) -> NDArray[Any]:
    """Return one plane of a matrix from its rows of blocks, (rows, bytes)."""
    described = parse(kind.format).planes(shape)[name]
    dtype = DTYPES[described.dtype]
    if name == "levels":
        return np.asarray([kind.levels], dtype)
    if name == "zero":
        return _zeros(kind, shape, described.shape)
    if name == "global":
        return np.ones(described.shape, dtype)
    if name == "codes":
        return _codes(kind, raw, described.shape, shape[1])
    part = kind.constant if name == "minimum" else kind.scale
    assert part is not None
    return _rows(part, kind, raw, described.shape, dtype)


def _zeros(kind: Kind, shape: tuple[int, int], stored: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the code that stands for 0, packed along the outputs."""
    if not kind.zero:
        return np.zeros(stored, np.uint8)
    bits = _coded(kind).element.bits
    each = np.full((stored[1], shape[0]), kind.zero, np.uint8)
    return np.ascontiguousarray(packed(each, bits).T)


def _coded(kind: Kind) -> Coded:
    """Return the format of the codes."""
    format_ = parse(kind.format)
    assert isinstance(format_, Coded)
    return format_


def _codes(kind: Kind, raw: Raw, shape: tuple[int, ...], cols: int) -> NDArray[Any]:
    assert kind.codes is not None
    bits = _coded(kind).element.bits
    found = np.empty(shape, np.uint8)
    for some, blocks in _pieces(kind, raw):
        codes = kind.codes(blocks).reshape(-1, cols)
        found[some] = packed(codes, bits)
    return found


def _rows(
    part: Callable[[Raw], NDArray[Any]],
    kind: Kind,
    raw: Raw,
    shape: tuple[int, ...],
    dtype: type[np.generic],
) -> NDArray[Any]:
    found = np.empty(shape, dtype)
    for some, blocks in _pieces(kind, raw):
        found[some] = part(blocks).reshape(-1, shape[1])
    return found


def _pieces(kind: Kind, raw: Raw) -> Iterator[tuple[slice, Raw]]:
    """Yield some rows at a time as blocks."""
    each = raw.shape[1] // kind.nbytes * kind.size
    step = max(1, PIECE // max(each, 1))
    for start in range(0, len(raw), step):
        yield slice(start, start + step), raw[start : start + step].reshape(-1, kind.nbytes)


def dense(kind: Kind, raw: Raw, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return what rows of blocks mean, in single precision."""
    found = np.empty(shape, np.float32)
    for some, blocks in _pieces(kind, raw):
        found[some] = _values(kind, blocks).reshape(-1, shape[1])
    return found


def _values(kind: Kind, blocks: Raw) -> NDArray[np.float32]:
    """Return the numbers of blocks, (blocks, size)."""
    assert kind.codes is not None
    assert kind.scale is not None
    codes, scale, format_ = kind.codes(blocks), kind.scale(blocks), _coded(kind)
    if kind.levels:
        units = np.asarray(kind.levels, np.float32)[codes]
    else:
        offset = kind.zero if format_.affine or format_.minimum else 2 ** (format_.element.bits - 1)
        units = codes.astype(np.float32) - np.float32(offset)
    factor = _FACTORS.get(format_.scale, _numbers)(scale)
    values = units.reshape(*factor.shape, -1) * factor[..., None]
    if kind.constant is not None:
        values += kind.constant(blocks).astype(np.float32)[..., None]
    return values.reshape(len(blocks), kind.size)


def _numbers(scale: NDArray[Any]) -> NDArray[np.float32]:
    return scale.astype(np.float32)


def _exponents(scale: NDArray[Any]) -> NDArray[np.float32]:
    """Return what e8m0 scales mean."""
    return np.ldexp(np.float32(1), scale.astype(np.int32) - 127)


def _minifloats(scale: NDArray[Any]) -> NDArray[np.float32]:
    """Return what e4m3 scales mean, none of which is negative."""
    exponent, mantissa = (scale >> 3).astype(np.int32), (scale & 7).astype(np.float32)
    whole = np.where(exponent > 0, mantissa + 8, mantissa)
    return np.ldexp(whole, np.maximum(exponent, 1) - 10)


_FACTORS = {"e8m0": _exponents, "e4m3": _minifloats}
