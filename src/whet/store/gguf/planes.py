"""Rows of blocks as planes of whet, a few rows at a time. Torch-free."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.formats.bits import packed
from whet.formats.spec import Coded, parse
from whet.store.array import KINDS as DTYPES
from whet.store.gguf.kinds import NONLINEAR, Kind, Raw

PIECE = 1 << 21  # numbers that are taken apart at a time, about


def plane(kind: Kind, raw: Raw, name: str, shape: tuple[int, int]) -> NDArray[Any]:
    """Return one plane of a matrix from its rows of blocks, (rows, bytes)."""
    described = parse(kind.format).planes(shape)[name]
    dtype = DTYPES[described.dtype]
    if name == "levels":
        return np.asarray([NONLINEAR], dtype)
    if name == "codes":
        return _codes(kind, raw, described.shape, shape[1])
    part = kind.constant if name == "minimum" else kind.scale
    assert part is not None
    return _rows(part, kind, raw, described.shape, dtype)


def _codes(kind: Kind, raw: Raw, shape: tuple[int, ...], cols: int) -> NDArray[Any]:
    assert kind.codes is not None
    first = parse(kind.format)
    assert isinstance(first, Coded)
    found = np.empty(shape, np.uint8)
    for some, blocks in _pieces(kind, raw):
        codes = kind.codes(blocks).reshape(-1, cols)
        found[some] = packed(codes, first.element.bits)
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
    format_ = parse(kind.format)
    assert isinstance(format_, Coded)
    codes = kind.codes(blocks)
    if str(format_) == "mxfp4":
        units = np.asarray(_FP4, np.float32)[codes]
        scale = np.ldexp(np.float32(1), kind.scale(blocks).astype(np.int32) - 127)
    elif "codebook" in kind.format:
        units, scale = np.asarray(NONLINEAR, np.float32)[codes], kind.scale(blocks)
    else:
        offset = 0 if format_.minimum else 2 ** (format_.element.bits - 1)
        units, scale = codes.astype(np.float32) - np.float32(offset), kind.scale(blocks)
    scale = scale.astype(np.float32)
    values = units.reshape(*scale.shape, -1) * scale[..., None]
    if kind.constant is not None:
        values += kind.constant(blocks).astype(np.float32)[..., None]
    return values.reshape(len(blocks), kind.size)


_FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)
