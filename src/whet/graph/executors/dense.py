"""Sparse weights as the matrices that kernels multiply by. Torch-free.

A weight that is stored sparse, and that no kernel multiplies by quicker so, runs in the layout of its
inner format, with zeros where nothing is kept: as exact as that format, and as fast.
"""

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.formats.bits import packed, unpacked
from whet.formats.element import Integer
from whet.formats.pattern import Pattern, Within, numbered
from whet.formats.spec import Coded, Float, Sparse
from whet.kernels.levels import levels
from whet.store.array import Array, Planar


def widened(weight: Planar) -> Planar:
    """Return a sparse weight in its inner format. Law: it decodes to the same matrix."""
    format_ = weight.format
    assert isinstance(format_, Sparse)
    mask = masked(weight.planes["mask"].data, format_.pattern, weight.shape[1])
    planes = {name: plane for name, plane in weight.planes.items() if name != "mask"}
    if isinstance(format_.inner, Float):
        stored = planes["value"]
        _require_fitting(stored.data.size, mask, weight)
        value = np.zeros(mask.shape, stored.data.dtype)
        value[mask] = stored.data.reshape(-1)
        planes["value"] = Array(stored.dtype, value)
    else:
        filled = _zeros(format_.inner, planes, weight.shape)
        filled[mask] = _kept_codes(weight, mask)
        planes["codes"] = Array("U8", packed(filled, format_.inner.element.bits))
    return Planar(format_.inner, planes, weight.shape)


def narrowed(weight: Planar) -> Planar:
    """Return a sparse weight as kernels take it: the codes kept, a byte each, row by row, and a mask.

    The mask has a bit for each weight. Law: rows follow each other, however many codes each keeps.
    """
    format_ = weight.format
    assert isinstance(format_, Sparse)
    mask = masked(weight.planes["mask"].data, format_.pattern, weight.shape[1])
    found = {"mask": packed(mask.astype(np.uint8), 1), "codes": _kept_codes(weight, mask)}
    planes = {name: Array("U8", plane) for name, plane in found.items()}
    return Planar(format_.inner, {**weight.planes, **planes}, weight.shape)


def masked(plane: NDArray[np.uint8], pattern: Pattern, inputs: int) -> NDArray[np.bool_]:
    """Return which weights are kept. Law: equal to `whet.formats.sparse.unpacked_mask`."""
    if not isinstance(pattern, Within) or not pattern.number_bits:
        return unpacked(plane, 1, inputs).astype(np.bool_)
    known = np.array(numbered(pattern), np.uint8)
    numbers = unpacked(plane, pattern.number_bits, -(-inputs // pattern.group))
    bits = known[np.minimum(numbers, len(known) - 1)]
    places = np.arange(pattern.group, dtype=np.uint8)
    found = (bits[..., None] >> places) & 1
    return found.reshape(len(plane), -1)[:, :inputs].astype(np.bool_)


def _lines(format_: Sparse, shape: tuple[int, int]) -> tuple[int, int]:
    """Return in how many lines codes are stored, and how many each has."""
    row = format_.pattern.of_row(shape[1])
    return (1, format_.pattern.of_matrix(*shape)) if row is None else (shape[0], row)


def _kept_codes(weight: Planar, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the codes that are stored, a byte each."""
    format_ = weight.format
    assert isinstance(format_, Sparse)
    assert isinstance(format_.inner, Coded)
    lines, kept = _lines(format_, weight.shape)
    _require_fitting(lines * kept, mask, weight)
    stored = weight.planes["codes"].data.reshape(lines, -1)
    return unpacked(stored, format_.inner.element.bits, kept).reshape(-1)


def _require_fitting(count: int, mask: NDArray[np.bool_], weight: Planar) -> None:
    """Raise FolderError where a mask keeps more or fewer numbers than are stored."""
    kept = int(mask.sum())
    if kept != count:
        raise FolderError(
            f"a mask of {weight.format} keeps {kept} weights, of which {count} are stored",
            "the folder is damaged: fetch it again, or compress anew",
        )


def _zeros(format_: Coded, planes: dict[str, Array], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the codes of a matrix of zeros."""
    bits = format_.element.bits
    if "zero" in planes:
        rows = shape[0] if format_.grouping != "tensor" else 1
        zero = unpacked(np.ascontiguousarray(planes["zero"].data.T), bits, rows).T
        columns = np.arange(shape[1]) // max(format_.group(shape[1]), 1)
        return np.broadcast_to(zero[:, columns], shape).copy()
    if isinstance(format_.element, Integer):
        return np.full(shape, 1 << (bits - 1), np.uint8)
    base = planes["base"].data if "base" in planes else None
    table = levels(format_.element, None if base is None else float(base.reshape(-1)[0]))
    assert table is not None, "formats that learn their levels are not stored sparse"
    return np.full(shape, int(np.flatnonzero(table == 0)[0]), np.uint8)
