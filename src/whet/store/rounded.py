"""A file some of whose float32 tensors are seen in 16 bits, rounded to nearest even. Torch-free.

What codes of a quantized source stand for is float32, exactly. A tensor that is to be stored as such a
number is stored in the type of the model, as an ordinary folder of it would be.
"""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whet.store.shard import Shard, TensorInfo

Half = Literal["BF16", "F16"]
HALVES: Mapping[str, Half] = {"bfloat16": "BF16", "float16": "F16"}  # as config.json calls them
USUAL: Half = "BF16"


def half_of(config: Mapping[str, Any]) -> Half:
    """Return the 16-bit type that a config names; bf16 where it names none."""
    return HALVES.get(str(config.get("dtype") or config.get("torch_dtype")), USUAL)


def rounded(numbers: NDArray[np.float32], half: Half) -> NDArray[Any]:
    """Return float32 in 16 bits, bf16 as its bits. Law: as torch rounds."""
    if half == "F16":
        with np.errstate(over="ignore"):
            return numbers.astype(np.float16)
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    found = ((bits + up) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), found)


class RoundedShard(Shard):
    """A file of any kind, some of whose float32 tensors are seen in 16 bits."""

    def __init__(self, shard: Shard, names: Collection[str], half: Half) -> None:
        self._shard = shard
        self._half: Half = half
        self._names = frozenset(n for n in names if n in shard.tensors)
        self.path, self.size, self.metadata = shard.path, shard.size, shard.metadata
        self.decoded = shard.decoded - self._names
        infos = dict(shard.tensors)
        for name in self._names:
            infos[name] = TensorInfo(half, infos[name].shape, 0, infos[name].nbytes // 2)
        self.tensors = MappingProxyType(infos)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytearray:
        """Return bytes `start` to `stop` of a tensor."""
        if name not in self._names:
            return self._shard.read(name, start, stop)
        return bytearray(self.map(name)[start:stop])

    def chunks(self, name: str, size: int = 8 << 20) -> Iterator[bytearray]:
        """Yield a tensor's bytes in order, at most `size` [byte] at a time."""
        if name not in self._names:
            yield from self._shard.chunks(name, size)
            return
        whole = self.map(name)
        for start in range(0, len(whole), size):
            yield bytearray(whole[start : start + size])

    def map(self, name: str) -> memoryview:
        """Return a tensor's bytes."""
        found = self._shard.map(name)
        if name not in self._names or not len(found):
            return found
        return rounded(np.frombuffer(found, np.float32), self._half).view(np.uint8).data
