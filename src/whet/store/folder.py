"""A model folder opened with distrust: every fault is found before any work. Torch-free."""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whet.base.errors import FolderError, MissingError, UnsupportedError
from whet.store.json_file import read_json
from whet.store.refusals import refuse_code, refuse_pickles
from whet.store.regular import contained
from whet.store.shard import Shard, TensorInfo

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DRAFT = "draft"  # a folder inside: a smaller model that guesses for this one
CONFIG_LIMIT = 8 << 20  # [byte]
_NUMBERED = re.compile(r"model-\d+-of-\d+\.safetensors")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies."""

    file: str
    info: TensorInfo


class Folder:
    """The configuration and the tensors of a model folder; no weight is read on opening.

    A GGUF file is seen as a folder too: its configuration is made of what it says, its blocks are
    planes; with `dense` they are plain numbers. `home` is where the `files` lie. `native` are the
    types of models whose own code, which their `auto_map` names, nobody needs.
    Law: a folder that opens is complete (every tensor that the index names lies, whole, where it
    says, and nothing else does), stays inside itself, and asks for no code and no pickle.
    """

    def __init__(self, path: Path, *, dense: bool = False, native: Collection[str] = ()) -> None:
        self.path = self.home = path
        self.shards: Mapping[str, Shard]
        if is_gguf(path):
            from whet.store.gguf.shard import GgufShard

            shard = GgufShard(path, dense=dense)
            self.home, self.files = path.parent, (path.name,)
            self.config: Mapping[str, Any] = MappingProxyType(shard.config)
            self.shards = {path.name: shard}
        else:
            self.files = _files(path)
            self.config = _config(path, self.files)
            refuse_code(path, self.files, native=self.config.get("model_type") in native)
            self.shards = _shards(path, self.files)
        self.tensors: Mapping[str, Stored] = _tensors(self.shards)

    def seen_as(self, names: Mapping[str, str], config: Mapping[str, Any]) -> "Folder":
        """Return the folder with some tensors under other names, and with another config."""
        found = copy(self)
        found.config = MappingProxyType(dict(config))
        if names:
            found.shards = {file: shard.renamed(names) for file, shard in self.shards.items()}
            found.tensors = _tensors(found.shards)
        return found

    @cached_property
    def nbytes(self) -> int:
        """Size of all weight files [byte]."""
        return sum(shard.size for shard in self.shards.values())

    def read(self, name: str) -> bytearray:
        """Return the bytes of a tensor."""
        return self.shard_of(name).read(name)

    def shard_of(self, name: str) -> Shard:
        """Return the shard that holds a tensor."""
        stored = self.tensors.get(name)
        if stored is None:
            raise FolderError(f"{self.path} has no tensor {name}", "the folder is incomplete")
        return self.shards[stored.file]

    def digest(self) -> dict[str, str]:
        """Return the SHA-256 of every file that decides what the model computes or reads."""
        names = [*self.shards, *(n for n in self.files if is_side_file(n))]
        return {name: file_digest(self.home / name) for name in sorted(names)}

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the weights."""
        return tuple(self.home / name for name in sorted(self.shards))


def _tensors(shards: Mapping[str, Shard]) -> Mapping[str, Stored]:
    """Return where each tensor lies."""
    pairs = ((file, item) for file, shard in shards.items() for item in shard.tensors.items())
    return MappingProxyType({name: Stored(file, info) for file, (name, info) in pairs})


def is_gguf(path: Path) -> bool:
    """Say whether a path is a GGUF file."""
    return path.suffix == ".gguf" and path.is_file()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SIDE_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".spm", ".vocab")
NOT_SIDE = frozenset({INDEX, "manifest.json", "trainer_state.json", "quantize_config.json"})
SIDE_FOLDERS = frozenset({"additional_chat_templates"})


