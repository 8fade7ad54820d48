"""Weights as the native extension takes them: rows of stored planes, and what they mean. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import UnsupportedError
from whet.formats.activation import Activation, parse_activation
from whet.formats.bits import packed, unpacked
from whet.formats.element import Integer, Learned, Minifloat
from whet.formats.spec import Coded, Corrected, Float, Format, LowRank, Sparse
from whet.formats.terms import Term
from whet.formats.terms import terms as terms_of
from whet.graph.executors.dense import narrowed, widened
from whet.graph.weights import Part
from whet.kernels.described import described
from whet.kernels.levels import levels
from whet.kernels.native import native
from whet.store.array import Array, Planar

Mode = Literal["int8", "token8", "bf16", "int16"]
Precision = Literal["int8", "int16", "bf16"]
Ranges = Sequence[tuple[int, int]]
Table = dict[str, Any]  # as the extension takes it

LOOKED_UP = 4  # widest codes that integer kernels look up in a table [bit]
IN_HALVES = parse_activation("int16-g32")  # what integer kernels multiply by in two halves
WHOLE = ("global", "base")  # planes of the matrix, not of its rows
WORTH_EXPANDING = {8: 0.8, 4: 0.5}  # up to which share kept codes are quicker, by their width [bit]


@dataclass(frozen=True, slots=True)
class Way:
    """How a kernel takes in activations; `rounded`: they are quantized and restored before."""

    mode: Mode
    input_scale: float = 0.0
    rounded: bool = False


@runtime_checkable
class Matrix(Protocol):
    """A layout that can be multiplied by (of the extension)."""

    rows: int
    cols: int
    input_key: int
    name: str

    def input_bytes(self, tokens: int) -> int:
        """Return the memory of a prepared input [byte]."""
        ...


@runtime_checkable
class Weights(Protocol):
    """What an executor reads of a model."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Return a tensor that is no linear weight."""
        ...

    def matrices(self, part: Part) -> Sequence[Matrix]:
        """Return the matrices of some rows of a weight that read its input; they add up to it."""
        ...

    def second(self, part: Part) -> Matrix | None:
        """Return what reads what the last of `matrices` returns, and adds instead of that."""
        ...

    def way(self, part: Part) -> Way:
        """Return how the input of some rows is multiplied."""
        ...

    def table(self, part: Part) -> dict[str, Any]:
        """Return a table whose rows are looked up, as the extension takes it."""
        ...

    def positions(self, name: str) -> dict[str, Any]:
        """Return a table of learned positions, as the extension takes it."""
        ...


def way(part: Part, precision: Precision) -> Way:
    """Return how the input of some rows is multiplied.

    Without an activation format, integer weights take activations of `precision`; int8 and int16
    ones have a scale for some 32 channels of a token. Formats that no kernel codes are rounded in
    float32 and then come in as int16, which adds nothing that one can measure; so do inputs of codes
    that share them with a product.
    """
    activation, format_ = part.scheme.activation, part.scheme.format
    if not is_integer(format_):
        return Way("bf16", rounded=activation is not None)
    if activation is None:
        return Way("int16" if precision == "bf16" and _has_minimum(format_) else precision)
    if activation == IN_HALVES and _of_blocks(format_):
        return Way("int16")
    if not isinstance(format_, Corrected) and _coded_by_kernels(activation):
        return Way("token8", part.fixed[0] if activation.static else 0.0)
    return Way("int16", rounded=True)


def _has_minimum(format_: Format) -> bool:
    return isinstance(format_, Coded) and format_.minimum


def _of_blocks(format_: Format) -> bool:
    """Return whether kernels cut the inputs of integer codes into runs of 32, or 16."""
    inner = format_.inner if isinstance(format_, Sparse) else format_
    if not isinstance(inner, Coded):
        return False
    return not isinstance(inner.grouping, int) or inner.grouping % IN_HALVES.group == 0


def _coded_by_kernels(activation: Activation) -> bool:
    symmetric = activation.element == "int8" and not activation.affine
    return symmetric and (activation.strategy == "token" or activation.static)


def is_integer(format_: Format) -> bool:
    """Return whether all codes are integers, or stand for them; a product beside has its own inputs."""
    whole = (t.format for t in terms_of(format_, (1, 1)) if t.side == "whole")
    found = [isinstance(one, Coded) and _means_integers(one) for one in whole]
    return bool(found) and all(found)


def _means_integers(format_: Coded) -> bool:
    match format_.element:
        case Integer():
            return True
        case Learned(bits, integers=True):
            return bits <= LOOKED_UP
        case Minifloat(2, 1):  # twice its numbers are integers
            return format_.scale != "e4m3"
        case _:
            return False


def way_of(term: Term, part: Part, precision: Precision) -> Way:
    """Return how the input of one term is multiplied: factors always take bf16."""
    return way(part, precision) if term.side == "whole" else Way("bf16")


def matrices_of(part: Part) -> tuple[tuple[Term, Ranges], ...]:
    """Return the matrices that some rows of a weight take, each with its rows that are needed.

    Those that read the input come first; what is left after them reads what the last one returns.
    """
    shape = part.site.shape
    found = ((term, part.ranges()) for term in terms_of(part.scheme.format, shape))
    return tuple((t, ((0, t.shape[0]),) if t.side == "right" else r) for t, r in found)


