"""A model folder as its family reads it: the names that it expects, the head that the file holds.

Whatever transformers does on loading so that unlike folders become the same model is done here, once,
for all that read folders. Needs no torch.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from whet.base.errors import UnsupportedError
from whet.model.config import Config
from whet.model.family import Family, families, find
from whet.store.array import KINDS, Array
from whet.store.folder import Folder
from whet.store.shard import WIDTHS, TensorInfo

NAMED = ("ignore", "modules", "targets", "modules_to_not_convert")  # lists of names of modules
AT_ONCE = 2 << 20  # numbers of a tensor that are compared
PLAIN = ("F64", "F32", "F16", "BF16")
SCALE = "weight_scale"  # all that a tied head has of its own where it shares the embedding's codes


def opened(path: Path, *, dense: bool = False) -> Folder:
    """Return a folder as the family of its model reads it; others as they lie.

    Code that a config names for a family of ours is not run, and not named any more.
    """
    return as_read(Folder(path, dense=dense, native=_native()))


def as_read(folder: Folder) -> Folder:
    """Return a folder with the names and the config by which its family reads it."""
    try:
        family = find(folder.config)
    except UnsupportedError:
        return folder
    names = _renamed(family, folder)
    config = {k: v for k, v in folder.config.items() if k != "auto_map"}
    if names:
        config |= _named(family, config)
    folder = folder.seen_as(names, config)
    return _headed(folder, family)


@cache
def _native() -> frozenset[str]:
    return frozenset(kind for family in families().values() for kind in family.model_types)


def _renamed(family: Family, folder: Folder) -> dict[str, str]:
    """Return the canonical name of each tensor that has another; one that is there already wins."""
    pairs = ((name, family.canonical(name)) for name in folder.tensors)
    return {old: new for old, new in pairs if new not in folder.tensors}


def _named(family: Family, config: Config) -> dict[str, Any]:
    """Return the `quantization_config` with the modules' canonical names."""

    def renamed(value: object, *, names: bool = False) -> object:
        if isinstance(value, Mapping):
            return {k: renamed(v, names=k in NAMED) for k, v in value.items()}
        if isinstance(value, list):
            return [renamed(item, names=names) for item in value]
        return family.canonical(value) if names and isinstance(value, str) else value

    asked = config.get("quantization_config")
    return {"quantization_config": renamed(asked)} if asked else {}


def _headed(folder: Folder, family: Family) -> Folder:
    """Return a folder whose config says truly whether head and embedding are one.

    transformers ties them only if the file holds one of them, or both with the same numbers
    (`PreTrainedModel.tie_weights`).
    """
    arch = family.architecture(folder.config)
    embed, head = family.module(arch, "embed"), family.module(arch, "head")
    if not arch.tied or set(_matrix(folder, head)) <= {f"{head}.{SCALE}"}:
        return folder
    if not _matrix(folder, embed):
        names = {name: embed + name.removeprefix(head) for name in _matrix(folder, head)}
        return folder.seen_as(names, folder.config)
    if _equal(folder, f"{embed}.weight", f"{head}.weight"):
        return folder
    return folder.seen_as({}, {**folder.config, "tie_word_embeddings": False})


def _matrix(folder: Folder, module: str) -> tuple[str, ...]:
    """Return the tensors that hold the matrix of a module, codes and scales too."""
    inside = (name for name in folder.tensors if name.startswith(f"{module}."))
    return tuple(name for name in inside if not name.endswith(".bias"))


def _equal(folder: Folder, one: str, two: str) -> bool:
    """Return whether two tensors hold the same numbers; eight-bit floats must have one type."""
    if one not in folder.tensors or two not in folder.tensors:
        return False
    infos = folder.tensors[one].info, folder.tensors[two].info
    alike = infos[0].dtype == infos[1].dtype
    if infos[0].shape != infos[1].shape or not (alike or (_plain(infos[0]) and _plain(infos[1]))):
        return False
    pairs = zip(_numbers(folder, one), _numbers(folder, two), strict=True)
    return all(
        np.array_equal(first.data, second.data)
        if alike
        else np.array_equal(first.float32(), second.float32())
        for first, second in pairs
    )


def _plain(info: TensorInfo) -> bool:
    return info.dtype in PLAIN


def _numbers(folder: Folder, name: str) -> Iterator[Array]:
    """Yield the numbers of a tensor, as many at a time whatever its type."""
    shard = folder.shard_of(name)
    info = shard.tensors[name]
    for start in range(0, info.nbytes, step := AT_ONCE * WIDTHS[info.dtype]):
        data = shard.read(name, start, start + step)
        yield Array(info.dtype, np.frombuffer(data, KINDS[info.dtype]))
