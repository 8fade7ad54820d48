"""Weights as the native extension takes them: rows of stored planes, and what they mean. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whet.formats.activation import Activation
from whet.formats.bits import packed, unpacked
from whet.formats.element import Integer, Learned
from whet.formats.spec import Coded, Float, Format, Sparse, Sum
from whet.graph.executors.dense import narrowed, widened
from whet.graph.weights import Part
from whet.kernels.described import described
from whet.kernels.levels import levels
from whet.kernels.native import native
from whet.store.array import Array, Planar

Mode = Literal["int8", "token8", "bf16"]
Precision = Literal["int8", "bf16"]
Ranges = Sequence[tuple[int, int]]
Table = dict[str, Any]  # as the extension takes it

WHOLE = ("global", "base")  # planes of the matrix, not of its rows


@dataclass(frozen=True, slots=True)
class Way:
    """How a kernel takes in activations; `rounded`: they are quantized and restored before."""

    mode: Mode
    input_scale: float = 0.0
    rounded: bool = False


def way(part: Part, precision: Precision) -> Way:
    """Return how the input of some rows is multiplied.

    Without an activation format, integer weights take activations of `precision`; int8 ones have a
    scale for some 32 channels of a token. Formats that no kernel codes are rounded in float32.
    """
    activation = part.scheme.activation
    integer = _integer(part.scheme.format)
    if activation is None:
        return Way("int8" if integer and precision == "int8" else "bf16")
    if integer and _coded_by_kernels(activation):
        return Way("token8", part.fixed[0] if activation.static else 0.0)
    return Way("bf16", rounded=True)


def _coded_by_kernels(activation: Activation) -> bool:
    symmetric = activation.element == "int8" and not activation.affine
    return symmetric and (activation.strategy == "token" or activation.static)


def _integer(format_: Format) -> bool:
    return all(isinstance(t, Coded) and isinstance(t.element, Integer) for t in scalars(format_))


def scalars(format_: Format) -> tuple[Coded | Float, ...]:
    """Return the formats whose matrices add up to one of this format; of a sparse one, run dense."""
    if isinstance(format_, Sparse):
        return (format_.inner,)
    found = format_.terms if isinstance(format_, Sum) else (format_,)
    return tuple(one for one in found if isinstance(one, Coded | Float))


def taken(part: Part, tier: str, chosen: Way) -> tuple[Coded | Float | Sparse, ...]:
    """Return the formats of the matrices that kernels multiply by: a sparse one where one takes it."""
    format_ = part.scheme.format
    if isinstance(format_, Sparse):
        given = (described(format_), part.rows, part.cols, tier, chosen.mode, chosen.input_scale)
        if "" in native().refusals(*given).values():
            return (format_,)
    return scalars(format_)


def terms(weight: Planar, *, sparse: bool = False) -> tuple[Planar, ...]:
    """Return the matrices that add up to a weight; one stored sparse is widened unless it runs so."""
    if isinstance(weight.format, Sparse):
        return (narrowed(weight) if sparse else widened(weight),)
    if not isinstance(weight.format, Sum):
        return (weight,)
    return tuple(
        Planar(
            term,
            {
                name.partition(".")[2]: plane
                for name, plane in weight.planes.items()
                if name.startswith(f"{number}.")
            },
            weight.shape,
        )
        for number, term in enumerate(weight.format.terms)
    )


def rows_of(weight: Planar, ranges: Ranges) -> Planar:
    """Return some rows of a scalar weight. Law: decodes to those rows."""
    if tuple(ranges) == ((0, weight.shape[0]),):
        return weight
    index = np.concatenate([np.arange(*run) for run in ranges])
    planes: dict[str, Array] = {}
    for name, plane in weight.planes.items():
        if _of_all(weight.format, name):
            planes[name] = plane
        elif name == "zero":
            codes = _zeros(weight, plane.data, index)
            planes[name] = Array(plane.dtype, codes)
        else:
            planes[name] = Array(plane.dtype, np.ascontiguousarray(plane.data[index]))
    return Planar(weight.format, planes, (len(index), weight.shape[1]))


def _of_all(format_: Format, plane: str) -> bool:
    """Return whether all rows of a matrix share a plane."""
    if not isinstance(format_, Coded) or plane in WHOLE:
        return plane in WHOLE
    if plane == "levels":
        return isinstance(format_.element, Learned) and format_.element.shared
    return plane in ("scale", "zero") and format_.grouping == "tensor"


def _zeros(weight: Planar, zero: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    """Return the zero points of some rows, which are packed along the rows."""
    assert isinstance(weight.format, Coded)
    bits = weight.format.element.bits
    codes = unpacked(np.ascontiguousarray(zero.T), bits, weight.shape[0])[:, index]
    return np.ascontiguousarray(packed(np.ascontiguousarray(codes), bits).T)


def meaning(weight: Planar) -> NDArray[np.float32] | None:
    """Return the value of each code, or None where there are no codes or rows have their own."""
    format_ = weight.format
    if not isinstance(format_, Coded):
        return None
    if isinstance(format_.element, Learned):
        if not format_.element.shared:
            return None
        return weight.planes["levels"].data.astype(np.float32).reshape(-1)
    base = weight.planes.get("base")
    return levels(format_.element, None if base is None else float(base.data.reshape(-1)[0]))


def planes(weight: Planar) -> dict[str, NDArray[Any]]:
    """Return the planes of a scalar weight, and the table of its codes, for the extension."""
    found = {name: np.ascontiguousarray(plane.data) for name, plane in weight.planes.items()}
    table = meaning(weight)
    return found if table is None else found | {"table": table}


def table(weight: Planar) -> Table:
    """Return a weight as a table whose rows are looked up."""
    if isinstance(weight.format, Sparse):
        weight = widened(weight)
    rows, width = weight.shape
    if isinstance(weight.format, Float):
        plain = np.ascontiguousarray(weight.planes["value"].data)
        return {"rows": rows, "width": width, "number": weight.format.dtype, "plain": plain}
    return {"rows": rows, "width": width, "terms": [_term(term) for term in terms(weight)]}


def _term(weight: Planar) -> Table:
    format_ = weight.format
    assert isinstance(format_, Coded)
    stored: Mapping[str, Array] = weight.planes
    affine = "zero" in stored
    values = meaning(weight)
    if affine:
        values = np.arange(2**format_.element.bits, dtype=np.float32)
    return {
        "bits": format_.element.bits,
        "group": max(1, format_.group(weight.shape[1])),
        "single": format_.grouping == "tensor",
        "codes": np.ascontiguousarray(stored["codes"].data),
        "scale": np.ascontiguousarray(stored["scale"].data),
        "scale_kind": format_.scale,
        "zero": np.ascontiguousarray(stored["zero"].data) if affine else None,
        "levels": values,
        "own_levels": stored["levels"].data if values is None else None,
        "whole": float(stored["global"].data.reshape(-1)[0]) if "global" in stored else 1.0,
    }
