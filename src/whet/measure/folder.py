"""What a folder takes on the disk, from its headers alone. Needs no torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from whet.base.errors import UnsupportedError
from whet.base.quantity import Quantity
from whet.model.family import find
from whet.model.opened import opened
from whet.store.folder import Folder

PLAIN = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model folder.

    `files` is everything in it [byte], `tensors` the weights and what belongs to them [byte].
    `parameters` counts the numbers of the uncompressed model, 0 where its family is unknown;
    `coded` those of the linear weights that are not plain floats, `coded_bytes` what these take.
    """

    files: int
    tensors: int
    parameters: int
    coded: int
    coded_bytes: int

    def facts(self) -> dict[str, Quantity]:
        """Return the sizes as facts."""
        facts = {
            "bytes": Quantity(float(self.files), "byte", "all files of the folder"),
            "bytes_weights": Quantity(float(self.tensors), "byte", "all tensors"),
        }
        if self.parameters:
            each = 8 * self.tensors / self.parameters
            facts["parameters"] = Quantity(
                float(self.parameters), "1", "numbers before compression"
            )
            facts["bits_per_weight_model"] = Quantity(each, "bit", "all tensors ÷ parameters")
        if self.coded:
            each = 8 * self.coded_bytes / self.coded
            facts["bits_per_weight"] = Quantity(each, "bit", "compressed matrices, scales included")
        return facts


def sizes(path: Path) -> Sizes:
    """Return the sizes of a folder. Law: equal to the sizes of its files and tensors, exactly."""
    folder = opened(path)
    files = sum((folder.home / name).stat().st_size for name in folder.files)
    tensors = {name: stored.info.nbytes for name, stored in folder.tensors.items()}
    whole = sum(tensors.values())
    try:
        family = find(folder.config)
    except UnsupportedError:
        return Sizes(files, whole, 0, 0, 0)
    arch = family.architecture(folder.config, tensors.keys())
    parameters = sum(prod(shape) for shape in family.tensors(arch).values())
    held_parts = parts(tensors)
    held = {
        site.module: (prod(site.shape), held_parts.get(site.module, {}))
        for site in family.sites(arch)
    }
    coded = [(n, planes) for n, planes in held.values() if planes and not _plain(folder, planes)]
    return Sizes(
        files,
        whole,
        parameters,
        sum(n for n, _ in coded),
        sum(sum(planes.values()) for _, planes in coded),
    )


def parts(tensors: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the weight tensors of each module with their sizes [byte]."""
    found: dict[str, dict[str, int]] = {}
    for name, nbytes in tensors.items():
        module, _, part = name.rpartition(".")
        if part.startswith("weight"):
            found.setdefault(module, {})[name] = nbytes
    return found


def _plain(folder: Folder, planes: Collection[str]) -> bool:
    """Return whether a weight is one tensor of plain floats."""
    return all(folder.tensors[name].info.dtype in PLAIN for name in planes) and len(planes) == 1
