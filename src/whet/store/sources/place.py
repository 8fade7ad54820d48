"""A matrix by its module's name and shape alone, and planes decoded to numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whet.store.array import Planar
from whet.store.sources.source import Numbers


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a dialect needs to know of a place, where no family has named it."""

    module: str
    shape: tuple[int, int]
    role: str = ""
    transposed: bool = False
    head: str | None = None

    @property
    def tensor(self) -> str:
        """The tensor of plain numbers."""
        return f"{self.module}.weight"

    def oriented(self, stored: Any) -> Any:  # noqa: ANN401 (numpy's array or torch's)
        """Return the tensor itself."""
        return stored


def decoded(weight: Planar) -> Numbers:
    """Return what planes mean, in float32."""
    from whet.store.dtypes import weight_of

    return np.asarray(weight_of(weight).dense().float().numpy())
