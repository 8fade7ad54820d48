"""The weights of a folder as kernels read them. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.formats.spec import Coded, Float, Sparse
from whet.graph.executors.build import Matrix
from whet.graph.executors.weights import (
    Precision,
    Way,
    planes,
    rows_of,
    table,
    taken,
    terms,
    way,
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
        """Return the matrices that add up to some rows of a weight."""
        return [self._matrix(name) for name in self._names(part)]

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
                every_term = self._forms(part)
                nbytes = sum(one.bits((part.rows, part.cols)) for one in every_term) // 8
                found[name] = Wanted(name, nbytes, partial(self._pack, part, number))
        return list(found.values())

    def take(self, found: Prepared) -> None:
        """Take the layouts."""
        self.layouts = found.layouts

    def refusal(self, part: Part) -> str | None:
        """Return why no kernel multiplies by some rows, or None."""
        extension, chosen = native(), self.way(part)
        for term in self._forms(part):
            given = (described(term), part.rows, part.cols, self.tier, chosen.mode)
            try:
                extension.kernel_name(*given, chosen.input_scale)
            except extension.LayoutError as error:
                return f"{part.site.module} ({part.scheme}): {error}"
        return None

    def _forms(self, part: Part) -> tuple[Coded | Float | Sparse, ...]:
        return taken(part, self.tier, self.way(part))

    def _names(self, part: Part) -> list[str]:
        chosen = self.way(part)
        ranges = ",".join(f"{start}:{stop}" for start, stop in part.ranges())
        count = len(self._forms(part))
        form = f"{part.scheme.format}|{chosen.mode}|{chosen.input_scale!r}"
        return [f"{part.site.module}|{ranges}|{form}|{number}" for number in range(count)]

    def _matrix(self, name: str) -> Matrix:
        if name not in self._opened:
            self._opened[name] = native().Matrix(self.layouts[name], self.tier)
        return self._opened[name]

    def _pack(self, part: Part, number: int) -> Layout:
        chosen, form = self.way(part), self._forms(part)[number]
        every = terms(self.contents.weight(part.site), sparse=isinstance(form, Sparse))
        weight: Planar = rows_of(every[number], part.ranges())
        given = (described(form), planes(weight), part.rows, part.cols)
        return native().pack(*given, self.tier, chosen.mode, chosen.input_scale)
