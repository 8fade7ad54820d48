"""A model folder opened with distrust: every fault is found before any work. Torch-free."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whet.base.errors import FolderError, MissingError
from whet.store.digest import file_digest
from whet.store.json_file import read_json
from whet.store.loaded import FOLDERS, INDEX, files_left_out, is_side_file
from whet.store.refusals import refuse_code, refuse_pickles
from whet.store.regular import contained
from whet.store.rounded import RoundedShard, half_of
from whet.store.shard import Shard, TensorInfo
from whet.store.sources import decoded

SINGLE = "model.safetensors"
TIED_HEADS = frozenset({"lm_head.weight", "embed_out.weight"})
REBUILD = (
    "the index and the shards are of different uploads: download all of them again, or write them "
    "anew where transformers loads them: AutoModelForCausalLM.from_pretrained(A).save_pretrained(B)"
)
OLD_GPTQ = "quantize_config.json"  # of AutoGPTQ, which `quantization_config` has replaced
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

    A GGUF file, or a folder that holds one, is seen as a folder too: its configuration is made of what
    it says, its blocks are planes; with `dense` they are plain numbers, and so are the codes of folders
    that were quantized. `path` is then the file, and `home` where the `files` lie; `stored_as` says what
    a quantized source is stored in. `native` are the types of models whose own code, which
    their `auto_map` names, nobody needs.
    Law: a folder that opens is complete (every tensor that the index names lies, whole, where it
    says, and nothing else does), stays inside itself, and asks for no code and no pickle.
    Files that no loader reads are not opened.
    """

    def __init__(self, path: Path, *, dense: bool = False, native: Collection[str] = ()) -> None:
        self.path = self.home = path
        self.shards: Mapping[str, Shard]
        self.stored_as = ""
        if (file := gguf_file(path)) is not None:
            from whet.store.gguf.model import open_model

            model = open_model(file, dense=dense)
            self.path, self.home = file, file.parent
            self.config: Mapping[str, Any] = model.config
            self.shards, self.files = model.shards, tuple(model.shards)
            self.stored_as = model.described
        else:
            self.files = _files(path)
            config = _config(path, self.files)
            refuse_code(path, self.files, native=config.get("model_type") in native)
            shards = _shards(path, self.files)
            config = _completed(config, path, self.files, shards)
            found = decoded(config, shards, str(path), dense=dense)
            self.config, self.shards = MappingProxyType(dict(found.config)), found.shards
            self.stored_as = found.described
        self.tensors: Mapping[str, Stored] = _tensors(self.shards)

    def seen_as(self, names: Mapping[str, str], config: Mapping[str, Any]) -> "Folder":
        """Return the folder with some tensors under other names, and with another config."""
        found = copy(self)
        found.config = MappingProxyType(dict(config))
        if names:
            found.shards = {file: shard.renamed(names) for file, shard in self.shards.items()}
            found.tensors = _tensors(found.shards)
        return found

    @property
    def decoded(self) -> frozenset[str]:
        """The tensors that codes stand for, seen as float32."""
        return frozenset[str]().union(*(shard.decoded for shard in self.shards.values()))

    def rounded(self, names: Collection[str]) -> "Folder":
        """Return the folder with some float32 tensors in the 16-bit type of the model."""
        found, half = copy(self), half_of(self.config)
        found.shards = {f: RoundedShard(shard, names, half) for f, shard in self.shards.items()}
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
    def left_out(self) -> tuple[str, ...]:
        """The files that a folder made of this one does not hold, since no loader reads them."""
        return files_left_out(self.files, self.shards)

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the weights."""
        return tuple(self.home / name for name in sorted(self.shards))


def _tensors(shards: Mapping[str, Shard]) -> Mapping[str, Stored]:
    """Return where each tensor lies."""
    pairs = ((file, item) for file, shard in shards.items() for item in shard.tensors.items())
    return MappingProxyType({name: Stored(file, info) for file, (name, info) in pairs})


def gguf_file(path: Path) -> Path | None:
    """Return the GGUF file that a path means, or None: itself, or the model of a folder without others.

    A file is known by its name or, e.g. in a store of blobs, by how it begins.
    """
    if path.is_dir():
        names = [entry.name for entry in os.scandir(path) if not entry.is_dir()]
        if not any(name.endswith(".gguf") for name in names) or _is_checkpoint(names):
            return None
        from whet.store.gguf.model import file_in

        return file_in(path, names)
    if not path.is_file():
        return None
    if path.suffix == ".gguf":
        return path
    with path.open("rb") as file:
        return path if file.read(4) == b"GGUF" else None


def _is_checkpoint(names: Iterable[str]) -> bool:
    """Say whether a folder holds a checkpoint of its own: a configuration and weights."""
    return "config.json" in names and any(name.endswith(".safetensors") for name in names)


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
    for sub in FOLDERS:
        if (path / sub).is_dir():
            names += [f"{sub}/{entry.name}" for entry in os.scandir(path / sub) if entry.is_file()]
    return tuple(sorted(names))


def _config(path: Path, files: Iterable[str]) -> Mapping[str, Any]:
    if "config.json" not in files:
        raise FolderError(f"{path} has no config.json", "give a Hugging Face model folder")
    return MappingProxyType(read_json(contained(path, "config.json", str(path)), CONFIG_LIMIT))


def _completed(
    config: Mapping[str, Any], path: Path, files: tuple[str, ...], shards: Mapping[str, Shard]
) -> Mapping[str, Any]:
    """Return the configuration with what early GPTQ folders keep in a file of its own."""
    if config.get("quantization_config") or OLD_GPTQ not in files:
        return config
    if not any(name.endswith(".qweight") for shard in shards.values() for name in shard.tensors):
        return config
    found = read_json(contained(path, OLD_GPTQ, str(path)), CONFIG_LIMIT)
    return {**config, "quantization_config": {"quant_method": "gptq", **found}}


def _shards(path: Path, files: tuple[str, ...]) -> Mapping[str, Shard]:
    """Return the checked shards, by file name."""
    found = [name for name in files if name.endswith(".safetensors")]
    if found == [SINGLE]:  # an index left over from shards that are gone is not read
        return {SINGLE: Shard(contained(path, SINGLE, str(path)))}
    if INDEX in files:
        return _indexed(path, files)
    if SINGLE in files:
        _refuse_strays(path, files, {SINGLE})
        return {SINGLE: Shard(contained(path, SINGLE, str(path)))}
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
    _check_index(where, _without_tied_head(path, files, weight_map, shards), shards)
    _refuse_strays(path, files, set(names))
    return shards


def _without_tied_head(
    path: Path, files: Iterable[str], weight_map: Mapping[str, str], shards: Mapping[str, Shard]
) -> Mapping[str, str]:
    """Return the index less a head that no shard holds, where the model shares its embedding."""
    if _config(path, files).get("tie_word_embeddings") is not True:
        return weight_map
    held = {name for shard in shards.values() for name in shard.tensors}
    return {n: f for n, f in weight_map.items() if n in held or n not in TIED_HEADS}


def _check_index(where: str, weight_map: Mapping[str, str], shards: Mapping[str, Shard]) -> None:
    """Raise unless index and shards name the same tensors in the same files."""
    for tensor, name in weight_map.items():
        if tensor not in shards[name].tensors:
            raise FolderError(
                f"{where} says that {name} holds {tensor}, but it does not",
                REBUILD,
            )
    for name, shard in shards.items():
        for tensor in shard.tensors:
            if weight_map.get(tensor) != name:
                raise FolderError(
                    f"{shard.path} holds the tensor {tensor} that {where} does not place there",
                    REBUILD,
                )


def _refuse_strays(path: Path, files: Iterable[str], known: set[str]) -> None:
    """Raise if a file looks like weights of this model but belongs to no index."""
    for name in files:
        if name not in known and (name == SINGLE or _NUMBERED.fullmatch(name)):
            raise FolderError(
                f"{path / name} is an extra shard that no index names",
                f"remove it; or, if it holds the whole model, remove {INDEX} and the other shards",
            )