def run_as(term: Term, part: Part, tier: str, precision: Precision) -> Coded | Float | Sparse:
    """Return the format that kernels multiply by: of a sparse matrix its own where that is quicker."""
    if term.stored is None or run_dense(term, way_of(term, part, precision), tier):
        return term.format
    return term.stored


def run_dense(term: Term, chosen: Way, tier: str) -> str | None:
    """Return why a matrix that is stored sparse is multiplied by with its zeros, or None."""
    assert term.stored is not None
    if reason := not_worth_expanding(term):
        return reason
    given = (described(term.stored), *term.shape, tier, chosen.mode, chosen.input_scale)
    refusals: dict[str, str] = native().refusals(*given)
    return None if "" in refusals.values() else next(iter(refusals.values()))


def not_worth_expanding(term: Term) -> str | None:
    """Return why a matrix that is stored sparse would be slower without its zeros, or None."""
    assert term.stored is not None
    codes = term.format
    if not isinstance(codes, Coded) or codes.element.bits not in WORTH_EXPANDING:
        return "of sparse weights codes of 4 and 8 bits are expanded"
    most = WORTH_EXPANDING[codes.element.bits]
    kept = term.stored.pattern.of_matrix(*term.shape) / (term.shape[0] * term.shape[1])
    if kept > most:
        return f"{kept:.0%} of the codes are kept, above {most:.0%} whole ones are quicker"
    return None


def refusal(part: Part, tier: str, precision: Precision) -> str | None:
    """Return why no kernel multiplies by some rows, or None."""
    extension = native()
    for term, ranges in matrices_of(part):
        chosen, form = way_of(term, part, precision), run_as(term, part, tier, precision)
        size = (sum(stop - start for start, stop in ranges), term.shape[1])
        given = (described(form), *size, tier, chosen.mode)
        try:
            extension.kernel_name(*given, chosen.input_scale)
        except extension.LayoutError as error:
            return str(error)
    return None


def of_term(weight: Planar, term: Term, *, sparse: bool = False) -> Planar:
    """Return one matrix of those that make a weight; one stored sparse is widened unless it runs so."""
    found = {
        name.removeprefix(term.prefix): plane
        for name, plane in weight.planes.items()
        if name.startswith(term.prefix)
    }
    stored = Planar(term.stored or term.format, found, term.shape)
    if term.stored is None:
        return stored
    return narrowed(stored) if sparse else widened(stored)


def terms(weight: Planar) -> tuple[Planar, ...]:
    """Return the matrices of a weight."""
    return tuple(of_term(weight, term) for term in terms_of(weight.format, weight.shape))


def rows_of(weight: Planar, ranges: Ranges) -> Planar:
    """Return some rows of a scalar weight. Law: decodes to those rows."""
    if tuple(ranges) == ((0, weight.shape[0]),):
        return weight
    index = np.concatenate([np.arange(*run) for run in ranges])
    planes: dict[str, Array] = {}
    stored = dict(weight.planes)
    if "mask" in stored:
        codes = _kept_in(ranges, stored["mask"].data, stored.pop("codes").data, weight.shape[1])
        planes["codes"] = Array("U8", codes)
    for name, plane in stored.items():
        if _of_all(weight.format, name):
            planes[name] = plane
        elif name == "zero":
            codes = _zeros(weight, plane.data, index)
            planes[name] = Array(plane.dtype, codes)
        else:
            planes[name] = Array(plane.dtype, np.ascontiguousarray(plane.data[index]))
    return Planar(weight.format, planes, (len(index), weight.shape[1]))


def _kept_in(
    ranges: Ranges, mask: NDArray[np.uint8], codes: NDArray[np.uint8], cols: int
) -> NDArray[np.uint8]:
    """Return the codes of some rows, of which each has as many as its mask keeps."""
    counts = unpacked(mask, 1, cols).sum(1, dtype=np.int64)
    ends = np.concatenate([np.zeros(1, np.int64), counts.cumsum()])
    return np.concatenate([codes[ends[start] : ends[stop]] for start, stop in ranges])


def _of_all(format_: Format, plane: str) -> bool:
    """Return whether all rows of a matrix share a plane."""
    if not isinstance(format_, Coded) or plane in WHOLE:
        return plane in WHOLE
    if plane == "levels":
        return isinstance(format_.element, Learned) and format_.element.shared
    return plane in ("scale", "zero", "minimum") and format_.grouping == "tensor"


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
    if isinstance(weight.format, LowRank | Corrected):
        raise UnsupportedError(
            f"an embedding in {weight.format} has no rows to look up", "Use another format for it."
        )
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
    if affine or format_.minimum:
        values = np.arange(2**format_.element.bits, dtype=np.float32)
    return {
        "bits": format_.element.bits,
        "group": max(1, format_.group(weight.shape[1])),
        "single": format_.grouping == "tensor",
        "codes": np.ascontiguousarray(stored["codes"].data),
        "scale": np.ascontiguousarray(stored["scale"].data),
        "scale_kind": format_.scale,
        "zero": np.ascontiguousarray(stored["zero"].data) if affine else None,
        "minimum": np.ascontiguousarray(stored["minimum"].data) if format_.minimum else None,
        "levels": values,
        "own_levels": stored["levels"].data if values is None else None,
        "whole": float(stored["global"].data.reshape(-1)[0]) if "global" in stored else 1.0,
    }
