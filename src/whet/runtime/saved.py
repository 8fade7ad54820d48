"""The weights of a folder as kernels read them. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.formats.spec import Coded, Float, Sparse
from whet.formats.terms import Term
from whet.graph.executors.build import ONE_MATRIX
from whet.graph.executors.weights import (
    Matrix,
    Precision,
    Ranges,
    Way,
    matrices_of,
    of_term,
    planes,
    refusal,
    rows_of,
    run_as,
    table,
    way,
    way_of,
)
from whet.graph.weights import Part
from whet.kernels.described import described
from whet.kernels.native import native
from whet.runtime.layouts import Layout, Prepared, Wanted
from whet.store.array import Planar
from whet.store.contents import Contents


class Saved:
    """The weights of a folder, laid out for kernels (`whet.graph.executors.build.Weights`)."""

    def __init__(self, contents: Contents, tier: str, precision: Precision) -> None:
        self.contents, self.tier = contents, tier
        self.precision: Precision = precision
        self.layouts: Mapping[str, Layout] = {}
        self._opened: dict[str, Matrix] = {}

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Return a tensor that is no linear weight."""
        return np.ascontiguousarray(self.contents.array(name).float32())

    def way(self, part: Part) -> Way:
        """Return how the input of some rows is multiplied."""
        return way(part, self.precision)

    def matrices(self, part: Part) -> Sequence[Matrix]:
        """Return the matrices of some rows of a weight that read its input."""
        every = zip(matrices_of(part), self._names(part), strict=True)
        return [self._matrix(name) for (term, _), name in every if term.side != "left"]

    def second(self, part: Part) -> Matrix | None:
        """Return the matrix that reads what the last of `matrices` returns, of a product."""
        every = zip(matrices_of(part), self._names(part), strict=True)
        return next((self._matrix(name) for (t, _), name in every if t.side == "left"), None)

    def table(self, part: Part) -> dict[str, Any]:
        """Return a table whose rows are looked up."""
        return table(self.contents.weight(part.site))

    def positions(self, name: str) -> dict[str, Any]:
        """Return a table of learned positions."""
        found = self.contents.array(name)
        rows, width = found.shape
        if found.dtype not in ("F32", "F16", "BF16"):
            raise FolderError(f"{name} is {found.dtype}, expected plain numbers")
        return {"rows": rows, "width": width, "number": found.dtype, "plain": found.data}

    def wanted(self, every: Iterable[Part]) -> list[Wanted]:
        """Return the layouts that some parts need."""
        found: dict[str, Wanted] = {}
        for part in every:
            for number, name in enumerate(self._names(part)):
                term, ranges = matrices_of(part)[number]
                nbytes = term.format.bits((_count(ranges), term.shape[1])) // 8
                found[name] = Wanted(name, nbytes, partial(self._pack, part, number))
        return list(found.values())

    def take(self, found: Prepared) -> None:
        """Take the layouts."""
        self.layouts = found.layouts

    def refusal(self, part: Part) -> str | None:
        """Return why no kernel multiplies by some rows, or None."""
        where = f"{part.site.module} ({part.scheme})"
        if len(matrices_of(part)) > 1 and ".experts." in part.site.role:
            return f"{where}: {ONE_MATRIX}"
        reason = refusal(part, self.tier, self.precision)
        return reason and f"{where}: {reason}"

    def _form(self, part: Part, term: Term) -> Coded | Float | Sparse:
        return run_as(term, part, self.tier, self.precision)

    def _names(self, part: Part) -> list[str]:
        found: list[str] = []
        for number, (term, rows) in enumerate(matrices_of(part)):
            chosen = way_of(term, part, self.precision)
            ranges = ",".join(f"{start}:{stop}" for start, stop in rows)
            form = f"{part.scheme.format}|{chosen.mode}|{chosen.input_scale!r}"
            found.append(f"{part.site.module}|{ranges}|{form}|{number}")
        return found

    def _matrix(self, name: str) -> Matrix:
        if name not in self._opened:
            self._opened[name] = native().Matrix(self.layouts[name], self.tier)
        return self._opened[name]

    def _pack(self, part: Part, number: int) -> Layout:
        term, ranges = matrices_of(part)[number]
        form, chosen = self._form(part, term), way_of(term, part, self.precision)
        read = Contents(self.contents.folder)  # not mapped: what has been packed does not stay
        whole = of_term(read.weight(part.site), term, sparse=isinstance(form, Sparse))
        weight: Planar = rows_of(whole, ranges)
        given = (described(form), planes(weight), *weight.shape)
        return native().pack(*given, self.tier, chosen.mode, chosen.input_scale)


def _count(ranges: Ranges) -> int:
    return sum(stop - start for start, stop in ranges)
