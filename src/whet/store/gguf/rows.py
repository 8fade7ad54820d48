"""Which rows of a tensor belong to a module of the original, and in which order. Torch-free."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` of a tensor (all experts' rows one after the other), put in order.

    paired       the rows of each of `heads` alternate between its first and its second half, as
                 rotary positions that turn neighbours want them
    interleaved  queries, keys and values of all heads lie one after the other; in the original,
                 those of each head
    """

    start: int
    stop: int
    order: Literal["", "paired", "interleaved"] = ""
    heads: int = 0

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.stop - self.start

    @property
    def divides(self) -> bool:
        """Say whether the heads divide the rows as the order wants it."""
        parts = {"": 1, "paired": 2, "interleaved": 3}[self.order] * max(self.heads, 1)
        return self.count % parts == 0

    def take(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of a tensor, (rows, …), as the original has them."""
        some = raw[self.start : self.stop]
        if self.order == "":
            return some
        if self.order == "paired":
            grouped = some.reshape(self.heads, self.count // self.heads // 2, 2, -1).swapaxes(1, 2)
        else:
            grouped = some.reshape(3, self.heads, self.count // self.heads // 3, -1).swapaxes(0, 1)
        return np.ascontiguousarray(grouped).reshape(some.shape)
