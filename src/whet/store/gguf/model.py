"""The files of a GGUF model: one, or the parts that llama.cpp splits a large one into. Torch-free."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whet.base.errors import FolderError, UnsupportedError
from whet.store.gguf.header import Header, damaged, read_header
from whet.store.gguf.settings import describe
from whet.store.gguf.shard import GgufShard, Source

SUFFIX = ".gguf"
PROJECTOR = "mmproj"  # in the names of files that hold a vision tower, not the language model
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class GgufModel:
    """The configuration of a model, and its files as shards, by name."""

    config: Mapping[str, Any]
    shards: Mapping[str, GgufShard]

    @property
    def described(self) -> str:
        """What the matrices are stored in, e.g. `GGUF Q4_K, Q6_K`; empty for plain numbers."""
        kinds = set[str]().union(*(shard.block_types for shard in self.shards.values()))
        return f"GGUF {', '.join(sorted(kinds))}" if kinds else ""


def open_model(path: Path, *, dense: bool = False) -> GgufModel:
    """Open the file of a model, and the other parts of it where it is the first of several.

    Law: a model in parts is the same model as in one file.
    """
    headers = {part: read_header(part) for part in parts(path)}
    whole = _joined(path, headers)
    homes = {name: part for part, header in headers.items() for name in header.tensors}

    def factors(name: str) -> list[float]:
        part = homes.get(name, path)
        return Source(part).factors(headers[part], name)

    description = describe(path, whole, factors)
    shards = {
        part.name: GgufShard(part, replace(header, values=whole.values), description, dense=dense)
        for part, header in headers.items()
    }
    schemes: dict[str, list[str]] = {}
    for shard in shards.values():
        for text, modules in shard.schemes.items():
            schemes.setdefault(text, []).extend(modules)
    listed = [{"format": text, "modules": modules} for text, modules in schemes.items()]
    scheme = {"quant_method": "whet", "version": 1, "schemes": listed, "ignore": []}
    config = description.config | ({"quantization_config": scheme} if listed else {})
    return GgufModel(MappingProxyType(config), MappingProxyType(shards))


def parts(path: Path) -> tuple[Path, ...]:
    """Return the files that a model lies in, the first one first."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return (path,)
    count = int(found["count"])
    listed = [path.with_name(_part_name(found["stem"], n, count)) for n in range(1, count + 1)]
    for part in listed:
        if not part.is_file():
            raise FolderError(
                f"{part} is missing: {path.name} is one of {count} parts of a model",
                "download all parts into the same folder",
            )
    return tuple(listed)


def _part_name(stem: str, number: int, count: int) -> str:
    return f"{stem}-{number:05}-of-{count:05}{SUFFIX}"


def _joined(path: Path, headers: Mapping[Path, Header]) -> Header:
    """Return the header of all parts together."""
    first = headers[next(iter(headers))]
    if len(headers) == 1:
        if (count := first.values.get("split.count", 0)) not in (0, 1):
            raise damaged(path, f"is one of {count} parts, of which its name says nothing")
        return first
    tensors: dict[str, Any] = {}
    for number, (part, header) in enumerate(headers.items()):
        said = header.values.get("split.no"), header.values.get("split.count")
        if said != (number, len(headers)):
            raise damaged(part, f"says that it is part {said[0]} (from 0) of {said[1]}")
        if twice := sorted(tensors.keys() & header.tensors.keys()):
            raise damaged(part, f"has the tensor {twice[0]} of another part")
        tensors |= header.tensors
    total = first.values.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise damaged(path, f"and its other parts hold {len(tensors)} tensors, expected {total}")
    return replace(first, tensors=tensors)


def file_in(folder: Path, names: Iterable[str]) -> Path:
    """Return the GGUF model of a folder, of whose files some are of that kind: the only one.

    The first part stands for all of them. What holds a vision tower alone is no model.
    """
    files = sorted(name for name in names if name.endswith(SUFFIX))
    models = [name for name in files if PROJECTOR not in name.lower()]
    if not models:
        raise UnsupportedError(
            f"{folder / files[0]} holds a vision tower, expected the file of a language model",
            "download the model itself beside it",
        )
    firsts = [n for n in models if (m := _PART.fullmatch(n)) is None or int(m["number"]) == 1]
    if len(firsts) > 1:
        some = ", ".join(firsts[:4]) + (", …" if len(firsts) > 4 else "")
        raise UnsupportedError(
            f"{folder} holds {len(firsts)} models: {some}",
            f"give one of them: {folder / firsts[0]}",
        )
    return folder / (firsts or models)[0]
