"""The header of a GGUF file, by a bounded reader: nothing is trusted, little is held.

A file is a magic, a version, two counts, key-value pairs, descriptions of tensors and, aligned, the
data. Every length is checked against what is left of the file before anything is made of it. Read
from gguf 0.19, `gguf_reader.py` and `constants.py`.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from whet.base.errors import FolderError, UnsupportedError
from whet.store.gguf.kinds import KINDS, Kind
from whet.store.regular import regular

MAGIC, VERSIONS = b"GGUF", (2, 3)
PAIRS, TENSORS = 1 << 16, 1 << 17  # at most
ITEMS = 1 << 21  # of all lists together, at most
NAME = 1 << 8  # the longest name [byte]
LARGEST = 1 << 40  # numbers in a tensor
ALIGNMENTS = {1 << power for power in range(3, 21)}
NUMBERS: Mapping[int, np.dtype[Any]] = {
    0: np.dtype("u1"), 1: np.dtype("i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"),
    4: np.dtype("<u4"), 5: np.dtype("<i4"), 6: np.dtype("<f4"), 7: np.dtype("?"),
    10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8"),
}  # fmt: skip
STRING, LIST = 8, 9


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor: its kind, its shape with the rows first, and where its bytes lie in the file."""

    kind: Kind
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its data begin."""

    values: Mapping[str, Any]
    tensors: Mapping[str, Described]
    size: int


def read_header(path: Path) -> Header:
    """Read and check a header.

    Law: a header that lies (counts, lengths, types, offsets, duplicates, truncation) raises
    FolderError within a second, and nothing beyond the file is touched.
    """
    size = regular(path)
    if size < 24:
        raise damaged(path, f"has {size} bytes, fewer than a header")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        cursor = _Cursor(path, data, size)
        tensors, pairs = _counts(cursor)
        values = _pairs(cursor, pairs)
        return Header(values, _tensors(cursor, tensors, _alignment(cursor, values)), size)


def damaged(path: Path, fault: str) -> FolderError:
    """Return the error of a file that contradicts itself."""
    return FolderError(f"{path} {fault}", "download or convert the file again")


class _Cursor:
    """A place in a file; it never passes the end."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size = path, data, size
        self.place, self.items = 0, ITEMS

    def take(self, count: int, what: str) -> bytes:
        """Return the next bytes."""
        if count > self.size - self.place:
            left = self.size - self.place
            raise damaged(self.path, f"was cut short: {what} takes {count} bytes, {left} are left")
        start, self.place = self.place, self.place + count
        return self.data[start : self.place]

    def number(self, format_: str, what: str) -> int:
        """Return the next integer."""
        return struct.unpack(f"<{format_}", self.take(struct.calcsize(format_), what))[0]

    def name(self, what: str) -> str:
        """Return the next string, a short printable one."""
        length = self.number("Q", f"the length of {what}")
        if length > NAME:
            raise damaged(self.path, f"has {what} of {length} bytes, expected at most {NAME}")
        text = self.take(length, what).decode("utf-8", errors="replace")
        if not text or not text.isprintable() or "\ufffd" in text:
            raise damaged(self.path, f"has {what} that is no name: {text[:40]!r}")
        return text

    def text(self, what: str) -> str:
        """Return the next string; bytes that are no UTF-8 are replaced."""
        length = self.number("Q", f"the length of {what}")
        return self.take(length, what).decode("utf-8", errors="replace")

    def value(self, kind: int, what: str) -> Any:  # noqa: ANN401 (as the file says)
        """Return the next value of a kind."""
        if kind == STRING:
            return self.text(what)
        if kind == LIST:
            return self._list(what)
        if kind not in NUMBERS:
            raise damaged(self.path, f"gives {what} the type {kind}, which GGUF does not know")
        dtype = NUMBERS[kind]
        return np.frombuffer(self.take(dtype.itemsize, what), dtype)[0].item()

    def _list(self, what: str) -> list[Any]:
        kind = self.number("I", f"the type of {what}")
        count = self.number("Q", f"the length of {what}")
        if kind != STRING and kind not in NUMBERS:
            raise damaged(self.path, f"gives the items of {what} the type {kind}")
        least = 8 if kind == STRING else NUMBERS[kind].itemsize
        if count > (self.size - self.place) // least or count > self.items:
            raise damaged(self.path, f"gives {what} {count} items, more than fit")
        self.items -= count
        if kind == STRING:
            return self._strings(count, what)
        return np.frombuffer(self.take(count * least, what), NUMBERS[kind]).tolist()

    def _strings(self, count: int, what: str) -> list[str]:
        """Return so many strings; vocabularies have hundreds of thousands."""
        data, place, size = self.data, self.place, self.size
        length_of, found = struct.Struct("<Q").unpack_from, list[str]()
        for _ in range(count):
            start = place + 8
            length = length_of(data, place)[0] if start <= size else size
            if length > size - start:
                raise damaged(self.path, f"was cut short: {what} ends beyond the file")
            place = start + length
            found.append(data[start:place].decode("utf-8", errors="replace"))
        self.place = place
        return found


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """Return how many tensors and pairs there are."""
    if cursor.take(4, "the magic") != MAGIC:
        raise damaged(cursor.path, "is no GGUF file: it does not begin with GGUF")
    version = cursor.number("I", "the version")
    if version not in VERSIONS:
        known = " or ".join(map(str, VERSIONS))
        raise UnsupportedError(
            f"{cursor.path} has the version {version} of GGUF (or another byte order), "
            f"expected {known}",
            "convert the model again with a recent llama.cpp",
        )
    tensors, pairs = cursor.number("Q", "a count"), cursor.number("Q", "a count")
    if tensors > TENSORS or pairs > PAIRS:
        raise damaged(cursor.path, f"counts {tensors} tensors and {pairs} pairs, more than fit")
    return tensors, pairs


