"""Number formats as values with a text name; what their planes are called, their types and shapes.

Needs neither torch nor numpy: the light package reads saved folders with this file alone.

A scalar format is an *element* (what a code means), a *grouping* (which weights share a scale), a
*scale type* (how the scale is stored) and, for integers, a zero point:

    int4-g64            4-bit two's-complement integers, one bf16 scale for 64 inputs of a row
    int4-g64-affine     unsigned codes and a packed zero point
    int4-g32-min-f16    unsigned codes and the minimum of a group, a number as its scale is
    int8-channel        one scale a row             int8-tensor     one scale
    fp8-e4m3-channel    fp8-e5m2, fp6-e3m2, fp6-e2m3, fp4 (e2m1)
    nf4-g64             quantiles of the normal distribution
    log4-g64            powers of two; log4-g64-base1.43: of 1.43; log4-g64-tuned: of a stored base
    apot4-g64           sums of two powers of two
    codebook4-channel   levels learned for each row; codebook4-tensor: one table for the matrix
    codebook4-g64       levels for each row, a scale a group; codebook4-g64-shared: one table;
                        codebook4-g64-shared-int8: of integers
    mxfp4               = fp4-g32-e8m0              mxfp8           = fp8-e4m3-g32-e8m0
    nvfp4               = fp4-g16-e4m3 (with a tensor scale)
    int4-g64-f16        the scale's type, when it is not bf16
    int2-g64 + int2-g64 a sum: the second term codes what the first left (two-level code)
    lowrank-64          a product of two bf16 matrices, 64 between them; lowrank-64(int8-g64): of
                        two in another format
    int4-g64 + lowrank-16  codes, and a product for what they left
    bf16, f16, f32      plain numbers
    2:4(int4-g64)       2 of every 4 inputs of a row are kept, as int4-g64 (`formats.pattern`)
    sparse50(bf16)      half of each row is kept; sparse50-tensor(bf16): half of the matrix

The inputs of a row are cut into groups from the first; the last group may be shorter.

Law: `parse(str(f)) == f`.
Law: `f.bits(shape)` is 8 times the bytes of its planes.
"""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import ceil
from typing import Literal, cast, get_args

from whet.base.errors import RecipeError
from whet.formats.coded import BF16, LONG
from whet.formats.coded import SCALE_DTYPE as SCALE_DTYPE
from whet.formats.coded import Coded as Coded
from whet.formats.coded import Float as Float
from whet.formats.coded import Grouping as Grouping
from whet.formats.coded import ScaleType as ScaleType
from whet.formats.element import (
    MINIFLOATS,
    Element,
    Integer,
    Learned,
    Log,
    PowerSum,
    Quantile,
)
from whet.formats.examples import EXAMPLES as EXAMPLES
from whet.formats.examples import SPARSE as SPARSE
from whet.formats.examples import some
from whet.formats.pattern import Pattern, parse_pattern
from whet.formats.plane import WIDTH as WIDTH
from whet.formats.plane import Dtype as Dtype
from whet.formats.plane import Format as Format
from whet.formats.plane import Plane as Plane
from whet.formats.plane import Shape as Shape


@dataclass(frozen=True, slots=True)
class Sum(Format):
    """The sum of several scalar formats; the planes of term i are named `i.<plane>`."""

    terms: tuple[Coded, ...]

    def __post_init__(self) -> None:
        """Refuse sums of fewer than two terms."""
        if len(self.terms) < 2:
            raise RecipeError(f"a sum of {len(self.terms)} terms: expected two or more")

    def planes(self, shape: Shape) -> dict[str, Plane]:
        """Return the planes of every term."""
        return {
            f"{i}.{name}": plane
            for i, term in enumerate(self.terms)
            for name, plane in term.planes(shape).items()
        }

    def __str__(self) -> str:
        """Return the terms' names, joined by a plus sign."""
        return " + ".join(map(str, self.terms))


