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

from whet.base.errors import FolderError, UnsupportedError
from whet.formats.spec import parse
from whet.store.array import KINDS as DTYPES
from whet.store.array import Array
from whet.store.gguf import names, planes
from whet.store.gguf.header import Described, Header, damaged
from whet.store.gguf.kinds import PLAIN
from whet.store.gguf.names import Piece
from whet.store.gguf.settings import Description
from whet.store.shard import WIDTHS, Shard, TensorInfo

LONGEST = 1 << 16  # factors of positions


@dataclass(frozen=True, slots=True)
class _Virtual:
    """A tensor that is seen: which rows of which one of the file, and which plane of it.

    `plane`: none for its numbers; `shift` is taken off them; `transposed`: seen as (in, out);
    `multiplier`: the tensor that holds the matrix's own scale, and which number of it.
    """

    described: Described
    piece: Piece
    plane: str = ""
    shift: float = 0.0
    transposed: bool = False
    multiplier: Described | None = None


class GgufShard(Shard):
    """The virtual tensors of a file.

    With `dense`, matrices are seen as plain numbers, for compressing them anew: what blocks mean is
    f32, exactly. `schemes` has the modules of each format.
    Law: what opens has all its tensors whole, inside the file, under names that are known.
    """

    def __init__(
        self, path: Path, header: Header, description: Description, *, dense: bool = False
    ) -> None:
        self.path, self.header, self.size = path, header, header.size
        self.metadata: dict[str, str] = {}
        self.schemes: dict[str, list[str]] = {}
        self._source, self._model, self._dense = Source(path), description, dense
        self._virtual: dict[str, _Virtual] = {}
        self._infos: dict[str, TensorInfo] = {}
        for name, described in header.tensors.items():
            if name not in names.UNREAD and not name.endswith((names.SCALE, names.INPUT_SCALE)):
                self._see(name, described)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(self._infos)
        numbers = (n for n, v in self._virtual.items() if not (v.plane or v.described.kind.plain))
        self.decoded = frozenset(numbers)

    @property
    def block_types(self) -> frozenset[str]:
        """The types of blocks that matrices are stored in, e.g. Q4_K."""
        return frozenset(d.kind.name for d in self.header.tensors.values() if not d.kind.plain)

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
        found = np.ascontiguousarray(self._made(self._virtual[name]))
        return found.reshape(-1).view(np.uint8).data if found.size else memoryview(b"")

    def _see(self, name: str, described: Described) -> None:
        """Make what a tensor of the file holds visible."""
        layout, config = self._model.layout, self._model.config
        found = names.pieces(layout, config, name, described.shape)
        if not found or found[-1].rows.stop > prod(described.shape[:-1] or described.shape):
            raise damaged(self.path, f"holds the tensor {name}, which its architecture has not")
        matrix = len(described.shape) >= 2
        if not described.kind.plain and not (matrix and found[0].part == "weight"):
            blocks = described.kind.name
            raise damaged(self.path, f"stores {name} in blocks of {blocks}, which is no matrix")
        for piece in found:
            if not piece.rows.divides:
                heads, count = piece.rows.heads, piece.rows.count
                raise damaged(self.path, f"has {count} rows of {name} for {heads} heads")
            plain = described.kind.plain or self._dense or piece.what in names.PLAIN
            (self._see_numbers if plain else self._see_planes)(name, described, piece)

    def _see_numbers(self, name: str, described: Described, piece: Piece) -> None:
        """Make a piece visible as plain numbers."""
        matrix = len(described.shape) >= 2
        shift = 1.0 if self._model.layout.shifted and not matrix else 0.0
        blocks = not described.kind.plain
        dtype = "F32" if shift or blocks else described.kind.name
        shape = (piece.rows.count, *described.shape[-1:]) if matrix else (piece.rows.count,)
        turned = self._model.layout.transposed and matrix and name.startswith("blk.")
        multiplier = self._multiplier(name, described)
        virtual = _Virtual(described, piece, "", shift, turned, multiplier)
        self._add(piece.name, virtual, dtype, shape[::-1] if turned else shape)

    def _see_planes(self, name: str, described: Described, piece: Piece) -> None:
        """Make a piece visible as the planes of its format."""
        self.schemes.setdefault(described.kind.format, []).append(piece.module)
        shape, multiplier = (
            (piece.rows.count, described.shape[-1]),
            self._multiplier(name, described),
        )
        for plane, item in parse(described.kind.format).planes(shape).items():
            local = f"{piece.module}.weight_{plane.replace('.', '_')}"
            virtual = _Virtual(described, piece, plane, multiplier=multiplier)
            self._add(local, virtual, item.dtype, item.shape)

    def _multiplier(self, name: str, described: Described) -> Described | None:
        """Return the tensor that scales all of a matrix, where there is one."""
        found = self.header.tensors.get(name.removesuffix(".weight") + names.SCALE)
        if found is None or found is described:
            return None
        if described.kind.name != "NVFP4" or found.kind.name != "F32":
            raise UnsupportedError(
                f"{self.path} scales all of {name}, expected blocks of NVFP4 scaled by F32",
                "give another quantization of the model",
            )
        if prod(found.shape) != prod(described.shape[:-2]):
            raise damaged(self.path, f"has {prod(found.shape)} scales of {name}")
        return found

    def _add(self, name: str, virtual: _Virtual, dtype: str, shape: tuple[int, ...]) -> None:
        if name in self._infos:
            raise damaged(self.path, f"holds {name} of the original twice")
        nbytes = prod(shape) * WIDTHS[dtype]
        self._virtual[name], self._infos[name] = virtual, TensorInfo(dtype, shape, 0, nbytes)

    def _made(self, virtual: _Virtual) -> NDArray[Any]:
        """Return the numbers of a virtual tensor."""
        described, piece = virtual.described, virtual.piece
        kind = described.kind
        cols = described.shape[-1] if len(described.shape) >= 2 else 1
        raw = self._source.bytes(described).reshape(-1, kind.nbytes * cols // kind.size)
        raw, shape = piece.rows.take(raw), (piece.rows.count, cols)
        if virtual.plane == "global":
            return self._scale(virtual)
        if virtual.plane:
            return planes.plane(kind, raw, virtual.plane, shape)
        if kind.plain:
            plain = raw.view(DTYPES[kind.name])
            plain = plain if len(described.shape) >= 2 else plain.reshape(-1)
            plain = plain.T if virtual.transposed else plain
            shift = np.float32(virtual.shift)
            return Array(kind.name, plain).float32() - shift if shift else plain
        dense = planes.dense(kind, raw, shape)
        dense *= self._scale(virtual)
        return dense.T if virtual.transposed else dense

    def _scale(self, virtual: _Virtual) -> NDArray[np.float32]:
        """Return what scales all of a matrix, one number."""
        if virtual.multiplier is None:
            return np.ones(1, np.float32)
        found = self._source.bytes(virtual.multiplier).view("<f4")
        return found[virtual.piece.expert :][:1] if len(found) > 1 else found


class Source:
    """The bytes of a file, mapped when they are first wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None

    def bytes(self, described: Described) -> NDArray[np.uint8]:
        """Return the bytes of a tensor."""
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if described.stop > len(self._map):
            raise FolderError(
                f"{self.path} became shorter while it was read", "do not change it while in use"
            )
        return np.frombuffer(self._map, np.uint8, described.stop - described.start, described.start)

    def factors(self, header: Header, name: str) -> list[float]:
        """Return a short tensor of plain numbers."""
        described = header.tensors.get(name)
        if described is None or described.kind.name not in PLAIN or prod(described.shape) > LONGEST:
            raise damaged(self.path, f"has no plain short tensor {name}")
        kind = described.kind.name
        return Array(kind, self.bytes(described).view(DTYPES[kind])).float32().tolist()
