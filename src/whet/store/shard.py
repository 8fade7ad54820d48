"""One safetensors file, read by a bounded reader: nothing is trusted, little is held. Torch-free.

A file is 8 bytes of header length (little-endian), a JSON header and the data. Every tensor has a
dtype, a shape and `data_offsets` counted from the end of the header.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whet.base.errors import FolderError
from whet.store.json_file import parse_json
from whet.store.regular import regular

HEADER_LIMIT = 16 << 20  # [byte], room for 120,000 tensors in one file
RANK_LIMIT = 8
WIDTHS: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
        "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4,
        "U64": 8, "I64": 8, "F64": 8,
    }
)  # [byte]  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of a tensor; `start` and `stop` are positions in the file [byte]."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Size [byte]."""
        return self.stop - self.start


class Shard:
    """A safetensors file whose header has been checked.

    Law: a header that lies (overlaps, holes, sizes, truncation, duplicate keys, unknown dtypes)
    raises FolderError within a second and without reading the data.
    """

    decoded: frozenset[str] = frozenset()  # tensors that codes stand for, in float32

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = regular(path)
        raw, begin = _header(path, self.size)
        self.metadata = _metadata(path, raw.pop("__metadata__", {}))
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: _info(path, name, entry, begin) for name, entry in raw.items()}
        )
        _check_layout(path, self.tensors, begin, self.size)
        self._map: mmap.mmap | None = None

    def renamed(self, names: Mapping[str, str]) -> "Shard":
        """Return the same file with some tensors under other names."""
        return RenamedShard(self, names)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytearray:
        """Return bytes `start` to `stop` of a tensor, by a plain read (nothing stays resident)."""
        info = self.tensors[name]
        stop = info.nbytes if stop is None else min(stop, info.nbytes)
        buffer = bytearray(max(0, stop - start))
        view, done = memoryview(buffer), 0
        with self.path.open("rb", buffering=0) as file:
            file.seek(info.start + start)
            while done < len(buffer):
                got = file.readinto(view[done:])
                if not got:
                    raise FolderError(
                        f"{self.path} became shorter while tensor {name} was read",
                        "do not change the folder while it is in use",
                    )
                done += got
        return buffer

    def chunks(self, name: str, size: int = 8 << 20) -> Iterator[bytearray]:
        """Yield a tensor's bytes in order, at most `size` [byte] at a time."""
        for start in range(0, self.tensors[name].nbytes, size):
            yield self.read(name, start, start + size)

    def map(self, name: str) -> memoryview:
        """Return a tensor's bytes memory-mapped: paged in when touched, private when written to."""
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        info = self.tensors[name]
        return memoryview(self._map)[info.start : info.stop]


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """Return the raw header and where the data begin [byte]."""
    with path.open("rb", buffering=0) as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > size - 8:
            raise _damaged(path, f"has {size} bytes, fewer than its header needs")
        if length > HEADER_LIMIT:
            raise _damaged(path, f"has a header of {length} bytes, expected <= {HEADER_LIMIT}")
        data = file.read(length)
    if len(data) < length or not data.startswith(b"{"):
        raise _damaged(path, "does not start with a safetensors header")
    return parse_json(data, f"the header of {path}"), 8 + length


def _metadata(path: Path, raw: object) -> dict[str, str]:
    """Return the free text of the header."""
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise _damaged(path, "has metadata that are not text")
    return dict(raw)


def _info(path: Path, name: str, entry: object, begin: int) -> TensorInfo:
    """Return one header entry, checked by itself."""
    if not name.isprintable() or ".." in name.split("/"):
        raise _damaged(path, f"has a tensor with the unsafe name {name[:80]!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"describes tensor {name} by other than dtype, shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        known = ", ".join(WIDTHS)
        raise _damaged(path, f"stores tensor {name} as {dtype!r}, expected one of {known}")
    if not (_sizes(shape) and len(shape) <= RANK_LIMIT and _sizes(offsets) and len(offsets) == 2):
        raise _damaged(path, f"gives tensor {name} a shape or offsets that are not sizes")
    info = TensorInfo(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])
    if info.nbytes != prod(shape) * WIDTHS[dtype]:
        raise _damaged(path, f"gives tensor {name} {dtype}{shape} {info.nbytes} bytes")
    return info


def _sizes(values: object) -> bool:
    """Say whether this is a list of integers >= 0 (booleans are not integers here)."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], begin: int, size: int) -> None:
    """Raise unless the tensors cover the data exactly once."""
    position = begin
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != position:
            fault = "overlaps another tensor" if info.start < position else "has a hole before it"
            raise _damaged(path, f"is inconsistent: tensor {name} {fault}")
        position = info.stop
    if position != size:
        fault = "was cut short" if position > size else "has bytes that belong to no tensor"
        raise _damaged(path, f"{fault}: {size} bytes found, {position} expected")


def _damaged(path: Path, fault: str) -> FolderError:
    return FolderError(f"{path} {fault}", "download or copy the file again")


class RenamedShard(Shard):
    """A file of any kind, some of whose tensors are seen under other names."""

    def __init__(self, shard: Shard, names: Mapping[str, str]) -> None:
        self._shard = shard
        self._own = {names.get(name, name): name for name in shard.tensors}
        self.path, self.size, self.metadata = shard.path, shard.size, shard.metadata
        infos = {new: shard.tensors[old] for new, old in self._own.items()}
        self.tensors = MappingProxyType(infos)
        self.decoded = frozenset(new for new, old in self._own.items() if old in shard.decoded)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytearray:
        """Return bytes `start` to `stop` of a tensor."""
        return self._shard.read(self._own[name], start, stop)

    def chunks(self, name: str, size: int = 8 << 20) -> Iterator[bytearray]:
        """Yield a tensor's bytes in order, at most `size` [byte] at a time."""
        return self._shard.chunks(self._own[name], size)

    def map(self, name: str) -> memoryview:
        """Return a tensor's bytes as they lie in the file, or as they are made."""
        return self._shard.map(self._own[name])
