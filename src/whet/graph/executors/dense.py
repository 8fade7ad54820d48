"""Sparse weights widened to the matrices that kernels multiply by. Torch-free.

A weight that is stored sparse, and that no kernel takes so, runs in the layout of its inner format,
with zeros where nothing is kept: as exact as that format, and as fast.
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
        value = np.zeros(mask.shape, stored.data.dtype)
        value[mask] = _fitting(stored.data.reshape(-1), mask, weight)
        planes["value"] = Array(stored.dtype, value)
    else:
        bits, stored = format_.inner.element.bits, planes["codes"]
        lines, kept = _lines(format_, weight.shape)
        codes = unpacked(stored.data.reshape(lines, -1), bits, kept).reshape(-1)
        filled = _zeros(format_.inner, planes, weight.shape)
        filled[mask] = _fitting(codes, mask, weight)
        planes["codes"] = Array(stored.dtype, packed(filled, bits))
    return Planar(format_.inner, planes, weight.shape)


def narrowed(weight: Planar) -> Planar:
    """Return a sparse weight of n:m as kernels take it: its codes alone, and a bit for each weight."""
    format_ = weight.format
    assert isinstance(format_, Sparse)
    mask = masked(weight.planes["mask"].data, format_.pattern, weight.shape[1])
    bits = Array("U8", packed(mask.astype(np.uint8), 1))
    return Planar(format_.inner, {**weight.planes, "mask": bits}, weight.shape)


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


def _fitting(
    numbers: NDArray[np.generic], mask: NDArray[np.bool_], weight: Planar
) -> NDArray[np.generic]:
    """Return the stored numbers. Raises FolderError where the mask keeps more or fewer."""
    kept = int(mask.sum())
    if kept != len(numbers):
        raise FolderError(
            f"a mask of {weight.format} keeps {kept} weights, of which {len(numbers)} are stored",
            "the folder is damaged: fetch it again, or compress anew",
        )
    return numbers


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
