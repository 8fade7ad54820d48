"""A safetensors file of a quantized source as a shard of what its codes mean. Torch-free.

Tensors that make up quantized weights are not seen; the weights are, as plain numbers or as planes
of whet, made when they are read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.store.shard import WIDTHS, Shard, TensorInfo
from whet.store.sources.source import Quantized


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor that is made: the plane of a weight, or (none) its plain numbers."""

    weight: Quantized
    plane: str
    dtype: str
    shape: tuple[int, ...]

    def made(self) -> NDArray[Any]:
        """Return its numbers."""
        return self.weight.plane(self.plane) if self.plane else self.weight.dense()


class DecodedShard(Shard):
    """A file's own tensors, fewer those in `hidden`, and those that are `seen` in their place."""

    def __init__(self, shard: Shard, hidden: frozenset[str], seen: Mapping[str, Seen]) -> None:
        self._shard, self._seen = shard, seen
        self.path, self.size, self.metadata = shard.path, shard.size, shard.metadata
        own = {name: info for name, info in shard.tensors.items() if name not in hidden}
        made = {name: _info(item) for name, item in seen.items()}
        self.tensors = MappingProxyType(own | made)
        numbers = (n for n, item in seen.items() if not item.plane and item.dtype == "F32")
        self.decoded = shard.decoded | frozenset(numbers)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytearray:
        """Return bytes `start` to `stop` of a tensor."""
        if name in self._seen:
            return bytearray(self.map(name)[start:stop])
        return self._shard.read(name, start, stop)

    def chunks(self, name: str, size: int = 8 << 20) -> Iterator[bytearray]:
        """Yield a tensor's bytes in order, at most `size` [byte] at a time."""
        if name not in self._seen:
            yield from self._shard.chunks(name, size)
            return
        whole = self.map(name)
        for start in range(0, len(whole), size):
            yield bytearray(whole[start : start + size])

    def map(self, name: str) -> memoryview:
        """Return a tensor's bytes: of the file where it lies there, else made."""
        if name not in self._seen:
            return self._shard.map(name)
        found = np.ascontiguousarray(self._seen[name].made())
        return found.reshape(-1).view(np.uint8).data if found.size else memoryview(b"")


def _info(seen: Seen) -> TensorInfo:
    return TensorInfo(seen.dtype, seen.shape, 0, prod(seen.shape) * WIDTHS[seen.dtype])
