"""A GGUF file as a shard: its matrices as planes of whet, under the names of the original.

Tensors are virtual: planes are made of blocks when they are read; plain numbers that need no change
are mapped from the file.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whet.base.errors import FolderError
from whet.formats.spec import parse
from whet.store.array import KINDS as DTYPES
from whet.store.array import Array
from whet.store.gguf import planes
from whet.store.gguf.header import Described, Header, damaged, read_header
from whet.store.gguf.kinds import PLAIN
from whet.store.gguf.names import UNREAD, original
from whet.store.gguf.settings import config
from whet.store.shard import WIDTHS, Shard, TensorInfo

LONGEST = 1 << 16  # factors of positions


@dataclass(frozen=True, slots=True)
class _Virtual:
    """A tensor that is seen: which one of the file, and which plane of it (none: its numbers)."""

    described: Described
    plane: str
    heads: int = 0  # of queries or keys whose channels llama.cpp has put in another order
    shift: float = 0.0  # taken off the numbers


class GgufShard(Shard):
    """The virtual tensors of a file, the configuration and the schemes of its modules.

    With `dense`, matrices are seen as plain numbers, for compressing them anew: what blocks mean is
    f32, exactly.
    Law: what opens has all its tensors whole, inside the file, under names that are known.
    """

    def __init__(self, path: Path, *, dense: bool = False) -> None:
        self.path = path
        self.header: Header = read_header(path)
        self.size = self.header.size
        self.metadata: dict[str, str] = {}
        self._map: mmap.mmap | None = None
        self.config: dict[str, Any] = config(path, self.header, self._factors)
        self._virtual: dict[str, _Virtual] = {}
        self._infos: dict[str, TensorInfo] = {}
        schemes: dict[str, list[str]] = {}
        for name, described in self.header.tensors.items():
            if name not in UNREAD:
                self._see(name, described, schemes, dense=dense)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(self._infos)
        if schemes:
            listed = [{"format": text, "modules": names} for text, names in schemes.items()]
            quantization = {"quant_method": "whet", "version": 1, "schemes": listed, "ignore": []}
            self.config["quantization_config"] = quantization

    @property
    def described(self) -> str:
        """What the matrices are stored in, e.g. `GGUF Q4_K, Q6_K`; empty for plain numbers."""
        kinds = {d.kind.name for d in self.header.tensors.values() if not d.kind.plain}
        return f"GGUF {', '.join(sorted(kinds))}" if kinds else ""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytearray:
        """Return bytes `start` to `stop` of a tensor."""
        return bytearray(self.map(name)[start:stop])

    def chunks(self, name: str, size: int = 8 << 20) -> Iterator[bytearray]:
        """Yield a tensor's bytes in order, at most `size` [byte] at a time."""
        whole = self.map(name)
        for start in range(0, len(whole), size):
            yield bytearray(whole[start : start + size])

    def map(self, name: str) -> memoryview:
        """Return a tensor's bytes: of the file where they lie there so, else made."""
        found = np.ascontiguousarray(self._made(self._virtual[name], self._infos[name]))
        return found.reshape(-1).view(np.uint8).data if found.size else memoryview(b"")

    def _see(
        self, name: str, described: Described, schemes: dict[str, list[str]], *, dense: bool
    ) -> None:
        """Make a tensor of the file visible."""
        known = original(self.config["model_type"], name)
        if known is None:
            raise damaged(self.path, f"holds the tensor {name}, which its architecture has not")
        kind, heads = described.kind, self._heads(name)
        module, _, part = known.rpartition(".")
        matrix = len(described.shape) == 2
        if not kind.plain and not (matrix and part == "weight"):
            raise damaged(self.path, f"stores {name} in blocks of {kind.name}, which is no matrix")
        if kind.plain or dense:
            dtype = kind.name if kind.plain else "F32"
            shift = 1.0 if self.config["model_type"] == "gemma2" and not matrix else 0.0
            dtype = "F32" if shift else dtype
            self._add(known, _Virtual(described, "", heads, shift), dtype, described.shape)
            return
        schemes.setdefault(kind.format, []).append(module)
        rows, cols = described.shape
        for plane, item in parse(kind.format).planes((rows, cols)).items():
            local = f"{module}.weight_{plane.replace('.', '_')}"
            self._add(local, _Virtual(described, plane, heads), item.dtype, item.shape)

    def _add(self, name: str, virtual: _Virtual, dtype: str, shape: tuple[int, ...]) -> None:
        nbytes = prod(shape) * WIDTHS[dtype]
        self._virtual[name], self._infos[name] = virtual, TensorInfo(dtype, shape, 0, nbytes)

    def _heads(self, name: str) -> int:
        """Return the heads of queries and keys of Llama, whose channels go in pairs in files."""
        if self.config["model_type"] != "llama":
            return 0
        if ".attn_q." in name:
            return self.config["num_attention_heads"]
        return self.config["num_key_value_heads"] if ".attn_k." in name else 0

    def _made(self, virtual: _Virtual, info: TensorInfo) -> NDArray[Any]:
        """Return the numbers of a virtual tensor."""
        described = virtual.described
        kind, shape = described.kind, described.shape
        rows = shape[0] if len(shape) == 2 else prod(shape)
        raw = self._ordered(self._bytes(described).reshape(rows, -1), virtual.heads)
        if virtual.plane:
            return planes.plane(kind, raw, virtual.plane, (rows, shape[-1]))
        if not kind.plain:
            return planes.dense(kind, raw, (rows, shape[-1]))
        plain = raw.view(DTYPES[kind.name]).reshape(info.shape)
        return (
            Array(kind.name, plain).float32() - np.float32(virtual.shift)
            if virtual.shift
            else plain
        )

    def _ordered(self, raw: NDArray[np.uint8], heads: int) -> NDArray[np.uint8]:
        """Return rows as the original has them: the first half of each head's, then the second."""
        if not heads:
            return raw
        if len(raw) % (2 * heads):
            raise damaged(self.path, f"has {len(raw)} rows for {heads} heads")
        pairs = raw.reshape(heads, len(raw) // heads // 2, 2, -1)
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(raw.shape)

    def _bytes(self, described: Described) -> NDArray[np.uint8]:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if described.stop > len(self._map):
            raise FolderError(
                f"{self.path} became shorter while it was read", "do not change it while in use"
            )
        return np.frombuffer(self._map, np.uint8, described.stop - described.start, described.start)

    def _factors(self, name: str) -> list[float]:
        described = self.header.tensors.get(name)
        if described is None or described.kind.name not in PLAIN or prod(described.shape) > LONGEST:
            raise damaged(self.path, f"has no plain short tensor {name}")
        kind = described.kind.name
        return Array(kind, self._bytes(described).view(DTYPES[kind])).float32().tolist()
