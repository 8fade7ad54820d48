"""Number formats as values with a text name; what their planes are called, their types and shapes.

Needs neither torch nor numpy: the light package reads saved folders with this file alone.

A scalar format is an *element* (what a code means), a *grouping* (which weights share a scale), a
*scale type* (how the scale is stored) and, for integers, a zero point:

    int4-g64            4-bit two's-complement integers, one bf16 scale for 64 inputs of a row
    int4-g64-affine     unsigned codes and a packed zero point
    int8-channel        one scale a row             int8-tensor     one scale
    fp8-e4m3-channel    nf4-g64                     log4-g64 (base 2), log4-g64-base1.43, log4-g64-tuned
    apot4-g64           codebook4-channel (learned levels a row), codebook4-tensor
    mxfp4               = fp4-g32-e8m0              nvfp4           = fp4-g16-e4m3 (with a tensor scale)
    int4-g64-f16        the scale's type, when it is not bf16
    int2-g64 + int2-g64 a sum: the second term codes what the first left (two-level code)
    bf16, f16, f32      plain numbers

Law: `parse(str(f)) == f`.
Law: `f.bits(shape)` is 8 times the bytes of its planes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Literal

Shape = tuple[int, int]  # (out, in)
Dtype = Literal["U8", "I8", "I32", "I64", "F16", "BF16", "F32", "F8_E4M3", "F8_E5M2"]  # safetensors' names
WIDTH: dict[str, int] = {"U8": 1, "I8": 1, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}


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

    def bits(self, shape: Shape) -> int:
        """Return the exact stored size [bit]."""
        return 8 * sum(plane.nbytes for plane in self.planes(shape).values())


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
