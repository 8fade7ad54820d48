"""Formats of one matrix: plain numbers, and codes with scales. Needs no torch."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from whet.base.errors import RecipeError
from whet.formats.element import MINIFLOATS, WIDTHS, Element, Integer, Learned, Log, Minifloat
from whet.formats.examples import EXAMPLES, some
from whet.formats.plane import Dtype, Format, Plane, Shape

ScaleType = Literal["bf16", "f16", "f32", "e8m0", "e4m3"]
SCALE_DTYPE: dict[ScaleType, Dtype] = {
    "bf16": "BF16", "f16": "F16", "f32": "F32", "e8m0": "U8", "e4m3": "F8_E4M3"
}  # fmt: skip
Grouping = int | Literal["channel", "tensor"]

LONG = {"mxfp4": "fp4-g32-e8m0", "mxfp8": "fp8-e4m3-g32-e8m0", "nvfp4": "fp4-g16-e4m3"}
SHORT = {long: short for short, long in LONG.items()}


@dataclass(frozen=True, slots=True)
class Float(Format):
    """Plain numbers, row-major, in one plane `value`."""

    dtype: Literal["F32", "F16", "BF16"] = "BF16"

    def planes(self, shape: Shape) -> dict[str, Plane]:
        """Return the one plane."""
        return {"value": Plane(self.dtype, shape)}

    def __str__(self) -> str:
        """Return `bf16`, `f16` or `f32`."""
        return self.dtype.lower()


BF16 = Float()


@dataclass(frozen=True, slots=True)
class Coded(Format):
    """Codes of one element type, and what they are scaled by.

    Planes: `codes`, a dense little-endian bit stream along the inputs of each row; `scale`;
    `zero` (affine), packed along the outputs; `minimum`, stored as scales are; `global` (scale type
    e4m3), `levels` (learned) and `base` (tuned). The scale of type e8m0 is stored as its exponent + 127.
    """

    element: Element
    grouping: Grouping = 64
    affine: bool = False
    scale: ScaleType = "bf16"
    minimum: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if reason := _unfit(self):
            raise RecipeError(f"format {self}: {reason}", f"formats are e.g. {some(EXAMPLES[3:])}")

    def group(self, inputs: int) -> int:
        """Return how many inputs of a row share a scale, for rows of `inputs`."""
        return self.grouping if isinstance(self.grouping, int) else inputs

    def groups(self, inputs: int) -> int:
        """Return how many scales a row of `inputs` has."""
        return ceil(inputs / self.group(inputs)) if inputs else 0

    def planes(self, shape: Shape) -> dict[str, Plane]:
        """Return the stored tensors of a matrix of this shape, by name."""
        rows, inputs = shape
        bits, groups = self.element.bits, self.groups(inputs)
        planes = {"codes": Plane("U8", (rows, ceil(inputs * bits / 8)))}
        one = self.grouping == "tensor"
        planes["scale"] = Plane(SCALE_DTYPE[self.scale], (1, 1) if one else (rows, groups))
        if self.affine:
            size = (1, 1) if one else (ceil(rows * bits / 8), groups)
            planes["zero"] = Plane("U8", size)
        if self.minimum:
            planes["minimum"] = planes["scale"]
        if self.scale == "e4m3":
            planes["global"] = Plane("F32", (1,))
        if isinstance(self.element, Learned):
            size = (1 if self.element.shared else rows, 2**bits)
            planes["levels"] = Plane("I8" if self.element.integers else "F16", size)
        if self.element == Log(bits, None):
            planes["base"] = Plane("F32", (1,))
        return planes

    def __str__(self) -> str:
        """Return the name, e.g. `int4-g64-affine`."""
        name = f"{self.element}-{_grouping_name(self.grouping)}" + "".join(
            f"-{option}" for option in _options(self)
        )
        return SHORT.get(name, name)


def _unfit_shift(format_: Coded) -> str | None:
    """Return why a zero point or a minimum has no meaning in a format, or None."""
    if (format_.affine or format_.minimum) and not isinstance(format_.element, Integer):
        return "only integers have a zero point or a minimum"
    if format_.minimum and (format_.affine or format_.scale in ("e8m0", "e4m3")):
        return "a minimum goes without a zero point, and with scales of bf16, f16 or f32"
    return None


def _options(format_: Coded) -> list[str]:
    """Return the suffixes of a name that say what is not the default."""
    element, options = format_.element, list[str]()
    if format_.affine:
        options.append("affine")
    if format_.minimum:
        options.append("min")
    if isinstance(element, Log) and element.base != 2.0:
        options.append("tuned" if element.base is None else f"base{element.base!r}")
    if isinstance(element, Learned) and element.shared and format_.grouping != "tensor":
        options.append("shared")
    if isinstance(element, Learned) and element.integers:
        options.append("int8")
    if format_.scale != "bf16":
        options.append(format_.scale)
    return options


def _grouping_name(grouping: Grouping) -> str:
    return f"g{grouping}" if isinstance(grouping, int) else grouping


def _unfit(format_: Coded) -> str | None:
    """Return why a format has no meaning, or None."""
    element, grouping = format_.element, format_.grouping
    widths = WIDTHS.get(type(element))
    if widths is not None and element.bits not in widths:
        return f"{element.bits} bits, expected {widths.start} to {widths.stop - 1}"
    if isinstance(element, Minifloat) and element not in MINIFLOATS:
        return f"expected one of {', '.join(map(str, MINIFLOATS))}"
    if isinstance(grouping, int) and grouping < 1:
        return "a group has one weight or more"
    if reason := _unfit_shift(format_):
        return reason
    if isinstance(element, Log) and element.base is not None and not 1 < element.base <= 4:
        return "the base of a log format lies above 1 and is at most 4"
    if isinstance(element, Log) and (element.base or 1) ** (2 ** (element.bits - 1) - 1) > 2.0**64:
        return "its smallest levels vanish; choose a smaller base, or tuned"
    return _unfit_table(format_, element) if isinstance(element, Learned) else None


def _unfit_table(format_: Coded, table: Learned) -> str | None:
    """Return why a table of learned levels has no meaning in a format, or None."""
    if format_.grouping == "tensor" and not table.shared:
        return "a scale for the matrix goes with one shared table"
    if table.integers and not table.shared:
        return "levels in int8 are one shared table"
    own = "tensor" if table.shared else "channel"
    if format_.scale in ("e8m0", "e4m3") and format_.grouping != own:
        return f"{format_.scale} scales have no sign, which a table of several scales needs"
    return None
