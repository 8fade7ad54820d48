"""The matrices of numbers or codes that a weight is made of, term by term. Needs no torch.

A weight is the sum of its terms, but for those of a product: there what `right` makes of the input
is what `left` reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from whet.formats.spec import Coded, Corrected, Float, Format, LowRank, Shape, Sparse, Sum


@dataclass(frozen=True, slots=True)
class Term:
    """One matrix: its format and shape, and what its planes' names begin with.

    `whole` reads the input and has an output for each of the weight's; `right` reads the input,
    `left` what `right` makes of it. `stored` is the format on disk of a sparse matrix, which kernels
    multiply by in its inner format.
    """

    format: Coded | Float
    shape: Shape
    prefix: str = ""
    side: Literal["whole", "right", "left"] = "whole"
    stored: Sparse | None = None


def terms(format_: Format, shape: Shape, prefix: str = "") -> Iterator[Term]:
    """Yield the matrices of a format; those of a product come last, first `right`, then `left`."""
    match format_:
        case Coded() | Float():
            yield Term(format_, shape, prefix)
        case Sparse(inner=inner):
            yield Term(inner, shape, prefix, stored=format_)
        case Sum(every):
            yield from (Term(term, shape, f"{prefix}{i}.") for i, term in enumerate(every))
        case LowRank(inner=inner):
            sizes = format_.factors(shape)
            yield Term(inner, sizes["right"], f"{prefix}right.", "right")
            yield Term(inner, sizes["left"], f"{prefix}left.", "left")
        case Corrected(codes, product):
            yield from terms(codes, shape, f"{prefix}0.")
            yield from terms(product, shape, f"{prefix}1.")
        case _:
            return