def is_side_file(name: str) -> bool:
    """Say whether a file is neither weights nor code, and a loader may need it."""
    path = Path(name)
    inside = path.parent == Path() or str(path.parent) in SIDE_FOLDERS
    return inside and path.suffix in SIDE_SUFFIXES and name not in NOT_SIDE


def _files(path: Path) -> tuple[str, ...]:
    """Return the files of the folder and of its chat templates, each a regular file inside it."""
    if not path.exists():
        raise MissingError(f"{path} does not exist", "give a model folder, `demo` or a hub id")
    if not path.is_dir():
        raise FolderError(
            f"{path} is a file, expected a model folder or a .gguf file",
            "give the folder it lies in",
        )
    names = [entry.name for entry in os.scandir(path) if not entry.is_dir()]
    for sub in SIDE_FOLDERS:
        if (path / sub).is_dir():
            names += [f"{sub}/{entry.name}" for entry in os.scandir(path / sub) if entry.is_file()]
    return tuple(sorted(names))


def _config(path: Path, files: Iterable[str]) -> Mapping[str, Any]:
    if "config.json" not in files:
        found = [name for name in files if name.endswith(".gguf")]
        if found:
            raise UnsupportedError(
                f"{path} holds a GGUF file, expected a Hugging Face folder",
                f"give the file itself: {path / found[0]}",
            )
        raise FolderError(f"{path} has no config.json", "give a Hugging Face model folder")
    return MappingProxyType(read_json(contained(path, "config.json", str(path)), CONFIG_LIMIT))


def _shards(path: Path, files: tuple[str, ...]) -> Mapping[str, Shard]:
    """Return the checked shards, by file name."""
    if INDEX in files:
        return _indexed(path, files)
    if SINGLE in files:
        _refuse_strays(path, files, {SINGLE})
        return {SINGLE: Shard(contained(path, SINGLE, str(path)))}
    found = [name for name in files if name.endswith(".safetensors")]
    if found:
        raise FolderError(
            f"{path} has {found[0]} but neither {SINGLE} nor {INDEX}",
            "download the missing file",
        )
    refuse_pickles(path, files)
    raise FolderError(f"{path} has no weights, expected {SINGLE}", "download the weights")


def _indexed(path: Path, files: tuple[str, ...]) -> Mapping[str, Shard]:
    """Return the shards that the index names, after checking that both agree."""
    where = str(path / INDEX)
    weight_map = read_json(contained(path, INDEX, str(path))).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise FolderError(f"{where} has no weight_map of names", "download the index again")
    names = sorted(set(weight_map.values()))
    shards: dict[str, Shard] = {}
    for name in names:
        shard_path = contained(path, name, where)
        if name not in files:
            raise FolderError(
                f"{shard_path} is missing: {where} names it", "download the missing shard"
            )
        shards[name] = Shard(shard_path)
    _check_index(where, weight_map, shards)
    _refuse_strays(path, files, set(names))
    return shards


def _check_index(where: str, weight_map: Mapping[str, str], shards: Mapping[str, Shard]) -> None:
    """Raise unless index and shards name the same tensors in the same files."""
    for tensor, name in weight_map.items():
        if tensor not in shards[name].tensors:
            raise FolderError(
                f"{where} says that {name} holds {tensor}, but it does not",
                "download the index and the shard again",
            )
    for name, shard in shards.items():
        for tensor in shard.tensors:
            if weight_map.get(tensor) != name:
                raise FolderError(
                    f"{shard.path} holds the tensor {tensor} that {where} does not place there",
                    "download the index and the shard again",
                )


def _refuse_strays(path: Path, files: Iterable[str], known: set[str]) -> None:
    """Raise if a file looks like weights of this model but belongs to no index."""
    for name in files:
        if name not in known and (name == SINGLE or _NUMBERED.fullmatch(name)):
            raise FolderError(
                f"{path / name} is an extra shard that no index names",
                "remove it, or download the index that belongs to it",
            )
