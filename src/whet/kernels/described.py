"""Number formats as the extension is told of them (csrc/linear/matrix.h). Needs no torch."""

from typing import NotRequired, TypedDict

from whet.formats.element import Element, Integer, Learned, Log, Minifloat, PowerSum, Quantile
from whet.formats.spec import Coded, Float, Sparse


class Described(TypedDict):
    """A scalar format: its element and the width of a code, and what shares a scale of which type.

    `group` is 0 where a row has one scale, -1 where the matrix has. `sparse`: a mask says which codes
    are stored, whatever its pattern. `minimum`: each group has one.
    """

    element: str
    bits: int
    exponent: int
    group: int
    affine: bool
    shared: bool
    scale: str
    sparse: NotRequired[bool]
    minimum: NotRequired[bool]


_ELEMENTS: dict[type[Element], str] = {
    Integer: "integer",
    Minifloat: "minifloat",
    Quantile: "quantile",
    Log: "log",
    PowerSum: "power_sum",
    Learned: "learned",
}
_PLAIN = {"F32": (32, 8), "F16": (16, 5), "BF16": (16, 8)}  # width and exponent [bit]
_GROUPINGS = {"channel": 0, "tensor": -1}


def described(format_: Coded | Float | Sparse) -> Described:
    """Return a format as the extension takes it; of a sum, its terms are taken one by one."""
    if isinstance(format_, Sparse):
        inner = described(format_.inner)
        inner["sparse"] = True
        return inner
    if isinstance(format_, Float):
        bits, exponent = _PLAIN[format_.dtype]
        return Described(
            element="plain", bits=bits, exponent=exponent, group=0, affine=False, shared=False,
            scale="none",
        )  # fmt: skip
    element, grouping = format_.element, format_.grouping
    integers = isinstance(element, Learned) and element.integers
    found = Described(
        element="mapped" if integers else _ELEMENTS[type(element)],
        bits=element.bits,
        exponent=element.exponent if isinstance(element, Minifloat) else 0,
        group=grouping if isinstance(grouping, int) else _GROUPINGS[grouping],
        affine=format_.affine,
        shared=isinstance(element, Learned) and element.shared,
        scale=format_.scale,
    )
    if format_.minimum:
        found["minimum"] = True
    return found