@dataclass(frozen=True, slots=True)
class LowRank(Format):
    """A product of two matrices: `left` [out, rank] times `right` [rank, in], each in one format.

    The planes of a factor are named `left.<plane>` and `right.<plane>`.
    """

    rank: int
    inner: Float | Coded = BF16

    def __post_init__(self) -> None:
        """Refuse an empty product."""
        if self.rank < 1:
            raise RecipeError(f"lowrank-{self.rank}: expected a rank of one or more")

    def factors(self, shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the factors."""
        return {"left": (shape[0], self.rank), "right": (self.rank, shape[1])}

    def planes(self, shape: Shape) -> dict[str, Plane]:
        """Return the planes of both factors; a few rows of a matrix may be fewer than its rank."""
        return {
            f"{side}.{name}": plane
            for side, size in self.factors(shape).items()
            for name, plane in self.inner.planes(size).items()
        }

    def refuses(self, shape: Shape) -> str | None:
        """Refuse a rank that no matrix of this shape has."""
        if self.rank > min(shape):
            size = f"{shape[0]} × {shape[1]}"
            return f"{self} has rank {self.rank}, a matrix of {size} has at most {min(shape)}"
        return None

    def __str__(self) -> str:
        """Return e.g. `lowrank-64`, or `lowrank-64(int8-g64)`."""
        return f"lowrank-{self.rank}" + ("" if self.inner == BF16 else f"({self.inner})")


@dataclass(frozen=True, slots=True)
class Corrected(Format):
    """Codes, and a product for what they left; the planes of term i are named `i.<plane>`."""

    codes: Format
    product: LowRank

    def __post_init__(self) -> None:
        """Refuse what holds no codes."""
        if isinstance(self.codes, Float | LowRank | Corrected):
            raise RecipeError(f"{self}: a low-rank term corrects codes, e.g. int4-g64 + lowrank-16")

    def planes(self, shape: Shape) -> dict[str, Plane]:
        """Return the planes of both terms."""
        terms = enumerate((self.codes, self.product))
        return {f"{i}.{n}": plane for i, term in terms for n, plane in term.planes(shape).items()}

    def refuses(self, shape: Shape) -> str | None:
        """Refuse what a term refuses."""
        return self.codes.refuses(shape) or self.product.refuses(shape)

    def __str__(self) -> str:
        """Return the terms' names, joined by a plus sign."""
        return f"{self.codes} + {self.product}"


@dataclass(frozen=True, slots=True)
class Sparse(Format):
    """The weights that a pattern keeps, in another format; the others are zero.

    Groups of `inner` are counted in inputs of the matrix, kept or not. Planes: `mask`, and those of
    `inner`, of which `codes` (or `value`) holds the kept weights alone: row by row, or as one
    stream where rows keep different counts.
    """

    pattern: Pattern
    inner: Coded | Float

    def __post_init__(self) -> None:
        """Refuse tables that are learned, and minima: these need not have a zero."""
        if isinstance(self.inner, Coded) and self.inner.minimum:
            raise RecipeError(
                f"format {self}: {self.inner} has minima, by which no code need be zero",
                "choose integers with a zero point or without, e.g. 2:4(int4-g64)",
            )
        if isinstance(self.inner, Coded) and isinstance(self.inner.element, Learned):
            raise RecipeError(
                f"format {self}: {self.inner} learns its levels, of which none need be zero",
                "choose integers, floats, nf or log, e.g. 2:4(int4-g64)",
            )

    def planes(self, shape: Shape) -> dict[str, Plane]:
        """Return the mask, and the planes of the inner format, fewer of its codes."""
        rows, inputs = shape
        planes = self.inner.planes(shape)
        name, bits = (
            ("codes", self.inner.element.bits) if isinstance(self.inner, Coded) else ("value", 0)
        )
        lines, kept = rows, self.pattern.of_row(inputs)
        if kept is None:
            lines, kept = 1, self.pattern.of_matrix(rows, inputs)
        planes[name] = Plane(planes[name].dtype, (lines, ceil(kept * bits / 8) if bits else kept))
        return {"mask": Plane("U8", (rows, self.pattern.mask_bytes(inputs)))} | planes

    def __str__(self) -> str:
        """Return e.g. `2:4(int4-g64)`."""
        return f"{self.pattern}({self.inner})"

    def refuses(self, shape: Shape) -> str | None:
        """Refuse a pattern that the inputs of a row do not divide into."""
        return self.pattern.unfit(shape[1])


def parse(text: str) -> Format:
    """Read a format's name. Law: `parse(str(f)) == f`."""
    head, plus, last = text.rpartition("+")
    if found := _LOWRANK.fullmatch(last.strip().lower()):
        product = LowRank(int(found["rank"]), _inner(found["inner"] or "bf16"))
        return Corrected(parse(head.strip()), product) if plus else product
    if found := _SPARSE.fullmatch(text.strip()):
        return _sparse(found["pattern"], found["inner"])
    if text.lower() in ("f32", "f16", "bf16"):
        return Float(cast('Literal["F32", "F16", "BF16"]', text.upper()))
    if "+" in text:
        return Sum(tuple(_coded(term) for term in text.split("+")))
    return _coded(text)


def smaller_group(format_: Format, inputs: int) -> Format:
    """Return the format with the largest group, not above its own nor below 16, dividing `inputs`.

    The same format where its group divides already, where there is none, and where it has no group.
    """
    if isinstance(format_, Sum):
        terms = (smaller_group(term, inputs) for term in format_.terms)
        return Sum(tuple(term for term in terms if isinstance(term, Coded)))
    if isinstance(format_, Corrected):
        codes, product = (smaller_group(f, inputs) for f in (format_.codes, format_.product))
        return Corrected(codes, cast("LowRank", product))
    if isinstance(format_, LowRank):
        return replace(format_, inner=cast("Float | Coded", smaller_group(format_.inner, inputs)))
    if isinstance(format_, Sparse):
        inner = smaller_group(format_.inner, inputs)
        return replace(format_, inner=inner) if isinstance(inner, Coded) else format_
    if not isinstance(format_, Coded) or not isinstance(format_.grouping, int):
        return format_
    sizes = range(min(format_.grouping, inputs), 15, -1)
    return replace(format_, grouping=next((g for g in sizes if inputs % g == 0), format_.grouping))


_LOWRANK = re.compile(r"lowrank-(?P<rank>\d{1,6})(\((?P<inner>.+)\))?")
_NAME = re.compile(
    r"(?P<element>fp8-e4m3|fp8-e5m2|fp6-e3m2|fp6-e2m3|fp4|(?P<kind>int|nf|log|apot|codebook)(?P<bits>\d))"
    r"-(?P<grouping>g[1-9]\d*|channel|tensor)(?P<options>(-[a-z0-9.]+)*)"
)
_KINDS: dict[str, type[Integer | Quantile | Log | PowerSum | Learned]] = {
    "int": Integer, "nf": Quantile, "log": Log, "apot": PowerSum, "codebook": Learned
}  # fmt: skip

_SPARSE = re.compile(r"(?P<pattern>[^()+]+)\((?P<inner>[^()]+)\)")


def _sparse(pattern: str, inner: str) -> Sparse:
    found = parse_pattern(pattern)
    if found is None:
        raise RecipeError(
            f"unknown pattern {pattern.strip()!r} of kept weights",
            "patterns are e.g. 2:4, 4:8, sparse50, sparse62.5-tensor",
        )
    what = parse(inner)
    if not isinstance(what, Coded | Float):
        raise RecipeError(f"{pattern}({inner}) holds a sum", "one format of codes goes there")
    return Sparse(found, what)


def _inner(text: str) -> Float | Coded:
    """Return the format of a product's factors."""
    found = parse(text)
    if not isinstance(found, Float | Coded):
        raise RecipeError(
            f"factors in {found}", "Factors are plain numbers or codes, e.g. int8-g64."
        )
    return found


def _coded(text: str) -> Coded:
    name = text.strip().lower()
    found = _NAME.fullmatch(LONG.get(name, name))
    if found is None:
        raise _unknown(text.strip())
    options = found["options"].split("-")[1:]
    grouping = found["grouping"]
    format_ = Coded(
        _element(found, options, grouping),
        int(grouping[1:]) if grouping[0] == "g" else cast("Grouping", grouping),
        _taken("affine", options),
        next((s for s in get_args(ScaleType) if s != "bf16" and _taken(s, options)), "bf16"),
        _taken("min", options),
    )
    if options:
        raise _unknown(text.strip())
    return format_


def _element(found: re.Match[str], options: list[str], grouping: str) -> Element:
    """Return the element of a name, taking its options off the list."""
    if found["kind"] is None:
        return next(f for f in MINIFLOATS if str(f) == found["element"])
    kind, bits = _KINDS[found["kind"]], int(found["bits"])
    if kind is Log:
        base = next((o for o in options if re.fullmatch(r"base\d+(\.\d+)?", o)), None)
        if base is not None:
            options.remove(base)
            return Log(bits, float(base.removeprefix("base")))
        return Log(bits, None if _taken("tuned", options) else 2.0)
    if kind is Learned:
        shared = _taken("shared", options) or grouping == "tensor"
        return Learned(bits, shared, _taken("int8", options))
    return kind(bits)


def _taken(option: str, options: list[str]) -> bool:
    """Return whether an option is on the list, taking it off."""
    if option in options:
        options.remove(option)
        return True
    return False


def _unknown(name: str) -> RecipeError:
    near = get_close_matches(name, (*EXAMPLES, *LONG), n=1, cutoff=0.6)
    if re.fullmatch(r"(int|nf|log|apot|codebook)[2-8]|fp8-e4m3|fp8-e5m2|fp4", name):
        hint = f"say what shares a scale: {name}-g64, {name}-channel or {name}-tensor"
    elif _LOWRANK.fullmatch(name):
        hint = "a low-rank term comes last, e.g. int4-g64 + lowrank-16"
    elif parse_pattern(name) is not None:
        hint = f"say how the kept weights are stored: {name}(bf16) or {name}(int4-g64)"
    else:
        hint = f"did you mean {near[0]}?" if near else f"formats are e.g. {some(EXAMPLES[2:])}"
    return RecipeError(f"unknown number format {name!r}", hint)
