"""What every number format can say: its name, its planes for a shape, their exact size. Needs no torch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Literal

Shape = tuple[int, int]  # (out, in)
Dtype = Literal["U8", "I8", "I32", "I64", "F16", "BF16", "F32", "F8_E4M3", "F8_E5M2"]
WIDTH: dict[str, int] = {
    "U8": 1, "I8": 1, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1
}  # bytes of safetensors' types  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plane:
    """One stored tensor of a weight."""

    dtype: Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size [byte]."""
        return prod(self.shape) * WIDTH[self.dtype]


class Format(ABC):
    """A number format: a frozen value whose `str` is its name."""

    @abstractmethod
    def planes(self, shape: Shape) -> dict[str, Plane]:
        """Return the stored tensors of a matrix of this shape, by name."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the name; `parse` reads it back."""

    def refuses(self, shape: Shape) -> str | None:
        """Return why no matrix of this shape has the format, or None."""
        return None

    def bits(self, shape: Shape) -> int:
        """Return the exact stored size [bit]."""
        return 8 * sum(plane.nbytes for plane in self.planes(shape).values())
