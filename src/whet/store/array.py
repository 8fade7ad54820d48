"""Stored numbers without torch: numpy's arrays, and the type of safetensors that they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.formats.spec import Format, Shape
from whet.store.shard import Shard

KINDS: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "I32": np.int32,
    "I64": np.int64, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "F16": np.float16,
    "BF16": np.uint16, "F32": np.float32, "F64": np.float64, "F8_E4M3": np.uint8,
    "F8_E5M2": np.uint8, "F8_E8M0": np.uint8,
}  # what numpy has no type for is held as its bits  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """Numbers, and their `dtype` in the words of safetensors; bf16 and fp8 are held as their bits.

    Law: `whet.store.dtypes.tensor_of` shares its memory.
    """

    dtype: str
    data: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self.data.shape

    @property
    def nbytes(self) -> int:
        """Size [byte]."""
        return self.data.nbytes

    def float32(self) -> NDArray[np.float32]:
        """Return the numbers in single precision; a copy only where they are not."""
        if self.dtype == "BF16":
            return (self.data.astype(np.uint32) << np.uint32(16)).view(np.float32)
        if self.dtype.startswith("F8"):
            raise FolderError(f"{self.dtype} found where plain numbers were expected", "check it")
        return self.data.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class Planar:
    """A matrix in some format as it lies on disk: `whet.formats.weight.Weight` without torch."""

    format: Format
    planes: Mapping[str, Array]
    shape: Shape


def stored(shard: Shard, name: str, *, mapped: bool = False) -> Array:
    """Return a tensor of a shard, `mapped` or read."""
    info = shard.tensors[name]
    return part(shard, name, info.shape, (0, info.nbytes), mapped=mapped)


def part(
    shard: Shard, name: str, shape: tuple[int, ...], span: tuple[int, int], *, mapped: bool
) -> Array:
    """Return bytes `span` of a tensor as an array of a shape."""
    dtype = shard.tensors[name].dtype
    if not prod(shape):
        return Array(dtype, np.empty(shape, KINDS[dtype]))
    start, stop = span
    data = shard.map(name)[start:stop] if mapped else shard.read(name, start, stop)
    return Array(dtype, np.frombuffer(data, KINDS[dtype]).reshape(shape))