def _pairs(cursor: _Cursor, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.name("a key")
        if key in found:
            raise damaged(cursor.path, f"has the key {key} twice")
        found[key] = cursor.value(cursor.number("I", f"the type of {key}"), key)
    return found


def _alignment(cursor: _Cursor, values: Mapping[str, Any]) -> int:
    found = values.get("general.alignment", 32)
    if found not in ALIGNMENTS or isinstance(found, bool | float):
        raise damaged(cursor.path, f"aligns its tensors to {found!r} bytes")
    return found


def _tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, Described]:
    raw: dict[str, tuple[Kind, tuple[int, ...], int]] = {}
    for _ in range(count):
        name = cursor.name("the name of a tensor")
        if name in raw:
            raise damaged(cursor.path, f"has the tensor {name} twice")
        raw[name] = _described(cursor, name, alignment)
    begin = -(-cursor.place // alignment) * alignment
    found: dict[str, Described] = {}
    for name, (kind, shape, offset) in raw.items():
        start, nbytes = begin + offset, prod(shape) // kind.size * kind.nbytes
        if start + nbytes > cursor.size:
            raise damaged(cursor.path, f"was cut short: tensor {name} ends beyond the file")
        found[name] = Described(kind, shape, start, start + nbytes)
    _refuse_overlaps(cursor.path, found)
    return found


def _described(cursor: _Cursor, name: str, alignment: int) -> tuple[Kind, tuple[int, ...], int]:
    rank = cursor.number("I", f"the rank of {name}")
    if not 1 <= rank <= 4:
        raise damaged(cursor.path, f"gives tensor {name} {rank} dimensions")
    shape = tuple(reversed([cursor.number("Q", f"the shape of {name}") for _ in range(rank)]))
    number = cursor.number("I", f"the type of {name}")
    offset = cursor.number("Q", f"the place of {name}")
    kind = KINDS.get(number)
    if kind is None:
        known = ", ".join(kind.name for kind in KINDS.values())
        raise UnsupportedError(
            f"{cursor.path}: tensor {name} is of type {number}, expected one of {known}",
            "give another quantization of the model",
        )
    if not all(0 < size <= LARGEST for size in shape) or prod(shape) > LARGEST:
        raise damaged(cursor.path, f"gives tensor {name} the shape {shape}")
    if shape[-1] % kind.size:
        raise damaged(cursor.path, f"cuts rows of {shape[-1]} in {name} into blocks of {kind.size}")
    if offset % alignment:
        raise damaged(cursor.path, f"places tensor {name} at {offset}, not aligned to {alignment}")
    return kind, shape, offset


def _refuse_overlaps(path: Path, tensors: Mapping[str, Described]) -> None:
    position = 0
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if one.start < position:
            raise damaged(path, f"is inconsistent: tensor {name} overlaps another one")
        position = one.stop
