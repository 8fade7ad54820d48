"""Writing safetensors: deterministic bytes, aligned tensors, streamed so that little is held."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from whet.base.errors import FolderError
from whet.store.dtypes import NAMES
from whet.store.durable import Bytes, write_atomic, write_json
from whet.store.folder import INDEX, SINGLE
from whet.store.outline import Shapes
from whet.store.shard import WIDTHS, Shard

METADATA = {"format": "pt"}  # transformers refuses files that do not say so


@dataclass(frozen=True, slots=True)
class Pending:
    """A tensor still to be written: its bytes are made when their turn comes."""

    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Bytes]]

    @property
    def nbytes(self) -> int:
        """Size [byte]."""
        return prod(self.shape) * WIDTHS[self.dtype]


def pending(tensor: Tensor) -> Pending:
    """Return a tensor in memory as one to be written."""
    if tensor.dtype not in NAMES:
        raise FolderError(f"a tensor of {tensor.dtype} cannot be stored", "convert it first")
    return Pending(NAMES[tensor.dtype], tuple(tensor.shape), partial(_bytes, tensor))


def _bytes(tensor: Tensor) -> Iterator[Bytes]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        yield flat.view(torch.uint8).numpy().data


def write_shard(
    path: Path,
    tensors: Mapping[str, Tensor | Pending],
    metadata: Mapping[str, str] = METADATA,
) -> None:
    """Write one safetensors file, atomically.

    Tensors lie widest dtype first, then by name, so each is aligned to its own width.
    Law: equal tensors give equal bytes, whatever the order of `tensors`.
    """
    ready = {n: t if isinstance(t, Pending) else pending(t) for n, t in tensors.items()}
    shapes = {name: (item.dtype, item.shape) for name, item in ready.items()}
    text, order, size = _headed(shapes, metadata)
    write_atomic(path, _file(text, (ready[name] for name in order)), size)


def shard_bytes(shapes: Shapes, metadata: Mapping[str, str] = METADATA) -> int:
    """Return the size of the one file that would hold tensors of these dtypes and shapes [byte].

    Law: it is the size of the file that `write_shard` writes.
    """
    return _headed(shapes, metadata)[2]


def in_order(shapes: Shapes) -> list[str]:
    """Return the names of tensors as they lie in a file: the order in which they are asked for."""
    return sorted(shapes, key=lambda name: (-WIDTHS[shapes[name][0]], name))


def _headed(shapes: Shapes, metadata: Mapping[str, str]) -> tuple[bytes, list[str], int]:
    """Return the header of a file, the order of its tensors, and its size [byte]."""
    order = in_order(shapes)
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name in order:
        dtype, shape = shapes[name]
        offsets = [position, position + prod(shape) * WIDTHS[dtype]]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return text, order, 8 + len(text) + position


def _file(header: bytes, tensors: Iterable[Pending]) -> Iterator[Bytes]:
    yield len(header).to_bytes(8, "little")
    yield header
    for tensor in tensors:
        yield from tensor.chunks()


class Shards:
    """Collects tensors, or whole files made block by block, into the shards of one folder.

    Nothing is written before `finish`; then data stream from the collected files to the shards.
    """

    def __init__(self, folder: Path, max_bytes: int = 5_000_000_000) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._tensors: dict[str, Pending] = {}

    def add(self, path: Path) -> frozenset[str]:
        """Collect all tensors of a safetensors file, which must stay until `finish`."""
        shard = Shard(path)
        for name in shard.tensors:
            self.copy(shard, name)
        return frozenset(shard.tensors)

    def copy(self, shard: Shard, name: str) -> None:
        """Collect one tensor of a safetensors file, which must stay until `finish`."""
        info = shard.tensors[name]
        self._put(name, Pending(info.dtype, info.shape, partial(shard.chunks, name)))

    def put(self, name: str, tensor: Tensor) -> None:
        """Collect one tensor, held in memory until `finish`."""
        self._put(name, pending(tensor))

    def _put(self, name: str, tensor: Pending) -> None:
        if name in self._tensors:
            raise FolderError(f"the tensor {name} is written twice", "this is a fault in whet")
        self._tensors[name] = tensor

    @property
    def nbytes(self) -> int:
        """Size of all collected tensors [byte]."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def finish(self, metadata: Mapping[str, str] = METADATA) -> tuple[str, ...]:
        """Write the shards, then the index that names them; return the files' names.

        Law: the files depend on the tensors and on the order in which they came, nothing else.
        """
        groups = list(self._groups())
        if len(groups) == 1:
            write_shard(self.folder / SINGLE, groups[0], metadata)
            return (SINGLE,)
        weight_map: dict[str, str] = {}
        for number, group in enumerate(groups, start=1):
            name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            write_shard(self.folder / name, group, metadata)
            weight_map |= dict.fromkeys(group, name)
        index = {
            "metadata": {"total_size": self.nbytes},
            "weight_map": dict(sorted(weight_map.items())),
        }
        write_json(self.folder / INDEX, index)
        return (*sorted(set(weight_map.values())), INDEX)

    def _groups(self) -> Iterator[dict[str, Pending]]:
        """Cut the tensors, in the order in which they came, into shards."""
        group: dict[str, Pending] = {}
        size = 0
        for name, tensor in self._tensors.items():
            if group and size + tensor.nbytes > self.max_bytes:
                yield group
                group, size = {}, 0
            group[name] = tensor
            size += tensor.nbytes
        yield group
